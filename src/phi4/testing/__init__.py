"""Shipped fakes: a tiny model with fixed weights, a scripted runner, synthetic media.

For the tests of this package and of programs built on it. Nothing in the package imports this room.
"""
