"""Checkpoints of a run: written so that a crash at any moment leaves a valid one, read with proof.

A checkpoint is a folder `step-00001200` of safetensors and JSON with a manifest of SHA-256 sums.
It is written under a temporary name, every file flushed to the disk, then the manifest, then the
folder renamed and the parent flushed. Resuming takes the newest folder whose sums agree and says
loudly which ones did not. No pickle is ever written or read. `RunLock` keeps two trainers apart.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import random
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from phi4.checkpoint.manifest import MANIFEST_NAME, verify_manifest, write_manifest
from phi4.errors import InvalidArtifact, TrainingError

_log = logging.getLogger("phi4.train")
_NAME = re.compile(r"step-(\d{8})")


@dataclass(frozen=True)
class Snapshot:
    """Everything a run needs to go on.

    Attributes:
        step: Optimiser steps done in the whole run.
        tensors: File stem ("model", "optimizer") to named tensors on the CPU.
        facts: Plain JSON values: stage, step in stage, elapsed time, recipe digest, Python RNG ...
    """

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    facts: Mapping[str, Any]


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, values: Any) -> None:
    """Replace a JSON file so that readers see the old or the new content, never a part."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(json.dumps(values, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    _fsync(temporary)
    os.replace(temporary, path)
    _fsync(path.parent)


def save(folder: Path, snapshot: Snapshot, keep: int) -> Path:
    """Commit a checkpoint below `folder`, then remove all but the newest `keep`.

    Raises:
        TrainingError: The disk refused (full, read-only); earlier checkpoints are untouched.
    """
    final = folder / f"step-{snapshot.step:08d}"
    temporary = folder / f".writing-{snapshot.step:08d}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        for stem, tensors in snapshot.tensors.items():
            path = temporary / f"{stem}.safetensors"
            save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, path)
        (temporary / "run.json").write_text(
            json.dumps({**snapshot.facts, "global_step": snapshot.step}), encoding="utf-8"
        )
        for path in temporary.iterdir():
            _fsync(path)
        _fsync(write_manifest(temporary))
        _fsync(temporary)
        if final.exists():  # an invalid leftover that resuming passed over; the trainer never repeats a step
            _remove(final)
        os.rename(temporary, final)
        _fsync(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise TrainingError(
            f"could not write the checkpoint {final}: {error}; earlier ones are intact"
        ) from error
    _retire(folder, final, keep)
    return final


def _remove(path: Path) -> None:
    """Rename first, so that a crash in the middle never leaves half a folder with a valid name."""
    trash = path.with_name(f".trash-{path.name}")
    shutil.rmtree(trash, ignore_errors=True)
    os.rename(path, trash)
    shutil.rmtree(trash, ignore_errors=True)


def _retire(folder: Path, newest: Path, keep: int) -> None:
    old = [path for path in checkpoints(folder)[keep:] if path != newest]
    if old and problem_of(newest) is None:  # never drop an old one on the word of an unproven new one
        for path in old:
            _remove(path)


def checkpoints(folder: Path) -> list[Path]:
    """Committed checkpoint folders, newest first; their content is not checked."""
    found = [path for path in folder.glob("step-*") if path.is_dir() and _NAME.fullmatch(path.name)]
    return sorted(found, reverse=True)


def problem_of(path: Path) -> str | None:
    """Why a checkpoint cannot be used, or None when every byte is proven."""
    try:
        proven = verify_manifest(path)
        extra = {p.name for p in path.iterdir()} - set(proven) - {MANIFEST_NAME}
        if extra:
            return f"unknown files {sorted(extra)}"
        missing = {"run.json", "model.safetensors", "optimizer.safetensors"} - set(proven)
        if missing:
            return f"the manifest does not list {sorted(missing)}"
        step = json.loads((path / "run.json").read_text(encoding="utf-8"))["global_step"]
        if path.name != f"step-{step:08d}":
            return f"it holds step {step}, so it was renamed or mixed with another"
    except (OSError, ValueError, KeyError, TypeError, InvalidArtifact) as error:
        return f"{type(error).__name__}: {error}"
    return None


def load_newest(folder: Path) -> Snapshot | None:
    """The newest checkpoint that proves intact, or None when there is none at all.

    Raises:
        TrainingError: Checkpoints exist but none is valid: starting over silently would lose work.
    """
    problems = []
    for path in checkpoints(folder):
        problem = problem_of(path)
        if problem is None:
            facts = json.loads((path / "run.json").read_text(encoding="utf-8"))
            tensors = {file.stem: load_file(file) for file in sorted(path.glob("*.safetensors"))}
            return Snapshot(int(path.name.removeprefix("step-")), tensors, facts)
        problems.append(f"{path.name}: {problem}")
        _log.warning("checkpoint %s is damaged (%s); trying the one before", path, problem)
    if problems:
        raise TrainingError(
            f"no checkpoint in {folder} is valid ({'; '.join(problems)}); move the folder away to start over"
        )
    return None


def clean(folder: Path) -> None:
    """Remove what an interrupted save or removal left behind. Call with the lock held."""
    for leftover in [*folder.glob(".writing-*"), *folder.glob(".trash-*")]:
        shutil.rmtree(leftover, ignore_errors=True)


def random_state() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State of every random generator: (torch's as tensors, Python's and numpy's as JSON)."""
    tensors = {"rng.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    version, words, gauss = random.getstate()
    numpy_state = np.random.get_state(legacy=False)
    inner = {**numpy_state, "state": {**numpy_state["state"], "key": numpy_state["state"]["key"].tolist()}}
    return tensors, {"python": [version, list(words), gauss], "numpy": inner}


def restore_random_state(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Put back what `random_state` gave."""
    torch.set_rng_state(tensors["rng.cpu"])
    if "rng.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["rng.cuda"])
    version, words, gauss = facts["python"]
    random.setstate((version, tuple(words), gauss))
    inner = facts["numpy"]["state"]
    key = np.array(inner["key"], dtype=np.uint32)
    np.random.set_state({**facts["numpy"], "state": {**inner, "key": key}})


class RunLock:
    """Held while a trainer owns a run folder; the kernel drops it when the process dies, however it dies."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "lock"
        self._file: IO[str] | None = None

    def __enter__(self) -> RunLock:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = self.path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            file.close()
            raise TrainingError(
                f"{self.path.parent} is being trained by process {owner}; stop it first"
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        self._file = file
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
