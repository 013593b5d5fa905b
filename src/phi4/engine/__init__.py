"""Requests to tokens: the runner protocol, the engine and the generator.

Torch-free. `runner.py` is the seam; `core.py` is the engine that lives as long as a runner, `live/` what is
in flight inside it; `drawing/` says which token comes next, `answering/` what becomes of it, `structured/`
what form it must have; `generator.py` is what everything above asks in-process.
"""
