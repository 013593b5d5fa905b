"""What the commands share towards the terminal: colour, spinner, JSON lines, errors.

Answers go to standard output and everything about them to standard error, so output can be piped.
Colour and movement appear only on a terminal and never with NO_COLOR set. rich is imported on first
use: `phi4 --help` must not wait for it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from phi4.errors import ContextOverflow

if TYPE_CHECKING:
    from rich.console import Console


_PIPED_WIDTH = 240


def stdout() -> Console:
    """Console for results; plain when piped."""
    from rich.console import Console

    # Piped output has no width of its own; a narrow guess would cut tables.
    width = None if sys.stdout.isatty() else _PIPED_WIDTH
    return Console(highlight=False, width=width, color_system=_colours())


def stderr() -> Console:
    """Console for progress and notes."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, color_system=_colours())


def _colours() -> Literal["auto"] | None:
    """NO_COLOR takes bold and dim away too (rich alone would keep them)."""
    return None if os.environ.get("NO_COLOR") else "auto"


@contextmanager
def working(message: str) -> Iterator[None]:
    """A spinner on standard error while something takes time; silent when that is not a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    with stderr().status(message):
        yield


def print_json(value: Any) -> None:
    """One JSON value on one line of standard output."""
    sys.stdout.write(json_text(value))
    sys.stdout.flush()


def json_text(value: Any) -> str:
    """A JSON value as one line."""
    return json.dumps(value, default=_plain, ensure_ascii=False) + "\n"


def print_text(text: str, *, end: str = "\n") -> None:
    """Text from a model or a file, at once; on a terminal without what could steer the terminal."""
    sys.stdout.write((printable(text) if sys.stdout.isatty() else text) + end)
    sys.stdout.flush()


def printable(text: str) -> str:
    """Text with control characters (escape sequences among them) shown as U+FFFD; newline and tab stay."""
    return "".join(
        c if c in "\n\t" or (ord(c) >= 0x20 and not 0x7F <= ord(c) < 0xA0) else "\ufffd" for c in text
    )


def print_error(error: BaseException, *, as_json: bool) -> None:
    """One line on standard error; with `as_json` an object with type, message and exit code."""
    message = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, ContextOverflow) and error.has_pictures:
        message += " (--detail low, or --max-crops 4)"
    if as_json:
        code = getattr(error, "exit_code", 1)
        line = json.dumps({"error": {"type": type(error).__name__, "message": message, "exit_code": code}})
    else:
        line = f"phi4: error: {printable(message)}"
    print(line, file=sys.stderr)


def _plain(value: Any) -> Any:
    """What JSON has no form for: dataclasses, paths, and mappings that are not dict."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "items"):
        return dict(value.items())
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form")
