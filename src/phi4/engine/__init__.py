"""Requests to tokens: the runner protocol, the reference sampler, policies, the engine and the generator.

Torch-free. `runner.py` is the seam; `core.py` is the engine that lives as long as a runner, `live/` what is
in flight inside it; `generator.py` is what everything above asks in-process.
"""
