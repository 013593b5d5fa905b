"""What speaks HTTP: the application and its routes, what stands in front of them, and what bodies look like.

A request passes `gate.py`, then `auth.py`, then a function of `routes/`, which reads a body (`body.py`,
checked by `schemas/`) and makes an `exchange.py`. `errors.py` is the one place that turns errors into
answers.
"""
