"""The processes behind the routes: preparers that turn requests into arrays, and the engine.

`client.py` is what routes ask; `frames.py` is what crosses a process border; `supervisor.py` and `pool.py`
start, watch and replace processes; `engine.py` and `preparer.py` are their programs.
"""
