"""Runners by name: the one place that knows which backends exist and imports one when it is asked for.

The judge of what is speech is found here too, since a model of voice activity needs a backend.
Two forms of a model exist: a checkpoint (safetensors, run by PyTorch) and a package (ONNX graphs, run by
ONNX Runtime). A model's folder is one of them, or a checkpoint with a package in its subfolder `onnx`.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from phi4.checkpoint import HubId, UserAdapters, locate_model
from phi4.configs import Phi4Config
from phi4.engine.runner import ModelRunner
from phi4.errors import InvalidRequest, MissingExtra
from phi4.processing.speech_signs import DEFAULT_JUDGE, SpeechJudge
from phi4.types import Modality

PACKAGE_FOLDER = "onnx"
"""Subfolder of a checkpoint in which a package of the same model may stand."""
_DESCRIPTION = "phi4_onnx.json"
_EITHER = ("device", "cpu")
"""The one choice of this kind that every runner has."""


class OpenModel(Protocol):
    """A model's files, checked: a `Checkpoint` or an `OnnxPackage`."""

    @property
    def path(self) -> Path:
        """Its folder."""
        ...

    @property
    def config(self) -> Phi4Config:
        """What it is."""
        ...


@dataclass(frozen=True)
class RunnerEntry:
    """Where a backend is and what it needs.

    Attributes:
        reader: Module and function that open a model's folder: (path, modalities) -> `OpenModel`.
        module: Module of the two functions that follow.
        opener: Function taking what the reader gave and the options of `open_runner`.
        checker: Function taking the options of `check_runner`, which refuses those it cannot give.
        requires: Top-level package that must be importable.
        extra: Extra of this package that brings it; empty = the base install does.
        beside: Whether it opens in a thread of its own while the caller's does something else. PyTorch keeps
            settings of the caller by thread, such as the default device.
        instead: What else can be done where it is not installed.
    """

    reader: tuple[str, str]
    module: str
    opener: str
    checker: str
    requires: str
    extra: str
    beside: bool
    instead: str = ""


RUNNERS = {
    "onnx": RunnerEntry(
        reader=("phi4.onnx.package", "open_package"),
        module="phi4.onnx.opening",
        opener="open_ort_runner",
        checker="check_options",
        requires="onnxruntime",
        extra="",
        beside=True,
    ),
    "torch": RunnerEntry(
        reader=("phi4.checkpoint", "open_checkpoint"),
        module="phi4.torch_runner.opening",
        opener="open_torch_runner",
        checker="check_options",
        requires="torch",
        extra="torch",
        beside=False,
        instead=", or write a package of the model, which answers without: phi4 export MODEL --out DIR "
        "(needs pip install '.[export]')",
    ),
}


def asked_runner(
    runner: str | None, *, device: str | None = None, dtype: str | None = None, attention: str | None = None
) -> str | None:
    """The runner asked for, by name or through an option that only PyTorch has; None = whichever fits."""
    if runner is None and _torch_option(device=device, dtype=dtype, attention=attention):
        return "torch"
    return runner


def _torch_option(**options: str | None) -> str:
    """The first option that only PyTorch has, in words; "" = there is none: both compute on the CPU."""
    return next(
        (f"{name} {value!r}" for name, value in options.items() if value and (name, value) != _EITHER), ""
    )


def with_provider(
    runner: str | None, device: str | None, provider: str | None
) -> tuple[str | None, str | None]:
    """Runner and device for an execution provider of ONNX Runtime, which is the device of its runner.

    Args:
        runner: Asked for by name.
        device: Asked for.
        provider: Asked for; None = leave runner and device as they are.

    Raises:
        InvalidRequest: A provider with another runner, or beside a device.
    """
    if provider is None:
        return runner, device
    if runner not in (None, "onnx"):
        raise InvalidRequest(
            f"provider {provider!r}: belongs to ONNX Runtime, and the {runner} runner was asked for; "
            "leave one of them out"
        )
    if device is not None:
        raise InvalidRequest(
            f"provider {provider!r} beside device {device!r}: a provider is the device of ONNX Runtime; "
            "give one of them"
        )
    return "onnx", provider


