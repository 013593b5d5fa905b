"""Packages of every precision answer nearly as fp32 does, and take no more memory to make than they must."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import phi4
from phi4.checkpoint import Checkpoint, open_checkpoint, save_checkpoint, write_manifest
from phi4.checkpoint.inventory import expected_shapes
from phi4.engine.runner import Draw, Row, SequenceSpec, StepPlan, TextPiece
from phi4.errors import ContextOverflow, InvalidArtifact
from phi4.onnx import open_package
from phi4.onnx.build.export import export_package
from phi4.onnx.build.options import ExportOptions
from phi4.onnx.serving.runner import OrtRunner
from phi4.onnx.serving.session import SessionChoice
from phi4.processing.mel import audio_arrays
from phi4.processing.tiles import tile_image
from phi4.shapes import FloatArray
from phi4.testing.media import chirp, ramp_picture
from phi4.testing.tiny import tiny_config, write_tiny_checkpoint, write_tiny_tokenizer


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """The whole tiny model; not to be changed."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    write_tiny_checkpoint(folder, max_positions=512)
    return open_checkpoint(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


FORMS: dict[str, tuple[ExportOptions, float]] = {
    "fp16": (ExportOptions("fp16"), 0.02),
    "int8": (ExportOptions("int8"), 0.1),
    "int8, block 16": (ExportOptions("int8", block_size=16), 0.1),
    "int4": (ExportOptions("int4", block_size=16), 0.6),
    "fp32 with prompts in int8": (ExportOptions("fp32", fast=True), 0.1),
}
"""Options, and the largest relative error of logits: weights in a wrong order, or scales of other blocks,
give logits that have nothing to do with the right ones, an error of 1 and more."""


@pytest.fixture(scope="module")
def exact(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> OrtRunner:
    folder = export_package(checkpoint, tmp_path_factory.mktemp("exact") / "p", ExportOptions("fp32"))
    return OrtRunner(open_package(folder), SessionChoice(threads=1))


def logprobs(runner: OrtRunner, adapters: tuple[str, ...]) -> FloatArray:
    """Centred log-probabilities `[2, V]` after a prompt of 40 and one token more, so of both forms."""
    ids = np.random.default_rng(0).integers(5, 250, 41)
    slot, found = runner.open(SequenceSpec(adapters, "short", 64)), []
    for piece in (ids[:40], ids[40:]):
        plan = StepPlan((Row(slot, (TextPiece(piece),), Draw(num_top=runner.info.vocab_size)),))
        (result,) = runner.step(plan).rows
        by_id = np.empty(runner.info.vocab_size, np.float32)
        by_id[result.top_ids[0]] = result.top_logprobs[0]
        found.append(by_id - by_id.mean())
    runner.close(slot)
    return np.stack(found)


def relative_error(found: FloatArray, expected: FloatArray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("name", FORMS)
def test_every_precision_answers_nearly_as_fp32_does(
    name: str, exact: OrtRunner, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    options, most = FORMS[name]
    runner = OrtRunner(
        open_package(export_package(checkpoint, tmp_path / "p", options)), SessionChoice(threads=1)
    )
    for adapters in ((), ("vision",), ("speech",)):
        error = relative_error(logprobs(runner, adapters), logprobs(exact, adapters))
        assert 0 < error < most, f"{adapters}: {error:.3f}"
    config = checkpoint.config
    assert config.vision is not None and config.speech is not None
    picture = tile_image(ramp_picture(70, 50), config.vision)
    for medium in (picture, audio_arrays(chirp(0.6), config.speech)):
        features = [r._features[r.encode(medium).id] for r in (runner, exact)]
        error = relative_error(*features)
        assert error < most / 2, f"{type(medium).__name__}: {error:.3f}"


@pytest.mark.parametrize("precision", ["int4", "int8", "fp16", "fp32"])
def test_package_of_every_precision_answers_about_all_media(
    precision: Any, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    model = phi4.load(export_package(checkpoint, tmp_path / "p", ExportOptions(precision, fast=True)))
    picture, sound = {"images": [ramp_picture(60, 40)]}, {"audio": [chirp(0.5)]}
    asks: list[tuple[dict[str, Any], tuple[str, ...]]] = [
        ({}, ()),
        (picture, ("vision",)),
        (sound, ("speech",)),
        (picture | sound, ("vision",)),
    ]
    for asked, adapters in asks:
        answer = model.chat("what is it?", max_new_tokens=4, **asked)
        assert answer.usage.completion_tokens == 4 and answer.adapters == adapters


def test_context_limits_what_is_served_and_no_factor(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = export_package(checkpoint, tmp_path / "p", ExportOptions("fp32", context=60))
    package = open_package(folder)
    assert package.context == package.max_context_tokens == 60
    assert package.config.decoder == checkpoint.config.decoder
    model = phi4.load(folder)
    assert model.info.max_context_tokens == 60
    assert model.chat("hello", max_new_tokens=5).usage.completion_tokens == 5
    with pytest.raises(ContextOverflow, match="context of 60"):
        model.chat("word " * 80)
    with pytest.raises(ContextOverflow, match="context here is 60"):
        model.generator.runner.open(SequenceSpec((), "short", 61))
    free = export_package(checkpoint, tmp_path / "free", ExportOptions("fp32"))
    assert open_package(free).max_context_tokens == 512
    differing = {name for name, data in contents(folder).items() if contents(free)[name] != data}
    genai = {"genai.onnx", "genai_config.json", "tokenizer_config.json"}  # tables and limits of that length
    assert differing == {"phi4_onnx.json", "manifest.json", ".export.json", *genai}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (513, "context is 513, must be at most 512, as config.json has it"),
        (0, "context is 0, must be null or a number of tokens from 1"),
        (True, "context is True, must be null"),
        ("60", "context is '60', must be null"),
    ],
)
def test_context_that_cannot_be_is_refused(
    value: Any, words: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = export_package(checkpoint, tmp_path / "p", ExportOptions("fp16", modalities=("text",)))
    where = folder / "phi4_onnx.json"
    raw = json.loads(where.read_text())
    where.write_text(json.dumps(raw | {"context": value}))
    with pytest.raises(InvalidArtifact, match=words):
        open_package(folder)
    del raw["context"]  # as in packages written before there was one
    where.write_text(json.dumps(raw))
    write_manifest(folder)
    assert open_package(folder).max_context_tokens == 512


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model whose embedding, 64 million values in bfloat16, is nearly all of it."""
    folder = tmp_path_factory.mktemp("large")
    config = tiny_config("mini", vocab_size=1_000_000)
    some = np.random.default_rng(0).standard_normal(1 << 20).astype(np.float32).astype(ml_dtypes.bfloat16)
    shapes = expected_shapes(config).items()
    save_checkpoint(folder, config, ((name, np.resize(some, shape)) for name, shape in shapes), "mini")
    write_tiny_tokenizer(folder, "mini")
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measures memory through /proc")
@pytest.mark.parametrize(("precision", "most"), [("int4", 1.8), ("int8", 1.8), ("fp16", 2.3)])
def test_peak_memory_is_bounded_by_the_largest_tensor(
    precision: str, most: float, large: Path, tmp_path: Path
) -> None:
    """At int8, the tensor as it is read and half of it packed; no float32 copy, which would be two more."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom phi4.checkpoint import open_checkpoint\n"
        "from phi4.onnx.building import ExportOptions, export_package\n"
        # Not getrusage: what it reports of a child begins with the memory of the process it was forked from.
        "peak = lambda: int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])\n"
        "checkpoint, before = open_checkpoint(sys.argv[1]), peak()\n"
        "export_package(checkpoint, Path(sys.argv[2]), ExportOptions(sys.argv[3], block_size=64))\n"
        "print(before, peak())\n"
    )
    line = [sys.executable, "-c", code, str(large), str(tmp_path / "p"), precision]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=True)
    before, peak = (int(number) * 1024 for number in done.stdout.split())
    biggest = max(entry.nbytes for entry in open_checkpoint(large).entries.values())
    assert biggest >= 128e6 and peak < 600e6
    assert peak - before < most * biggest, f"{(peak - before) / biggest:.2f} times the largest tensor"
    shutil.rmtree(tmp_path / "p")
