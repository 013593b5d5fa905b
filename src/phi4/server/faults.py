"""How faults of ours are written to the log: where they happened, never what they were about.

The text of an unexpected error may hold anything a client sent, so a log line has its class and the innermost
lines of source only.
"""

from __future__ import annotations

import traceback


def places_of(error: BaseException, most: int = 6) -> str:
    """Class of an error and the innermost lines of source it went through, innermost first."""
    frames = traceback.extract_tb(error.__traceback__)[-most:]
    places = [f"{frame.filename.replace(chr(92), '/').rpartition('/')[2]}:{frame.lineno}" for frame in frames]
    return f"{type(error).__name__} at {' < '.join(reversed(places)) or 'an unknown place'}"
