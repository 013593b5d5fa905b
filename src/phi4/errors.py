"""The exception tree: every failure a user can cause has a class here.

Each message says what happened, with which value, and what to do about it. Callers catch
`Phi4Error` for "anything this package refuses", or a subclass for one cause. The command line maps
each class to an exit code (`exit_code`); a server maps it to an HTTP status in one place.
Programming mistakes inside the package stay `AssertionError`s and are not part of this tree.
"""

from __future__ import annotations


class Phi4Error(Exception):
    """Root of everything this package raises on purpose."""

    exit_code = 1


class InvalidRequest(Phi4Error):
    """The caller asked for something impossible: wrong argument, unknown option, bad message."""

    exit_code = 2


class InvalidMedia(InvalidRequest):
    """An image or a recording is missing, broken, of an unknown format or over a limit.

    Attributes:
        part: The part of a conversation it came in, for callers who know where that stands; None = in none.
    """

    exit_code = 3
    part: object | None = None


class ContextOverflow(InvalidRequest):
    """The prompt with its answer does not fit into the model's context.

    Attributes:
        has_pictures: Pictures are part of it, which take fewer tokens when looked at less closely. How one
            asks for that differs between Python, command line and server: who shows the message says it.
    """

    exit_code = 4

    def __init__(self, message: str, has_pictures: bool = False) -> None:
        super().__init__(message)
        self.has_pictures = has_pictures


class InvalidArtifact(Phi4Error):
    """A file of a model (config, weights, tokenizer, adapter, manifest) is missing, broken or hostile."""

    exit_code = 5


class InvalidConfig(InvalidArtifact):
    """A `config.json` has a field whose value cannot work; names field, value and what is valid."""


class CheckpointMismatch(InvalidArtifact):
    """Weights do not fit the config: lists missing, unexpected and misshapen tensors together."""


class ModelNotFound(Phi4Error):
    """No such built-in model, directory or hub repository, or the hub cannot be reached."""

    exit_code = 6


class MissingExtra(Phi4Error):
    """A feature needs an optional dependency; the message names the extra to install."""

    exit_code = 7


class TrainingError(Phi4Error):
    """A training run cannot start, go on or resume: wrong recipe, no valid checkpoint, bad loss."""

    exit_code = 8


class OutOfMemory(Phi4Error):
    """A runner has no room for the sequence; says how much it would need."""

    exit_code = 9
