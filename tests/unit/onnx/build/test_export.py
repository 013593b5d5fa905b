"""An export holds what was asked for, always in the same bytes, and refuses early what cannot be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import phi4
from phi4.checkpoint import Checkpoint, open_checkpoint, save_checkpoint
from phi4.checkpoint.inventory import expected_shapes
from phi4.configs import Layout
from phi4.errors import CheckpointMismatch, InvalidArtifact, InvalidRequest
from phi4.onnx import open_package
from phi4.onnx.build.export import export_package
from phi4.onnx.build.options import DEFAULTS, PARTS, ExportOptions, exported_config
from phi4.onnx.build.plan import PlannedGraph, plan_graphs
from phi4.onnx.serving.runner import OrtRunner
from phi4.onnx.serving.session import SessionChoice
from phi4.testing.tiny import tiny_config, tiny_tensors, write_tiny_checkpoint, write_tiny_tokenizer

GRAPHS = ("decoder", "head", "vision", "subsampling", "speech")
INT4 = ExportOptions("int4", fast=True)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """The whole tiny model; not to be changed."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    write_tiny_checkpoint(folder, max_positions=512)
    return open_checkpoint(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def graphs_of(checkpoint: Checkpoint, options: ExportOptions) -> tuple[PlannedGraph, ...]:
    return plan_graphs(exported_config(checkpoint.config, options), options)


def source_bytes(checkpoint: Checkpoint, graph: PlannedGraph) -> int:
    return sum(checkpoint.entries[name].nbytes for name in graph.shapes)


def test_same_checkpoint_gives_the_same_bytes(checkpoint: Checkpoint, tmp_path: Path) -> None:
    first, second = (contents(export_package(checkpoint, tmp_path / name, INT4)) for name in ("a", "b"))
    assert first == second
    assert {"prefill.onnx.data", "decoder.onnx.data", "manifest.json"} <= set(first)


def test_package_holds_its_files_alone_and_the_manifest_has_their_digests(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = export_package(checkpoint, tmp_path / "deep" / "p", ExportOptions("int8"))
    graphs = [f"{name}.onnx{end}" for name in GRAPHS for end in ("", ".data")]
    names = {*graphs, "config.json", "phi4_onnx.json", "tokenizer.json"}
    names |= {"genai.onnx", "genai_config.json", "tokenizer_config.json"}
    assert {path.name for path in folder.iterdir()} == names | {"manifest.json", ".export.json"}
    assert set(open_package(folder).verify()) == names


def test_folder_in_use_is_refused_and_left_alone(checkpoint: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for folder, says in ((tmp_path, "is not empty"), (tmp_path / "notes.txt", "is a file")):
        with pytest.raises(InvalidRequest, match=f"{says}; delete it or choose another folder"):
            export_package(checkpoint, folder, INT4)
    assert contents(tmp_path) == {"notes.txt": b"mine"}


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "precision": ({"precision": "int2"}, "precision 'int2': choose one of int4, int8, fp16, fp32"),
    "part": ({"parts": {"ears": "int8"}}, "precision of 'ears': the parts of this package are decoder, head"),
    "precision of a part": ({"parts": {"head": "fp8"}}, "precision 'fp8'"),
    "part left out": (
        {"parts": {"vision": "fp16"}, "modalities": ("text", "speech")},
        "precision of 'vision': the parts of this package are decoder, head, speech",
    ),
    "modalities": ({"modalities": ("smell",)}, "'smell' is not in this model"),
    "adapter": ({"merge_adapter": "taste"}, "merge adapter 'taste': .* has vision, speech"),
    "adapter left out": (
        {"merge_adapter": "vision", "modalities": ("text", "speech")},
        "merge adapter 'vision': a model for text, speech has speech",
    ),
    "block of 48": ({"block_size": 48}, "block size 48: must be a power of two from 16 to 256"),
    "block of 512": ({"block_size": 512}, "block size 512"),
    "no context": ({"context": 0}, "context 0: must be from 1 to 512 tokens"),
    "cache": ({"cache": "int8"}, "cache 'int8': choose one of fp32, fp16"),
    "too much context": ({"context": 513}, "context 513: must be from 1 to 512 tokens"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_option_is_refused_before_anything_is_written(
    name: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    options, words = WRONG[name]
    with pytest.raises(InvalidRequest, match=words):
        export_package(checkpoint, tmp_path / "p", ExportOptions(**options))
    assert not (tmp_path / "p").exists()


def test_model_without_tokenizer_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    config = tiny_config("mini")
    save_checkpoint(tmp_path / "m", config, tiny_tensors(config), "mini")
    with pytest.raises(InvalidArtifact, match=r"tokenizer\.json: missing"):
        export_package(open_checkpoint(tmp_path / "m"), tmp_path / "p", ExportOptions())
    assert not (tmp_path / "p").exists()


def test_checkpoint_that_lacks_a_part_is_refused_before_anything_is_written(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    entries = {name: entry for name, entry in checkpoint.entries.items() if not name.startswith("vision.")}
    partial = Checkpoint(checkpoint.path, checkpoint.config, entries)
    with pytest.raises(CheckpointMismatch, match="vision"):
        export_package(partial, tmp_path / "p", ExportOptions())
    assert not (tmp_path / "p").exists()
    export_package(partial, tmp_path / "p", ExportOptions(modalities=("text", "speech")))


def test_full_disk_is_found_before_anything_is_written(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = sum(graph.room_bytes for graph in graphs_of(checkpoint, INT4))
    asked: list[Path] = []

    def usage(path: Path) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(free=needed)

    monkeypatch.setattr("phi4.onnx.build.export.shutil.disk_usage", usage)
    says = rf"takes up to \d{{6,}} bytes, {needed} are free there; free some space, choose another disk"
    with pytest.raises(InvalidRequest, match=says):
        export_package(checkpoint, tmp_path / "a" / "b", INT4)
    assert asked == [tmp_path] and not (tmp_path / "a").exists()


@pytest.mark.parametrize("name", ["int4", "int8", "fp16", "fp32"])
def test_room_that_is_asked_for_suffices_and_weights_are_counted_as_stored(
    name: Any, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    options = ExportOptions(name, fast=True)
    folder = export_package(checkpoint, tmp_path / "p", options)
    for graph in graphs_of(checkpoint, options):
        data = (folder / f"{graph.name}.onnx.data").stat().st_size
        assert data + (folder / f"{graph.name}.onnx").stat().st_size <= graph.room_bytes
        # Small arrays stand in the graph, and the heads of the tower's queries and keys are widened by one.
        assert abs(data - graph.weight_bytes) < 0.1 * data + 2048 * len(graph.shapes)


@pytest.mark.parametrize(
    "options",
    [
        INT4,
        ExportOptions("int8"),
        ExportOptions(modalities=("text", "speech")),
        ExportOptions(merge_adapter="vision"),
    ],
    ids=["two forms", "one form", "parts", "merged"],
)
def test_progress_starts_at_nothing_and_ends_at_all(
    options: ExportOptions, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    export_package(checkpoint, tmp_path / "p", options, lambda done, total: told.append((done, total)))
    total = sum(source_bytes(checkpoint, graph) for graph in graphs_of(checkpoint, options))
    assert told[0] == (0, total) and told[-1] == (total, total)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert {stated for _, stated in told} == {total}


def test_every_tensor_of_a_graph_is_read_once(checkpoint: Checkpoint, tmp_path: Path) -> None:
    for graph in graphs_of(checkpoint, INT4):
        names: list[str] = []

        def read(name: str, names: list[str] = names) -> Any:
            names.append(name)
            return checkpoint.read(name)

        graph.build(read, tmp_path / f"{graph.name}.onnx")
        assert sorted(names) == sorted(graph.shapes), graph.name


def test_parts_have_the_precision_of_their_own(checkpoint: Checkpoint, tmp_path: Path) -> None:
    mixed = ExportOptions("int4", {"vision": "fp32", "head": "fp16"})
    folders = {
        name: contents(export_package(checkpoint, tmp_path / name, options))
        for name, options in (
            ("mixed", mixed),
            ("int4", ExportOptions("int4")),
            ("fp32", ExportOptions("fp32")),
            ("fp16", ExportOptions("fp16")),
        )
    }
    for graph, like in (("decoder", "int4"), ("speech", "int4"), ("vision", "fp32"), ("head", "fp16")):
        for file in (f"{graph}.onnx", f"{graph}.onnx.data"):
            assert folders["mixed"][file] == folders[like][file], file
    stated = open_package(tmp_path / "mixed").precision
    assert stated == {"decoder": "int4", "head": "fp16", "vision": "fp32", "speech": "int8"}


def test_int4_keeps_head_and_encoders_in_eight_bits(checkpoint: Checkpoint, tmp_path: Path) -> None:
    stated = open_package(export_package(checkpoint, tmp_path / "p", ExportOptions("int4"))).precision
    assert stated == DEFAULTS["int4"] and set(stated) == set(PARTS)
    assert (stated["decoder"], stated["head"]) == ("int4", "int8")


@pytest.mark.parametrize(
    ("modalities", "graphs", "adapters"),
    [
        (("text",), GRAPHS[:2], ()),
        (("text", "vision"), GRAPHS[:3], ("vision",)),
        (("speech",), (*GRAPHS[:2], *GRAPHS[3:]), ("speech",)),
    ],
)
def test_package_has_graphs_and_adapters_of_its_modalities_alone(
    modalities: Any,
    graphs: tuple[str, ...],
    adapters: tuple[str, ...],
    checkpoint: Checkpoint,
    tmp_path: Path,
) -> None:
    folder = export_package(checkpoint, tmp_path / "p", ExportOptions("fp16", modalities=modalities))
    package = open_package(folder)
    more = ("genai",) if adapters else ("genai", "decoder.plain")
    assert {path.name for path in folder.glob("*.onnx")} == {f"{name}.onnx" for name in (*graphs, *more)}
    assert (package.graphs, package.adapters) == (graphs, adapters)
    assert set(package.precision) == {"decoder", "head", *(set(modalities) - {"text"})}
    runner = OrtRunner(package, SessionChoice(threads=1))
    assert runner.info.modalities == ("text", *(m for m in modalities if m != "text"))
    assert runner.info.adapters == adapters


@pytest.mark.parametrize("layout", ["mini", "original", "hf"])
def test_model_of_every_layout_is_the_same_in_its_package(layout: Layout, tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path / "m", layout, max_positions=512)
    checkpoint = open_checkpoint(tmp_path / "m")
    package = open_package(export_package(checkpoint, tmp_path / "p", ExportOptions("fp32")))
    stored: Layout = "original" if layout == "hf" else layout
    expected = checkpoint.config.with_layout(stored)
    assert package.config.decoder == expected.decoder and package.config.vision == expected.vision
    assert package.config.speech == expected.speech and package.config.adapters == expected.adapters
    answer = phi4.load(tmp_path / "p").chat("hello", max_new_tokens=3)
    assert answer.usage.completion_tokens == 3


def test_model_with_a_head_of_its_own_is_exported_with_both_tables(tmp_path: Path) -> None:
    base = tiny_config("mini", max_positions=512)
    config = replace(base, decoder=replace(base.decoder, tie_word_embeddings=False))
    random = np.random.default_rng(5)
    shapes = expected_shapes(config)
    tensors = {name: 0.1 * random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    save_checkpoint(tmp_path / "m", config, tensors, "mini")
    write_tiny_tokenizer(tmp_path / "m", "mini")
    told: list[tuple[int, int]] = []
    export_package(
        open_checkpoint(tmp_path / "m"), tmp_path / "p", ExportOptions("int8"), lambda *at: told.append(at)
    )
    assert told[-1][0] == told[-1][1] == sum(array.nbytes for array in tensors.values())
    runner = OrtRunner(open_package(tmp_path / "p"), SessionChoice(threads=1))
    rows = runner._forward._embedding.rows(np.array([3, 300]))
    np.testing.assert_allclose(rows, tensors["decoder.embed_tokens.weight"][[3, 300]], atol=0.005)
    picked = random.standard_normal((2, config.decoder.hidden_size)).astype(np.float32)
    expected = picked @ tensors["decoder.lm_head.weight"].T
    assert np.linalg.norm(runner._head.logits(picked) - expected) < 0.02 * np.linalg.norm(expected)
