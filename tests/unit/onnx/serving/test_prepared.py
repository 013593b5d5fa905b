"""Prepared graphs compute the very bits of the package's own, and are taken only where they fit."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import phi4
from phi4.checkpoint import LoadedAdapter, write_manifest
from phi4.checkpoint.keymap import lora_name
from phi4.configs import DECODER_TARGETS, AdapterConfig, Phi4Config
from phi4.engine.runner import Draw, Row, SequenceSpec, StepPlan, TextPiece
from phi4.errors import InvalidArtifact
from phi4.onnx import OnnxPackage, open_package, opening
from phi4.onnx.build.network.linear import Precision
from phi4.onnx.opening import open_ort_runner
from phi4.onnx.package import verified
from phi4.onnx.serving import prepared
from phi4.onnx.serving.binding import BoundSession
from phi4.onnx.serving.forward import MIN_PREFILL_TOKENS
from phi4.onnx.serving.prepared import RECORD_NAME, find_prepared
from phi4.onnx.serving.preparing import prepare
from phi4.onnx.serving.runner import OrtRunner
from phi4.onnx.serving.session import SessionChoice
from phi4.processing.mel import audio_arrays
from phi4.processing.tiles import tile_image
from phi4.registry import find_form
from phi4.shapes import AnyArray
from phi4.testing.media import chirp, ramp_picture
from phi4.testing.tiny import tiny_config, tiny_tensors

SHORT, LONG = 5, 2 * MIN_PREFILL_TOKENS


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PHI4_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Graphs that ONNX Runtime was given."""
    paths: list[Path] = []
    real = onnxruntime.InferenceSession

    def session(path: str, *args: Any, **options: Any) -> onnxruntime.InferenceSession:
        paths.append(Path(path))
        return real(path, *args, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    return paths


def quietly(name: str, done: int, total: int) -> None:
    """Nobody is told."""


KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "fp32": ("original", {}),
    "int8, two forms": ("original", {"precision": Precision("int8"), "prefill": Precision("rows8")}),
    "int4, int8 head": (
        "original",
        {"precision": Precision("int4", block_size=32), "head": Precision("int8")},
    ),
    "fp16 weights": ("mini", {"precision": Precision("fp16"), "head": Precision("fp16")}),
    "fp16 cache, no branches": ("mini", {"cache": "fp16", "prefill": Precision("rows8")}),
}
"""Layout and options of packages that have every kind of weight, graph and branch between them."""


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory, write_package: Any) -> Callable[[str], OnnxPackage]:
    made: dict[str, OnnxPackage] = {}

    def package(kind: str) -> OnnxPackage:
        if kind not in made:
            layout, options = KINDS[kind]
            config = tiny_config(layout, max_positions=512)
            folder = tmp_path_factory.mktemp("prepared") / "p"
            made[kind] = open_package(write_package(folder, config, dict(tiny_tensors(config)), **options))
        return made[kind]

    return package


@pytest.fixture
def copied(packages: Callable[[str], OnnxPackage], tmp_path: Path) -> Path:
    """A package that a test may damage."""
    return Path(shutil.copytree(packages("fp32").path, tmp_path / "copied"))


def computed(package: OnnxPackage) -> list[AnyArray]:
    """What a package computes: log-probabilities after short and long prompts, and of media features."""
    runner = open_ort_runner(package, modalities=package.parts)
    assert isinstance(runner, OrtRunner)
    found: list[AnyArray] = []
    ids = np.random.default_rng(3).integers(0, 256, LONG)
    for adapters in ((), *((name,) for name in package.adapters)):
        for count in (SHORT, LONG):
            slot = runner.open(SequenceSpec(adapters, "short", 100))
            plan = StepPlan((Row(slot, (TextPiece(ids[:count]),), Draw(num_top=320)),))
            row = runner.step(plan).rows[0]
            found += [row.top_ids[0], row.top_logprobs[0]]
    config = package.config
    if config.vision is not None and config.speech is not None:
        media = (tile_image(ramp_picture(70, 50), config.vision), audio_arrays(chirp(0.5), config.speech))
        found += [runner._features[runner.encode(each).id] for each in media]
    return found


