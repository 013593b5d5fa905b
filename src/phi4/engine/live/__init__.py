"""What is in flight inside an `EngineCore`: sequences, their caches, and the scheduler that runs them.

Nothing outside `phi4.engine` imports from here.
"""
