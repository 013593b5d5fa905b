"""From what a user names a model to a directory: built in, on disk, or on the Hugging Face hub.

Downloads go through huggingface_hub (its cache, environment variables, offline mode and resume), and
fetch only what is needed: the tokenizer and config files, and the shards that hold tensors of the
modalities asked for. `owner/name@revision` chooses a revision.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from phi4.checkpoint.opening import ADAPTER_FILE, required_files
from phi4.checkpoint.safetensors_file import refuse_pickle
from phi4.checkpoint.shards import INDEX_NAME, SINGLE_NAME, plan_shards
from phi4.configs import read_config
from phi4.errors import InvalidArtifact, ModelNotFound
from phi4.types import Modality

BUILTIN = ("nano",)
SMALL_FILES = (
    "config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.json",
    "chat_template.jinja",
    INDEX_NAME,
)
"""What is read beside weights and adapters: sizes, crop limit, vocabulary, chat template, list of shards."""
_HUB_ID = re.compile(
    r"(?P<repo>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?:@(?P<revision>[\w./-]{1,200}))?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubId:
    """A repository on the hub; revision None = the newest."""

    repo: str
    revision: str | None = None


def resolve_model(name: str | Path, modalities: Sequence[Modality] | None = None) -> Path:
    """Find a model, downloading what is needed of a hub repository.

    Args:
        name: "nano", a directory, or `owner/name` with an optional `@revision`. A directory of the name
            wins over a hub repository.
        modalities: What is going to be loaded; None = all the model has.

    Raises:
        ModelNotFound: Nothing of that name, or the hub cannot be reached and the cache lacks it.
        InvalidArtifact: A pickle, or a repository without safetensors.
    """
    found = locate_model(name)
    return found if isinstance(found, Path) else _from_hub(found, modalities)


def locate_model(name: str | Path) -> Path | HubId:
    """Where a model is, without fetching anything; see `resolve_model`."""
    text = str(name)
    if text in BUILTIN:
        return _builtin(text)
    path = _on_disk(text)
    if path is not None and path.is_dir():
        return path
    if path is not None:
        refuse_pickle(path)
        raise InvalidArtifact(f"{path}: a file; give the directory of the model, with its config.json")
    match = _HUB_ID.fullmatch(text)
    if match is None or text.startswith((".", "/", "~")):
        raise ModelNotFound(
            f"{text!r}: no such directory, and not one of the built-in models {list(BUILTIN)} or a hub id "
            "like microsoft/Phi-4-multimodal-instruct; check the name"
        )
    return HubId(match["repo"], match["revision"])


def _on_disk(text: str) -> Path | None:
    """What stands at a path, None also when nothing can: a name too long, a home of nobody."""
    try:
        path = Path(text).expanduser()
        return path if text and path.exists() else None
    except (OSError, RuntimeError, ValueError):
        return None


def _builtin(name: str) -> Path:
    folder = Path(str(resources.files("phi4"))) / "assets" / name
    if not (folder / "config.json").is_file():
        raise ModelNotFound(
            f"{name!r}: this installation has no {name} weights; `make {name}` in a checkout trains them"
        )
    return folder


def fetch_small_files(hub: HubId, more: Sequence[str] = ()) -> tuple[Path, HubId]:
    """Everything of a repository but its weights.

    Args:
        hub: The repository.
        more: Further patterns of file names.

    Returns:
        The folder in the cache, and the id with the commit it holds: what is fetched later is of the same.

    Raises:
        ModelNotFound: As `resolve_model`.
    """
    folder = _download(hub, (*SMALL_FILES, *more))
    if not (folder / "config.json").is_file():
        raise ModelNotFound(
            f"{hub.repo}: no config.json, neither on the hub nor in the local cache; "
            "check the name, or connect once without offline mode"
        )
    return folder, HubId(hub.repo, folder.name) if _COMMIT.fullmatch(folder.name) else hub


def _from_hub(hub: HubId, modalities: Sequence[Modality] | None) -> Path:
    folder, hub = fetch_small_files(hub)
    config = read_config(folder)
    parts = config.modalities if modalities is None else modalities
    if (folder / INDEX_NAME).is_file():
        wanted = required_files(config, plan_shards(folder).files, parts)
    else:
        wanted = [SINGLE_NAME]
    if config.layout == "hf":
        for part in ("vision", "speech"):
            if part in parts:
                wanted += [f"{part}-lora/adapter_config.json", f"{part}-lora/{ADAPTER_FILE}"]
    folder = _download(hub, tuple(wanted))
    absent = [file for file in wanted if "-lora/" not in file and not (folder / file).is_file()]
    if absent:
        raise no_weights(hub, absent)
    return folder


def no_weights(hub: HubId, absent: Sequence[str]) -> ModelNotFound:
    """The error for weight files that are nowhere."""
    return ModelNotFound(
        f"{hub.repo}: {', '.join(absent)} neither in the repository nor in the local cache; "
        "offline: connect once. Pickle weights are not read: choose a repository with safetensors files"
    )


def _download(hub: HubId, patterns: tuple[str, ...]) -> Path:
    import huggingface_hub

    try:
        return Path(
            huggingface_hub.snapshot_download(hub.repo, revision=hub.revision, allow_patterns=list(patterns))
        )
    except Exception as problem:
        raise ModelNotFound(f"{hub.repo}: {advice(problem, hub.revision)}") from problem


def advice(problem: Exception, revision: str | None) -> str:
    """One sentence on a failure of huggingface_hub: what happened and what to do."""
    from huggingface_hub import errors

    rows: tuple[tuple[type[Exception], Callable[[], str]], ...] = (
        (errors.GatedRepoError, lambda: "access is restricted; accept its terms on the hub and log in"),
        (errors.RevisionNotFoundError, lambda: f"has no revision {revision!r}; leave it out for the newest"),
        (errors.RepositoryNotFoundError, lambda: "no such repository on the hub (or it is private: log in)"),
        (
            errors.OfflineModeIsEnabled,
            lambda: (
                "not in the local cache, and offline mode (HF_HUB_OFFLINE) is on; connect once without it"
            ),
        ),
        (
            errors.LocalEntryNotFoundError,
            lambda: (
                "not in the local cache, and the hub cannot be reached (or HF_HUB_OFFLINE is set); "
                "check the connection, or give the directory of a copy"
            ),
        ),
        (errors.HFValidationError, lambda: f"not a valid hub id ({_first_line(problem)})"),
    )
    for kind, advice in rows:
        if isinstance(problem, kind):
            return advice()
    return f"the download failed ({type(problem).__name__}: {_first_line(problem)}); try again, it resumes"


def _first_line(problem: Any) -> str:
    return (str(problem).strip().splitlines() or [""])[0][:200]