def find_form(
    name: str | Path,
    runner: str | None = None,
    *,
    device: str | None = None,
    dtype: str | None = None,
    attention: str | None = None,
) -> tuple[str, Path | HubId]:
    """Which runner serves a model and where its files are; nothing is fetched and no backend needed.

    Args:
        name: As `phi4.load` takes it.
        runner: Asked for; None = ONNX Runtime where there is a package and none of the following options but
            the device "cpu" is asked for, else PyTorch. A repository on the hub holds a checkpoint.
        device: As `phi4.load` takes it.
        dtype: The same.
        attention: The same.

    Raises:
        ModelNotFound: Nothing of that name.
        InvalidRequest: The model has no such form, or no runner of that name exists.
    """
    found = locate_model(name)
    options = {"device": device, "dtype": dtype, "attention": attention}
    asked = asked_runner(runner, **options)
    if isinstance(found, HubId):
        return _named(asked or "torch"), found
    inside = found / PACKAGE_FOLDER
    package = next((folder for folder in (found, inside) if (folder / _DESCRIPTION).is_file()), None)
    chosen = _named(asked or ("torch" if package is None else "onnx"))
    if chosen == "torch" and package == found:
        option = _torch_option(**options) if runner is None else f"runner {runner!r}"
        raise InvalidRequest(
            f"{found}: an ONNX package, and {option} asks for PyTorch, which cannot serve one; leave it out"
        )
    if chosen == "onnx" and package is None:
        raise InvalidRequest(
            f"{found}: no ONNX package; make one (phi4 export MODEL --out FOLDER), or use the torch runner"
        )
    return chosen, package if chosen == "onnx" and package is not None else found


def merged_adapter(model: OpenModel) -> str | None:
    """The adapter that is part of a package's weights; None = none, as in every checkpoint."""
    from phi4.onnx import OnnxPackage

    return model.merged_adapter if isinstance(model, OnnxPackage) else None


def open_model(runner: str, path: Path, modalities: Sequence[Modality] | None) -> OpenModel:
    """Open and check the files of a model for a runner; see `find_form` for the path."""
    module, name = _installed(runner).reader
    opened: OpenModel = getattr(importlib.import_module(module), name)(path, modalities)
    return opened


def check_runner(
    name: str, *, device: str | None = None, dtype: str | None = None, attention: str | None = None
) -> None:
    """Refuse a runner that is not there and options it cannot give, before a model is looked for.

    Raises:
        InvalidRequest: No runner of that name, or an option it cannot give.
        MissingExtra: The backend is not installed.
    """
    entry = _installed(name, _torch_option(device=device, dtype=dtype, attention=attention))
    check = getattr(importlib.import_module(entry.module), entry.checker)
    check(device=device, dtype=dtype, attention=attention)


def open_runner(
    name: str,
    model: OpenModel,
    *,
    modalities: Sequence[Modality] | None = None,
    device: str | None = None,
    dtype: str | None = None,
    attention: str | None = None,
    adapter: UserAdapters = None,
    batch_invariant: bool = False,
) -> ModelRunner:
    """Open a runner; see `phi4.load` for the options. Several adapters serve requests that name one each.

    `batch_invariant` asks for answers that do not depend on how many are computed together, see the openers.

    Raises:
        InvalidRequest: No runner of that name, or an option it cannot give.
        MissingExtra: The backend is not installed.
    """
    entry = _installed(name)
    opener = getattr(importlib.import_module(entry.module), entry.opener)
    runner: ModelRunner = opener(
        model,
        modalities=modalities,
        device=device,
        dtype=dtype,
        attention=attention,
        adapter=adapter,
        batch_invariant=batch_invariant,
    )
    return runner


def open_judge(voice_activity: str | Path | None) -> SpeechJudge:
    """Who judges which frames of a recording sound like speech: a model in an ONNX file, or ours for None.

    Raises:
        InvalidArtifact: The file is missing, or holds no such model; says what is expected.
    """
    if voice_activity is None:
        return DEFAULT_JUDGE
    from phi4.onnx.voice_activity import VoiceActivityModel

    return VoiceActivityModel(voice_activity)


def _named(name: str) -> str:
    """The name itself, when a runner has it."""
    if name not in RUNNERS:
        raise InvalidRequest(f"no runner named {name!r}; there is {', '.join(RUNNERS)}")
    return name


def _installed(name: str, option: str = "") -> RunnerEntry:
    """The entry of a runner whose backend is there; `option` is what asks for it, where that is known."""
    entry = RUNNERS[_named(name)]
    if importlib.util.find_spec(entry.requires) is None:
        what = f"'.[{entry.extra}]'" if entry.extra else "."
        asked = f", which {option} asks for," if option and name == "torch" else ""
        raise MissingExtra(
            f"the {name} runner{asked} needs {entry.requires}, which is not installed; "
            f"install it, from the checkout: pip install {what}{entry.instead}"
        )
    return entry
