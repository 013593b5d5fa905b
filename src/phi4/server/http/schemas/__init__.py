"""Bodies of requests, as OpenAI shapes them: pydantic models that check shape and range, and nothing deeper.

A field that nobody knows is ignored with a line in the log; one that would change the answer's meaning and
cannot be done here is refused; `null` means the same as leaving a field out. What stands inside messages,
tools and media is judged where it is decoded, in a process of its own.
"""
