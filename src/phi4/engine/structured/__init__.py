"""What form an answer must have: what a request may ask for, compiled into masks over the vocabulary.

`spec.py` says it, `compiler.py` compiles it (in a process that may die: `mortal.py`), `constraint.py` follows
one answer; `response_format.py`, `tool_choice.py` and `tool_grammar.py` are what OpenAI's fields mean.
"""
