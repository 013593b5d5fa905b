"""Requests to tokens: the runner protocol, the reference sampler, stop rules and the generator.

Torch-free. `runner.py` is the seam; `generator.py` is what everything above asks.
"""
