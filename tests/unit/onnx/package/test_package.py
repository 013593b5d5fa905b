"""A package is read whole, and a broken or hostile one is refused before anything runs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from onnx import ModelProto

from phi4.checkpoint import sha256_file, verify_manifest, write_manifest
from phi4.configs import Phi4Config
from phi4.errors import InvalidArtifact, InvalidConfig, InvalidRequest
from phi4.onnx import OnnxPackage, is_package, open_package
from phi4.onnx.build.genai import CONFIG_NAME, GRAPH_NAME, TOKENIZER_CONFIG_NAME
from phi4.onnx.package import checking, verified
from phi4.onnx.package.description import read_description, write_description
from phi4.onnx.serving.runner import OrtRunner
from phi4.onnx.serving.session import SessionChoice
from phi4.testing.tiny import write_tiny_tokenizer


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    shutil.copytree(tiny_folder, tmp_path / "tiny")
    return tmp_path / "tiny"


def change_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))


def change_graph(folder: Path, name: str, change: Callable[[ModelProto], None]) -> None:
    """Change a graph the way a hostile author would: with a manifest that fits."""
    path = folder / f"{name}.onnx"
    model = ModelProto.FromString(path.read_bytes())
    change(model)
    path.write_bytes(model.SerializeToString())
    write_manifest(folder)


def relocate(location: str) -> Callable[[ModelProto], None]:
    def change(model: ModelProto) -> None:
        tensor = next(t for t in model.graph.initializer if t.external_data)
        entry = next(e for e in tensor.external_data if e.key == "location")
        entry.value = location

    return change


def test_package_is_read_as_it_was_described(tiny_package: OnnxPackage, tiny: Phi4Config) -> None:
    assert tiny_package.config == tiny
    assert tiny_package.parts == ("text", "vision", "speech")
    assert tiny_package.graphs == ("decoder", "head", "vision", "subsampling", "speech")
    assert tiny_package.adapters == ("vision", "speech")
    assert tiny_package.user_slot and not tiny_package.prefill
    assert tiny_package.rotary_half == 16
    assert tiny_package.precision["decoder"] == "fp32"
    assert tiny_package.graph("head") == tiny_package.path / "head.onnx"


def test_package_is_told_from_other_folders(tiny_folder: Path, tmp_path: Path) -> None:
    assert is_package(tiny_folder) and is_package(str(tiny_folder))
    assert not is_package(tmp_path) and not is_package(tmp_path / "nothing")


def test_description_is_written_as_it_is_read_and_always_alike(tiny_folder: Path, tmp_path: Path) -> None:
    write_description(tmp_path, read_description(tiny_folder))
    first = (tmp_path / "phi4_onnx.json").read_bytes()
    assert first == (tiny_folder / "phi4_onnx.json").read_bytes()
    assert read_description(tmp_path) == read_description(tiny_folder)
    assert [path.name for path in tmp_path.iterdir()] == ["phi4_onnx.json"]


def test_parts_that_are_not_used_need_no_files(folder: Path) -> None:
    for name in ("vision", "speech", "subsampling"):
        (folder / f"{name}.onnx").unlink()
        (folder / f"{name}.onnx.data").unlink()
    assert open_package(folder, ("text",)).graphs == ("decoder", "head")
    with pytest.raises(InvalidArtifact, match=r"vision\.onnx: missing; fetch it"):
        open_package(folder, ("text", "vision"))


def test_part_the_package_leaves_out_is_gone_from_the_config(folder: Path) -> None:
    change_json(
        folder / "phi4_onnx.json", lambda raw: raw.update(parts=["text", "vision"], adapters=["vision"])
    )
    write_manifest(folder)
    package = open_package(folder)
    assert package.config.modalities == ("text", "vision")
    assert package.adapters == ("vision",)
    with pytest.raises(InvalidRequest, match="'speech' is not in this model"):
        open_package(folder, ("speech",))


@pytest.mark.parametrize("name", ["decoder.onnx", "decoder.onnx.data", "head.onnx.data", "manifest.json"])
def test_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(InvalidArtifact, match=name.replace(".", r"\.")):
        open_package(folder)


@pytest.mark.parametrize("name", ["decoder.onnx", "decoder.onnx.data", "speech.onnx.data"])
def test_file_of_another_size_than_the_manifest_states_is_refused(folder: Path, name: str) -> None:
    with (folder / name).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(InvalidArtifact, match=rf"{name}: has \d+ bytes, the manifest states \d+"):
        open_package(folder)


def flip_byte(path: Path) -> None:
    """Another byte in the middle; size and time of change stay as they are."""
    data, stat = bytearray(path.read_bytes()), path.stat()
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("name", ["decoder.onnx", "decoder.onnx.data", "vision.onnx.data", "tokenizer.json"])
def test_flipped_byte_is_refused_with_the_name_of_its_file(folder: Path, name: str) -> None:
    write_tiny_tokenizer(folder, "original")
    write_manifest(folder)
    open_package(folder)
    flip_byte(folder / name)
    with pytest.raises(InvalidArtifact, match=rf"{name}: its content is not what .*fetch or export it again"):
        open_package(folder)
    with pytest.raises(InvalidArtifact, match=rf"{name} has other contents"):
        verify_manifest(folder)


EDITS: dict[str, dict[str, Any]] = {
    "config.json": {"max_position_embeddings": 511},
    "phi4_onnx.json": {"user_slot": False},
}


@pytest.mark.parametrize("name", EDITS)
def test_small_file_that_was_edited_is_refused_though_its_fields_can_be(folder: Path, name: str) -> None:
    change_json(folder / name, lambda raw: raw.update(EDITS[name]))
    with pytest.raises(InvalidArtifact, match=rf"{name}: (its content|has \d+ bytes)"):
        open_package(folder)


def test_damage_in_a_part_that_is_not_used_is_no_obstacle(folder: Path) -> None:
    flip_byte(folder / "speech.onnx.data")
    assert open_package(folder, ("text", "vision")).parts == ("text", "vision")
    with pytest.raises(InvalidArtifact, match=r"speech\.onnx\.data: its content"):
        open_package(folder)


def test_tokenizer_nobody_listed_is_refused(folder: Path) -> None:
    write_tiny_tokenizer(folder, "original")
    with pytest.raises(InvalidArtifact, match=r"does not list 'tokenizer\.json'"):
        open_package(folder)


def test_large_data_are_compared_once_and_again_when_they_change(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHI4_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(checking, "LARGE_BYTES", 10_000)
    read: list[str] = []

    def reading(path: Path) -> str:
        read.append(path.name)
        return sha256_file(path)

    monkeypatch.setattr(verified, "sha256_file", reading)
    large = {path.name for path in folder.iterdir() if path.stat().st_size > 10_000}
    assert {"decoder.onnx.data", "head.onnx.data"} < large
    open_package(folder, compare_large=False)
    assert read == []
    open_package(folder)
    assert set(read) == large and len(read) == len(large)
    open_package(folder)
    assert len(read) == len(large), "nothing changed, so nothing is read again"
    flip_byte(folder / "head.onnx.data")
    os.utime(folder / "head.onnx.data")
    for _ in range(2):  # what was found to differ is not remembered as right
        with pytest.raises(InvalidArtifact, match=r"head\.onnx\.data: its content"):
            open_package(folder)
    assert read[len(large) :] == ["head.onnx.data"] * 2


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "tokenizer.json", "vision.onnx.data"])
def test_graph_for_other_programs_leads_them_to_no_other_file(folder: Path, location: str) -> None:
    shutil.copyfile(folder / "decoder.onnx", folder / "genai.onnx")
    open_package(folder)  # weights of the decoder are what it may read
    change_graph(folder, "genai", relocate(location))
    with pytest.raises(InvalidArtifact, match=r"genai\.onnx: takes weights from"):
        open_package(folder, ("text",))


def test_settings_of_other_programs_may_be_edited(folder: Path) -> None:
    for name in checking.GENAI_SETTINGS:
        (folder / name).write_text("{}")
    write_manifest(folder)
    for name in checking.GENAI_SETTINGS:
        (folder / name).write_text('{"threads": 8}')
    open_package(folder)
    assert (checking.GENAI_NAME, *checking.GENAI_SETTINGS) == (GRAPH_NAME, CONFIG_NAME, TOKENIZER_CONFIG_NAME)


def test_data_file_that_ends_before_the_weights_do_is_refused(folder: Path) -> None:
    data = (folder / "decoder.onnx.data").read_bytes()
    (folder / "decoder.onnx.data").write_bytes(data[:-1])
    write_manifest(folder)
    with pytest.raises(
        InvalidArtifact, match=rf"{len(data) - 1} bytes, but it is read up to byte {len(data)}"
    ):
        open_package(folder)


def test_file_the_manifest_does_not_list_is_refused(folder: Path) -> None:
    change_json(folder / "manifest.json", lambda raw: raw["files"].pop("head.onnx"))
    with pytest.raises(InvalidArtifact, match=r"does not list 'head\.onnx'"):
        open_package(folder)


@pytest.mark.parametrize(
    "location", ["../secret", "/etc/passwd", "head.onnx.data", "tokenizer.json", "x/decoder.onnx.data", ""]
)
def test_graph_that_reads_another_file_is_refused_before_it_is_opened(folder: Path, location: str) -> None:
    change_graph(folder, "decoder", relocate(location))
    with pytest.raises(InvalidArtifact, match=r"decoder\.onnx: takes weights from"):
        open_package(folder)


def test_bytes_that_are_no_graph_are_refused(folder: Path) -> None:
    (folder / "head.onnx").write_bytes(b"\x3a\xff\x01")
    write_manifest(folder)
    with pytest.raises(InvalidArtifact, match=r"head\.onnx: not an ONNX graph"):
        open_package(folder)


def test_link_that_leads_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "decoder.onnx.data").rename(tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", folder / "decoder.onnx.data")
    with pytest.raises(InvalidArtifact, match="link that leads out"):
        open_package(folder)


def test_snapshot_of_the_hub_whose_files_are_links_is_opened_and_run(folder: Path, tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "repo" / "snapshots" / "main", tmp_path / "repo" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for path in folder.iterdir():
        path.rename(blobs / f"of-{path.name}")
        os.symlink(f"../../blobs/of-{path.name}", snapshot / path.name)
    OrtRunner(open_package(snapshot), SessionChoice(threads=1))


WRONG_FIELDS: dict[str, tuple[Any, str]] = {
    "version": (2, "version is 2, this phi4 reads version 1"),
    "parts": (["text", "smell"], r"parts is \['text', 'smell'\]"),
    "adapters": (["vision", "taste"], r"adapters is .*'taste'.*among \['vision', 'speech'\]"),
    "precision": ({"decoder": "fp32"}, "precision .* given for decoder and head"),
    "user_slot": (1, "user_slot is 1, must be true or false"),
    "prefill": (None, "prefill is None"),
    "rotary_half": (24, "rotary_half is 24, must be 16, as config.json implies"),
    "block_size": (48, "block_size is 48, must be a power of two"),
    "template": ("none", "template is .none., must be null or a SHA-256"),
    "embedding": ("head.onnx.data", "embedding is 'head.onnx.data', must be an object"),
}


@pytest.mark.parametrize("field", WRONG_FIELDS)
def test_wrong_field_is_refused_with_its_value_and_what_is_valid(folder: Path, field: str) -> None:
    value, words = WRONG_FIELDS[field]
    change_json(folder / "phi4_onnx.json", lambda raw: raw.update({field: value}))
    with pytest.raises(InvalidArtifact, match=words):
        open_package(folder)


WRONG_EMBEDDINGS: dict[str, tuple[Any, str]] = {
    "file": ("../head.onnx.data", "only files of the same folder"),
    "kind": ("fp8", r"embedding\.kind is 'fp8', must be one of \['fp32', 'fp16', 'nbits'\]"),
    "offset": (-4, r"embedding\.offset is -4"),
    "bits": (3, r"embedding\.bits is 3, must be 4 or 8"),
    "block_size": (48, r"embedding\.block_size is 48, must be a power of two"),
    "scales_offset": (2, r"embedding\.scales_offset is 2"),
}


@pytest.mark.parametrize("field", WRONG_EMBEDDINGS)
def test_wrong_place_of_the_embedding_is_refused(folder: Path, field: str) -> None:
    value, words = WRONG_EMBEDDINGS[field]
    change_json(
        folder / "phi4_onnx.json", lambda raw: raw["embedding"].update({"kind": "nbits"}, **{field: value})
    )
    write_manifest(folder)
    with pytest.raises(InvalidArtifact, match=words):
        open_package(folder)


def test_embedding_that_reaches_beyond_its_file_is_refused(folder: Path) -> None:
    change_json(folder / "phi4_onnx.json", lambda raw: raw["embedding"].update(offset=4096))
    write_manifest(folder)
    with pytest.raises(InvalidArtifact, match=r"head\.onnx\.data: \d+ bytes, but it is read up to byte"):
        open_package(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_attention_heads": 1, "num_key_value_heads": 1}, "rotary_half is 16, must be 24"),
        ({"num_key_value_heads": 2}, r"decoder\.onnx: .*has the shape .* but config\.json implies"),
        ({"num_hidden_layers": 3}, r"decoder\.onnx: the graph lacks input or output"),
        ({"num_hidden_layers": 1}, r"decoder\.onnx: the graph has an unknown input or output"),
        ({"intermediate_size": 64}, r"has the shape \[\S+, 192\], but config\.json implies \[\?, 128\]"),
        ({"vocab_size": 300}, r"head\.onnx: logits has the shape"),
    ],
)
def test_config_of_another_model_is_refused(folder: Path, change: dict[str, int], words: str) -> None:
    change_json(folder / "config.json", lambda raw: raw.update(change))
    if change.get("num_attention_heads"):  # twice the width of a head, and factors for it
        ones = [1.0] * 24
        scaling = {"type": "longrope", "short_factor": ones, "long_factor": ones}
        change_json(folder / "config.json", lambda raw: raw.update(rope_scaling=scaling))
    write_manifest(folder)
    with pytest.raises(InvalidArtifact, match=words):
        OrtRunner(open_package(folder), SessionChoice(threads=1))


def test_config_that_cannot_work_is_refused_by_its_field(folder: Path) -> None:
    change_json(folder / "config.json", lambda raw: raw.update(num_attention_heads=3))
    with pytest.raises(InvalidConfig, match="num_attention_heads"):
        open_package(folder)


def test_looking_at_a_package_loads_neither_the_runtime_nor_the_builders(tiny_folder: Path) -> None:
    code = (
        "import sys\nfrom phi4.onnx import open_package\nopen_package(sys.argv[1])\n"
        "print(sorted({'onnxruntime', 'onnx', 'onnx_ir', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny_folder)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_serving_a_package_loads_no_builder(tiny_folder: Path) -> None:
    code = (
        "import sys\nfrom phi4.onnx import open_package\nfrom phi4.onnx.opening import open_ort_runner\n"
        "open_ort_runner(open_package(sys.argv[1]))\n"
        "print(sorted({'onnx', 'onnx_ir', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny_folder)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
