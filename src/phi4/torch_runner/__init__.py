"""The PyTorch backend: `TorchRunner` serves a live `Phi4Model` behind the `ModelRunner` protocol.

Physical memory (`cache.py`), the decoder's attention over it (`attend.py`), passes of the decoder
(`forward.py`), results (`results.py`) and the draw on the device (`sampler.py`) live here; policy lives in
`phi4.engine`. `opening.py` makes a runner from a checkpoint.
"""