def equal(some: Sequence[AnyArray], others: Sequence[AnyArray]) -> bool:
    return len(some) == len(others) and all(map(np.array_equal, some, others))


@pytest.mark.parametrize("kind", KINDS)
def test_prepared_graphs_compute_the_same_bits_and_no_other_is_opened(
    kind: str, packages: Callable[[str], OnnxPackage], opened: list[Path]
) -> None:
    package = packages(kind)
    expected = computed(package)
    assert {path.parent for path in opened} == {package.path}
    folder = prepare(package, quietly).folder
    opened.clear()
    assert equal(computed(package), expected)
    assert {path.parent for path in opened} == {folder}
    plain = [path.name for path in opened if ".plain." in path.name]
    assert len(plain) == len(package.plain_graphs), "without an adapter the form without branches is opened"


def test_nano_answers_alike_prepared_or_not(repository: Path, opened: list[Path]) -> None:
    media = repository / "examples" / "media"
    picture, spoken = media / "spoken-chart-qa-1.png", media / "spoken-chart-qa-1.wav"

    def answers() -> list[Any]:
        model = phi4.load("nano")
        said = [
            model.chat("What is 2 + 3?", max_new_tokens=8),
            model.chat("", images=picture, audio=spoken, max_new_tokens=8),
        ]
        scores = model.score("What does it say?", "Page 15", images=picture).logprobs
        return [*(answer.token_ids for answer in said), scores]

    expected = answers()
    _, folder = find_form("nano", "onnx")
    found = prepare(open_package(Path(str(folder))), quietly)
    opened.clear()
    assert answers() == expected
    left_out = {path.name for path in opened if path.parent != found.folder}
    assert left_out == {"vision.onnx"}, "its weights lie at odd places, which kernels cannot use"


def test_adapter_of_ones_own_takes_the_packages_graph_and_works(
    packages: Callable[[str], OnnxPackage], opened: list[Path]
) -> None:
    package = packages("fp16 cache, no branches")
    found = prepare(package, quietly)
    mine = LoadedAdapter(AdapterConfig("mine", 2, 4), own_tensors(package.config))
    opened.clear()
    open_ort_runner(package, modalities=("text",), adapter=mine)
    assert sorted(opened) == [package.path / "decoder.onnx", found.folder / "head.onnx"]


def own_tensors(config: Phi4Config) -> dict[str, AnyArray]:
    """An adapter of rank 2 for every linear layer."""
    tensors: dict[str, AnyArray] = {}
    for layer in range(config.decoder.num_hidden_layers):
        for target in DECODER_TARGETS:
            width, height = config.decoder.target_dims(target)
            tensors[lora_name(layer, target, "A", "mine")] = np.ones((2, width), np.float32)
            tensors[lora_name(layer, target, "B", "mine")] = np.ones((height, 2), np.float32)
    return tensors


def test_digests_are_remembered_so_that_opening_reads_no_file_for_them(
    packages: Callable[[str], OnnxPackage], monkeypatch: pytest.MonkeyPatch
) -> None:
    package = packages("fp32")
    prepare(package, quietly)

    def reading(path: Path) -> str:
        raise AssertionError(f"{path} was read")

    monkeypatch.setattr(verified, "sha256_file", reading)
    assert find_prepared(package.path) is not None


def test_flipped_byte_of_the_package_is_refused_as_ever(copied: Path) -> None:
    prepare(open_package(copied), quietly)
    flip(copied / "decoder.onnx.data")
    with pytest.raises(InvalidArtifact, match=r"copied/decoder\.onnx\.data: its content is not what"):
        open_package(copied)


