"""`phi4 chat`: a conversation in the terminal, streamed.

Ctrl-C stops the answer, not the program; Ctrl-D or /quit ends it. Media named with /image and /audio
go with the next message. A failed turn is reported and forgotten, so the conversation goes on.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi4.cli import options, pictures
from phi4.cli.answers import note_if_cut
from phi4.cli.console import print_error, print_text, printable, stderr
from phi4.errors import InvalidMedia, Phi4Error

if TYPE_CHECKING:
    from phi4.api import Phi4
    from phi4.types import Delta, Message

HELP = "talk with the model; Ctrl-C stops the answer, not the program"
COMMANDS = """\
/image FILE   show a picture with the next message
/audio FILE   play a recording with the next message
/reset        forget the conversation
/help         list these commands
/quit         leave (also Ctrl-D)"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this verb."""
    parser.add_argument("--system", metavar="TEXT", help="instructions for the whole conversation")
    options.add_sampling_options(parser)
    options.add_model_options(parser, pictures=True)


def run(args: argparse.Namespace) -> int:
    """Read lines, answer each, until the end of input."""
    model = options.load_model(args)
    start = [options.system_message(args.system)] if args.system else []
    conversation = Conversation(model, options.sampling(args) | {"detail": args.detail}, start)
    if sys.stdin.isatty():
        with suppress(ImportError):
            import readline  # noqa: F401  # arrow keys and history at the prompt
        stderr().print(f"{args.model} is listening. /help lists commands.", style="dim")
    while (line := read_line()) is not None:
        try:
            if not conversation.handle(line.strip()):
                break
        except KeyboardInterrupt:  # before the answer began: while media were read, or an encoder loaded
            print("(stopped)", file=sys.stderr)
    return 0


def read_line() -> str | None:
    """The next line; None at the end. Ctrl-C at the prompt only clears the line.

    Raises:
        InvalidRequest: Standard input is not text.
    """
    try:
        return input("> " if sys.stdin.isatty() else "")
    except EOFError:
        return None
    except UnicodeDecodeError as error:
        raise options.not_text(error) from None
    except KeyboardInterrupt:
        print("\n(/quit or Ctrl-D leaves)", file=sys.stderr)
        return ""


@dataclass
class Conversation:
    """Turns so far and media waiting for the next one."""

    model: Phi4
    sampling: dict[str, Any]
    start: list[Message]
    turns: list[Message] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    audio: list[str] = field(default_factory=list)

    def handle(self, line: str) -> bool:
        """Obey a command or answer a message; False = leave."""
        verb, _, rest = line.partition(" ")
        if verb == "/quit":
            return False
        if verb == "/help":
            print_text(COMMANDS)
        elif verb == "/reset":
            self.turns, self.images, self.audio = [], [], []
        elif verb in ("/image", "/audio"):
            self.attach(verb[1:], rest.strip())
        elif line.startswith("/") and " " not in line and "/" not in line[1:]:
            print(f"unknown command {line}; /help lists them", file=sys.stderr)
        elif line or self.images or self.audio:
            self.answer(line)
        return True

    def attach(self, kind: str, path: str) -> None:
        """Keep a medium for the next message after looking at it."""
        from phi4.processing.audio import load_audio
        from phi4.processing.images import load_image

        try:
            if not path:
                raise InvalidMedia(
                    f"/{kind} needs a file, such as /{kind} example.{'png' if kind == 'image' else 'wav'}"
                )
            path = os.path.expanduser(path)
            load_image(path) if kind == "image" else load_audio(path)
        except Phi4Error as error:
            print_error(error, as_json=False)
            return
        (self.images if kind == "image" else self.audio).append(path)
        print(f"({Path(path).name} goes with your next message)", file=sys.stderr)
        if kind == "image" and self.model.config.vision is not None:
            cost = pictures.cost_of(self.model, path, self.sampling.get("detail"))
            print(printable(f"({pictures.cost_line(cost)})"), file=sys.stderr)

    def answer(self, text: str) -> None:
        """Stream the answer to a message and remember both; a failed turn is taken back."""
        from phi4.types import Message, TextPart

        message = options.user_message(text, self.images, self.audio)
        self.images, self.audio = [], []
        try:
            deltas = self.model.stream([*self.start, *self.turns, message], **self.sampling)
            said = write_until_interrupted(deltas)
        except Phi4Error as error:
            print_error(error, as_json=False)
            return
        self.turns += [message, Message("assistant", (TextPart(said),))]


def write_until_interrupted(deltas: Iterator[Delta]) -> str:
    """Write an answer as it comes; Ctrl-C ends it early. Returns what was said until then."""
    said: list[str] = []
    completion = None
    try:
        for delta in deltas:
            said.append(delta.text)
            print_text(delta.text, end="")
            completion = delta.completion
    except KeyboardInterrupt:
        print(" (stopped)", file=sys.stderr)
    finally:
        close = getattr(deltas, "close", None)
        if close:  # frees what the runner holds for a half-read answer
            close()
    print_text("")
    if completion is not None:
        note_if_cut(completion)
    return "".join(said)
