"""Runners by name: the one place that knows which backends exist and imports one when it is asked for."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass

from phi4.checkpoint import Checkpoint, LoadedAdapter
from phi4.engine.runner import ModelRunner
from phi4.errors import InvalidRequest, MissingExtra
from phi4.types import Modality


@dataclass(frozen=True)
class RunnerEntry:
    """Where a backend is and what it needs.

    Attributes:
        module: Module with the opener.
        opener: Function taking a checkpoint and the options of `open_runner`.
        checker: Function taking the options of `check_runner`, which refuses those it cannot give.
        requires: Top-level package that must be importable.
        extra: Extra of this package that brings it.
    """

    module: str
    opener: str
    checker: str
    requires: str
    extra: str


RUNNERS = {
    "torch": RunnerEntry(
        module="phi4.torch_runner.opening",
        opener="open_torch_runner",
        checker="check_options",
        requires="torch",
        extra="torch",
    )
}


def check_runner(
    name: str, *, device: str | None = None, dtype: str | None = None, attention: str | None = None
) -> None:
    """Refuse a runner that is not there and options it cannot give, before a model is looked for.

    Raises:
        InvalidRequest: No runner of that name, or an option it cannot give.
        MissingExtra: The backend is not installed.
    """
    entry = _installed(name)
    check = getattr(importlib.import_module(entry.module), entry.checker)
    check(device=device, dtype=dtype, attention=attention)


def open_runner(
    name: str,
    checkpoint: Checkpoint,
    *,
    modalities: Sequence[Modality] | None = None,
    device: str | None = None,
    dtype: str | None = None,
    attention: str | None = None,
    adapter: LoadedAdapter | None = None,
) -> ModelRunner:
    """Open a runner; see `phi4.load` for the options.

    Raises:
        InvalidRequest: No runner of that name, or an option it cannot give.
        MissingExtra: The backend is not installed.
    """
    entry = _installed(name)
    opener = getattr(importlib.import_module(entry.module), entry.opener)
    runner: ModelRunner = opener(
        checkpoint, modalities=modalities, device=device, dtype=dtype, attention=attention, adapter=adapter
    )
    return runner


def _installed(name: str) -> RunnerEntry:
    entry = RUNNERS.get(name)
    if entry is None:
        raise InvalidRequest(f"no runner named {name!r}; there is {', '.join(RUNNERS)}")
    if importlib.util.find_spec(entry.requires) is None:
        raise MissingExtra(
            f"the {name} runner needs {entry.requires}, which is not installed; "
            f"install the extra, from the checkout: pip install '.[{entry.extra}]'"
        )
    return entry