def test_package_that_changed_does_not_meet_what_was_prepared_of_it_before(copied: Path) -> None:
    prepare(open_package(copied), quietly)
    flip(copied / "decoder.onnx.data")
    write_manifest(copied)
    assert find_prepared(copied) is None


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def of_another(folder: Path) -> None:
    """Let a preparation say that it was made for another processor."""
    raw = json.loads((folder / RECORD_NAME).read_text())
    raw["basis"]["processor"] = "abacus"
    (folder / RECORD_NAME).write_text(json.dumps(raw))
    write_manifest(folder)


def no_graph(folder: Path) -> None:
    """Put something else in place of a graph, as if it had been written so."""
    (folder / "head.onnx").write_bytes(b"no protobuf at all")
    write_manifest(folder)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "byte": (lambda folder: flip(folder / "decoder.onnx.data"), "changed since it was written"),
    "end": (lambda folder: (folder / "speech.onnx.data").write_bytes(b""), "is not there with the"),
    "graph gone": (lambda folder: (folder / "head.onnx").unlink(), "is not there with the"),
    "manifest gone": (lambda folder: (folder / "manifest.json").unlink(), "cannot be read"),
    "record": (lambda folder: (folder / RECORD_NAME).write_text("{}"), "is not the record of a preparation"),
    "no basis": (
        lambda folder: (folder / RECORD_NAME).write_text('{"version": 1, "package": "p", "basis": {}}'),
        "does not say what was prepared",
    ),
    "of another": (of_another, "was made of another package"),
    "no graph": (no_graph, "cannot run this graph"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_broken_preparation_is_warned_of_and_the_packages_own_graph_opened(
    name: str,
    packages: Callable[[str], OnnxPackage],
    opened: list[Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    package = packages("fp32")
    expected, (damage, says) = computed(package), DAMAGES[name]
    damage(prepare(package, quietly).folder)
    opened.clear()
    assert equal(computed(package), expected)
    assert package.path / "head.onnx" in opened
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert says in warning.getMessage() and "slower" in warning.getMessage()


def test_use_is_told_and_absence_is_silent(
    packages: Callable[[str], OnnxPackage], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "phi4.onnx.opening")
    package = packages("fp32")
    open_ort_runner(package)
    assert not [record for record in caplog.records if "prepared" in record.getMessage()]
    found = prepare(package, quietly)
    open_ort_runner(package)
    (told,) = [record for record in caplog.records if "prepared" in record.getMessage()]
    assert told.levelno == logging.INFO and str(found.folder) in told.getMessage()


@pytest.mark.parametrize("changed", ["runtime", "processor"])
def test_other_runtime_or_processor_finds_nothing(
    changed: str, packages: Callable[[str], OnnxPackage], monkeypatch: pytest.MonkeyPatch
) -> None:
    package = packages("fp32")
    prepare(package, quietly)
    if changed == "runtime":
        monkeypatch.setattr(onnxruntime, "__version__", "0.1")
    else:
        monkeypatch.setattr(prepared, "processor_identity", lambda: "abacus")
    assert find_prepared(package.path) is None


def test_other_provider_is_given_the_packages_own_graphs(packages: Callable[[str], OnnxPackage]) -> None:
    package = packages("fp32")
    found = prepare(package, quietly)
    elsewhere = SessionChoice("OpenVINOExecutionProvider", 1)
    assert opening._with_prepared(elsewhere, package) == elsewhere
    assert opening._with_prepared(SessionChoice(threads=1), package).prepared == found


def test_messages_name_the_graph_of_the_package(packages: Callable[[str], OnnxPackage]) -> None:
    package = packages("fp32")
    choice = SessionChoice(threads=1, prepared=prepare(package, quietly))
    graph = BoundSession(package.graph("head"), choice)
    graph.take("logits", np.zeros((1, 320), np.float32))
    with pytest.raises(InvalidArtifact, match=f"^{package.path}/head.onnx: "):
        graph.run()
