"""Keys and values in half precision: half the memory, and answers that agree with those of the whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import phi4
from phi4.checkpoint import Checkpoint, open_checkpoint, write_manifest
from phi4.engine.runner import Draw, Row, SequenceSpec, StepPlan, TextPiece
from phi4.errors import InvalidArtifact
from phi4.onnx import open_package
from phi4.onnx.build.export import export_package
from phi4.onnx.build.options import ExportOptions
from phi4.onnx.report import describe_package
from phi4.onnx.serving.runner import OrtRunner
from phi4.onnx.serving.session import SessionChoice
from phi4.shapes import FloatArray
from phi4.testing.media import chirp, ramp_picture
from phi4.testing.tiny import write_tiny_checkpoint

ONE = SessionChoice(threads=1)
PROMPT = 40


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """The whole tiny model, which changes its LongRoPE factors at 128; not to be changed."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    write_tiny_checkpoint(folder, original_max=128, max_positions=512)
    return open_checkpoint(folder)


@pytest.fixture(scope="module")
def folder_of(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of the package with this cache."""
    folders = {
        cache: export_package(
            checkpoint, tmp_path_factory.mktemp(cache) / "p", ExportOptions("fp32", cache=cache)
        )
        for cache in ("fp32", "fp16")
    }
    return folders.__getitem__


def logprobs(runner: OrtRunner, adapters: tuple[str, ...], steps: int = 8) -> FloatArray:
    """Centred log-probabilities `[1 + steps, V]` after a prompt and after each token more."""
    ids = np.random.default_rng(0).integers(5, 250, PROMPT + steps)
    slot, found = runner.open(SequenceSpec(adapters, "short", 64)), []
    for piece in (ids[:PROMPT], *ids[PROMPT:, None]):
        (result,) = runner.step(
            StepPlan((Row(slot, (TextPiece(piece),), Draw(num_top=runner.info.vocab_size)),))
        ).rows
        by_id = np.empty(runner.info.vocab_size, np.float32)
        by_id[result.top_ids[0]] = result.top_logprobs[0]
        found.append(by_id - by_id.mean())
    runner.close(slot)
    return np.stack(found)


@pytest.mark.parametrize("adapters", [(), ("vision",), ("speech",)])
def test_half_precision_moves_logits_by_its_rounding_alone(
    adapters: tuple[str, ...], folder_of: Callable[[str], Path]
) -> None:
    half, whole = (
        logprobs(OrtRunner(open_package(folder_of(cache)), ONE), adapters) for cache in ("fp16", "fp32")
    )
    error = np.linalg.norm(half - whole, axis=1) / np.linalg.norm(whole, axis=1)
    assert (error > 0).all() and error.max() < 0.02
    assert (half.argmax(axis=1) == whole.argmax(axis=1)).all()


def test_answers_about_all_media_and_across_the_longrope_switch_are_the_same(
    folder_of: Callable[[str], Path],
) -> None:
    half, whole = phi4.load(folder_of("fp16")), phi4.load(folder_of("fp32"))
    asks: list[dict[str, Any]] = [
        {},
        {"images": ramp_picture(60, 40)},
        {"audio": chirp(0.5)},
        {"images": ramp_picture(30, 90), "audio": chirp(0.3)},
    ]
    for asked in asks:
        answers = [model.chat("what is it?", max_new_tokens=24, **asked) for model in (half, whole)]
        assert answers[0].token_ids == answers[1].token_ids and len(answers[0].token_ids) > 0
        judged = [model.score("what is it?", "the red house at 42", **asked) for model in (half, whole)]
        moved = np.abs(np.subtract(judged[0].logprobs, judged[1].logprobs))
        assert 0 < moved.max() < 0.05
    longest = [model.chat("word " * 20, max_new_tokens=150) for model in (half, whole)]
    assert longest[0].token_ids == longest[1].token_ids and longest[0].timing.rope_crossings == 1


def test_a_token_takes_half_the_memory_and_everything_says_so(folder_of: Callable[[str], Path]) -> None:
    runners = {cache: OrtRunner(open_package(folder_of(cache)), ONE) for cache in ("fp32", "fp16")}
    assert runners["fp32"].info.bytes_per_token == 2 * runners["fp16"].info.bytes_per_token
    slots = {cache: runner.open(SequenceSpec((), "short", 200)) for cache, runner in runners.items()}
    taken = {
        cache: sum(array.nbytes for array in (*pool.keys, *pool.values))
        for cache, runner in runners.items()
        for pool in [runner._lanes[slots[cache]].pool]
    }
    assert taken["fp32"] == 2 * taken["fp16"] == runners["fp32"]._lanes.allocated_bytes > 0
    for cache, runner in runners.items():
        report = describe_package(folder_of(cache))
        assert (
            report.kv_bytes_per_token == runner.info.bytes_per_token == runner.package.cache_bytes_per_token
        )
        assert report.as_dict()["cache"] == cache


def test_prefix_is_copied_in_half_precision_too(folder_of: Callable[[str], Path]) -> None:
    runner = OrtRunner(open_package(folder_of("fp16")), ONE)
    ids = np.random.default_rng(1).integers(5, 250, 20)
    first, second = (runner.open(SequenceSpec((), "short", size)) for size in (40, 100))
    (expected,) = runner.step(StepPlan((Row(first, (TextPiece(ids),), Draw(num_top=5)),))).rows
    runner.copy_prefix(first, second, 19)
    (found,) = runner.step(StepPlan((Row(second, (TextPiece(ids[19:]),), Draw(num_top=5)),))).rows
    np.testing.assert_array_equal(found.top_ids[0], expected.top_ids[0])


def test_weights_are_the_same_bytes_whatever_the_cache(folder_of: Callable[[str], Path]) -> None:
    for name in ("decoder.onnx.data", "head.onnx", "head.onnx.data"):
        assert (folder_of("fp16") / name).read_bytes() == (folder_of("fp32") / name).read_bytes()


@pytest.mark.parametrize(("stated", "found"), [("fp16", "float"), ("fp32", "float16")])
def test_graph_with_another_cache_than_stated_is_refused(
    stated: str, found: str, folder_of: Callable[[str], Path], tmp_path: Path
) -> None:
    other = {"fp16": "fp32", "fp32": "fp16"}[stated]
    for path in folder_of(other).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    where = tmp_path / "phi4_onnx.json"
    where.write_text(json.dumps(json.loads(where.read_text()) | {"cache": stated}))
    write_manifest(tmp_path)
    package = open_package(tmp_path)
    with pytest.raises(InvalidArtifact, match=rf"past_key\.0 is a tensor\({found}\), but phi4_onnx\.json"):
        OrtRunner(package, ONE)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("cache", "fp8", "cache is 'fp8', must be one of"),
        ("merged", 3, "merged is 3, must be null or the name"),
    ],
)
def test_description_with_an_impossible_field_is_refused(
    field: str, value: object, words: str, folder_of: Callable[[str], Path], tmp_path: Path
) -> None:
    for path in folder_of("fp32").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    where = tmp_path / "phi4_onnx.json"
    raw = json.loads(where.read_text())
    where.write_text(json.dumps(raw | {field: value}))
    with pytest.raises(InvalidArtifact, match=words):
        open_package(tmp_path)
    del raw["cache"], raw["merged"]  # as in packages written before there were such
    where.write_text(json.dumps(raw))
    write_manifest(tmp_path)
    assert (open_package(tmp_path).cache, open_package(tmp_path).merged_adapter) == ("fp32", None)
