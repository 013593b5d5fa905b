"""All checks in order: each sees what those before it found out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from phi4.diagnose import canaries, files, machine, template
from phi4.diagnose.case import Asked, Case
from phi4.diagnose.finding import Finding, LeftOut, judged

Check = Callable[[Case], Finding | None]

BEFORE_LOADING: dict[str, Check] = {
    "versions": machine.check_versions,
    "model": files.check_model,
    "runner": machine.check_runner_installed,
    "threads": machine.check_threads,
    "config": files.check_config,
    "weights": files.check_weights,
    "checksums": files.check_checksums,
    "prepared": files.check_prepared,
    "longrope": files.check_longrope,
    "adapters": files.check_adapters,
    "tokenizer": files.check_tokenizer,
    "template": template.check_template,
    "memory": machine.check_memory,
}
"""Name -> what reads files and asks the system, in a moment except for digests."""
CANARIES: dict[str, Check] = {
    "text": canaries.check_text,
    "picture": canaries.check_picture,
    "recording": canaries.check_recording,
    "nano": canaries.check_nano,
}
"""Name -> what lets the model answer."""


def examine(asked: Asked) -> Iterator[Finding]:
    """Run every check; each finding comes as soon as it is there, and none as an exception.

    Args:
        asked: The model and how it would be loaded.
    """
    case = Case(asked)
    fits = True
    for name, check in BEFORE_LOADING.items():
        found = judged(name, partial(check, case))
        if found is not None:
            fits = fits and not (name == "memory" and found.verdict == "error")
            yield found
    loading = canaries.check_loading if fits else _no_room
    for name, check in {"loading": loading, **CANARIES}.items():
        found = judged(name, partial(check, case))
        if found is not None:
            yield found


def _no_room(case: Case) -> Finding:
    raise LeftOut("left out: the memory is too small for this model")
