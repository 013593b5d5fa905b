"""The command line: one file a verb, each with `HELP`, `add_arguments` and `run`, and no logic of its own.

Nothing heavy is imported at module level: `phi4 --help` answers in under 300 ms.
"""
