"""Checkpoints: what is committed is proven, what is damaged is found, what is old goes."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from phi4.errors import TrainingError
from phi4.train import state
from phi4.train.state import RunLock, Snapshot


def snapshot(step: int) -> Snapshot:
    generator = torch.Generator().manual_seed(step)
    model = {"a.weight": torch.randn(5, 3, generator=generator), "b": torch.tensor(float(step))}
    return Snapshot(
        step, {"model": model, "optimizer": {"m": torch.randn(4, generator=generator)}}, {"stage": step}
    )


def save(folder: Path, *steps: int, keep: int = 10) -> None:
    for step in steps:
        state.save(folder, snapshot(step), keep)


def test_saved_checkpoint_comes_back_exactly(tmp_path: Path) -> None:
    save(tmp_path, 3, 12)
    loaded = state.load_newest(tmp_path)
    assert loaded is not None and loaded.step == 12 and loaded.facts["stage"] == 12
    for stem, tensors in snapshot(12).tensors.items():
        assert tensors.keys() == loaded.tensors[stem].keys()
        assert all(torch.equal(tensor, loaded.tensors[stem][name]) for name, tensor in tensors.items())


def test_folder_without_checkpoints_starts_from_nothing(tmp_path: Path) -> None:
    assert state.load_newest(tmp_path / "none") is None


def test_nothing_in_a_checkpoint_is_a_pickle(tmp_path: Path) -> None:
    save(tmp_path, 1)
    assert {path.suffix for path in (tmp_path / "step-00000001").iterdir()} == {".safetensors", ".json"}


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "extra", "swap", "manifest", "no manifest"])
@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "run.json"])
def test_damaged_checkpoint_is_passed_over_loudly(
    tmp_path: Path, damage: str, file: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, 1, 2)
    newest = tmp_path / "step-00000002"
    if damage == "flip":
        data = bytearray((newest / file).read_bytes())
        data[random.Random(file).randrange(len(data))] ^= 1
        (newest / file).write_bytes(data)
    elif damage == "truncate":
        os.truncate(newest / file, (newest / file).stat().st_size - 1)
    elif damage == "delete":
        (newest / file).unlink()
    elif damage == "extra":
        (newest / f"more-{file}").write_text("x")
    elif damage == "swap":
        (newest / file).write_bytes((tmp_path / "step-00000001" / file).read_bytes())
    elif damage == "manifest":
        (newest / "manifest.json").write_bytes((tmp_path / "step-00000001" / "manifest.json").read_bytes())
    else:
        (newest / "manifest.json").unlink()
    with caplog.at_level(logging.WARNING, "phi4.train"):
        loaded = state.load_newest(tmp_path)
    assert loaded is not None and loaded.step == 1
    assert "step-00000002" in caplog.text and "damaged" in caplog.text


def test_renamed_checkpoint_is_not_taken_for_a_newer_one(tmp_path: Path) -> None:
    save(tmp_path, 1, 2)
    (tmp_path / "step-00000001").rename(tmp_path / "step-00000009")
    loaded = state.load_newest(tmp_path)
    assert loaded is not None and loaded.step == 2


def test_run_without_any_valid_checkpoint_refuses_to_start_over(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / "step-00000001" / "run.json").write_text("{}")
    with pytest.raises(TrainingError, match="no checkpoint in"):
        state.load_newest(tmp_path)


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 3, 4, 5, keep=2)
    assert [path.name for path in state.checkpoints(tmp_path)] == ["step-00000005", "step-00000004"]


def test_failed_write_leaves_earlier_checkpoints_and_no_rubbish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1)
    calls = 0
    real = os.fsync

    def full(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TrainingError, match="No space left"):
        save(tmp_path, 2)
    loaded = state.load_newest(tmp_path)
    assert loaded is not None and loaded.step == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001"]


def save_forever(folder: str) -> None:
    step = 1
    while True:
        state.save(Path(folder), snapshot(step), 2)
        step += 1


def test_writer_killed_at_any_moment_leaves_a_valid_newest_checkpoint(tmp_path: Path) -> None:
    rng = random.Random(0)
    context = multiprocessing.get_context("fork")
    for _ in range(15):
        process = context.Process(target=save_forever, args=(str(tmp_path),))
        process.start()
        deadline = time.monotonic() + 20
        while not state.checkpoints(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(rng.random() * 0.05)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        committed = state.checkpoints(tmp_path)
        assert committed and all(state.problem_of(path) is None for path in committed)
        state.clean(tmp_path)
        assert all(path.name.startswith("step-") for path in tmp_path.iterdir())


def test_random_generators_go_on_where_they_were() -> None:
    tensors, facts = state.random_state()
    facts = json.loads(json.dumps(facts))
    first = (random.random(), float(np.random.random()), float(torch.rand(())))
    state.restore_random_state(tensors, facts)
    assert first == (random.random(), float(np.random.random()), float(torch.rand(())))


def test_second_trainer_of_a_folder_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    with RunLock(tmp_path), pytest.raises(TrainingError, match=f"process {os.getpid()}"), RunLock(tmp_path):
        raise AssertionError("two trainers hold one folder")
    with RunLock(tmp_path):
        pass
