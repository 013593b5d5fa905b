"""From a package to an `OrtRunner`: what the caller asked for, judged against what is there."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from phi4.checkpoint import Checkpoint, UserAdapters
from phi4.engine.runner import ModelRunner
from phi4.errors import InvalidArtifact, InvalidRequest
from phi4.onnx.package import OnnxPackage
from phi4.onnx.serving.prepared import find_prepared
from phi4.onnx.serving.runner import OrtRunner
from phi4.onnx.serving.session import CPU, SessionChoice, choose_session
from phi4.types import Modality

_log = logging.getLogger(__name__)


def check_options(*, device: str | None, dtype: str | None, attention: str | None) -> None:
    """Refuse what cannot be had here, before any file of a model is looked for; see `open_ort_runner`.

    Raises:
        InvalidRequest: Names the option, its value and what is valid.
    """
    choose_session(device)
    if dtype is not None:
        raise InvalidRequest(
            f"dtype {dtype!r}: the precision of a package is chosen when it is exported (phi4 export "
            "--precision); leave the option out"
        )
    if attention is not None:
        raise InvalidRequest(
            f"attention {attention!r}: the onnx runner has one implementation; leave the option out"
        )


def open_ort_runner(
    package: OnnxPackage | Checkpoint,
    *,
    modalities: Sequence[Modality] | None = None,
    device: str | None = None,
    dtype: str | None = None,
    attention: str | None = None,
    adapter: UserAdapters = None,
    batch_invariant: bool = False,
) -> ModelRunner:
    """Open a package's sessions and serve it; graphs that were prepared for this machine are taken first.

    Args:
        package: From `open_package`, with the same modalities. A checkpoint is refused.
        modalities: Encoders to open now; None = each when it is first needed. What the package was not
            opened for is not there.
        device: Execution provider of ONNX Runtime, "cpu" (also None) or another that is installed;
            what `phi4.load` calls `provider`.
        dtype: Must be None.
        attention: Must be None.
        adapter: The user's own adapter; several = each for the sequences that name it.
        batch_invariant: See `OrtRunner`.

    Raises:
        InvalidRequest: An option that cannot be had here, no package, or one without a slot for an adapter.
        InvalidArtifact: A graph cannot be run or does not belong to the package.
        OutOfMemory: The weights do not fit.
    """
    check_options(device=device, dtype=dtype, attention=attention)
    if isinstance(package, Checkpoint):
        raise InvalidRequest(
            f"{package.path}: holds safetensors weights, and the onnx runner serves exported packages; "
            "export it first (phi4 export MODEL --out FOLDER), or use the torch runner"
        )
    choice = _with_prepared(choose_session(device), package)
    return OrtRunner(
        package,
        choice,
        adapter=adapter,
        eager=modalities is not None,
        batch_invariant=batch_invariant,
    )


def _with_prepared(choice: SessionChoice, package: OnnxPackage) -> SessionChoice:
    """The choice with what was prepared of a package, where something was: for the CPU provider alone."""
    if choice.provider != CPU:
        return choice
    try:
        found = find_prepared(package.path)
    except InvalidArtifact as problem:
        _log.warning("the package's own graphs are opened, which is slower: %s", problem)
        return choice
    if found is not None:
        _log.info("graphs prepared for this machine are opened: %s", found.folder)
    return replace(choice, prepared=found)
