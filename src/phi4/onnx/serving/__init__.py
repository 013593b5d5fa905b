"""A package behind the `ModelRunner` protocol: sessions, their memory, and the passes of a step.

`runner.py` is the protocol, `forward.py` turns rows into passes, `graphs.py` runs one, `lanes.py` is the
memory of keys and values, `session.py` and `binding.py` are all there is of ONNX Runtime.
"""
