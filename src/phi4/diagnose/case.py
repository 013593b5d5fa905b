"""What is examined: the user's choices, and what the checks have found out so far for those after them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from phi4.api import Phi4
from phi4.configs import Phi4Config
from phi4.diagnose.finding import LeftOut
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.registry import OpenModel
from phi4.types import Modality

T = TypeVar("T")


@dataclass(frozen=True)
class Asked:
    """What `phi4.load` would be asked for; see there.

    Attributes:
        quick: Leave the digests of all files out: comparing them reads every byte of the weights. Those that
            opening compares anyway are compared.
    """

    model: str = "nano"
    runner: str | None = None
    device: str | None = None
    dtype: str | None = None
    attention: str | None = None
    modalities: Sequence[Modality] | None = None
    adapter: str | None = None
    provider: str | None = None
    quick: bool = False


@dataclass
class Case:
    """An examination under way; each field is None until the check that fills it has succeeded.

    Attributes:
        asked: The user's choices.
        folder: The model's folder, whatever forms of the model are in it.
        path: The folder of the form that is going to be run.
        runner: Name of the runner.
        config: What the model is.
        files: Its files, opened and compared with the config.
        tokenizer: Its tokenizer.
        model: The loaded model.
    """

    asked: Asked
    folder: Path | None = None
    path: Path | None = None
    runner: str | None = None
    config: Phi4Config | None = None
    files: OpenModel | None = None
    tokenizer: Phi4Tokenizer | None = None
    model: Phi4 | None = None


def need(value: T | None, check: str) -> T:
    """What an earlier check found.

    Args:
        value: A field of the case.
        check: Name of the check that fills it.

    Raises:
        LeftOut: That check failed.
    """
    if value is None:
        raise LeftOut(f"left out: it needs what {check!r} did not find")
    return value
