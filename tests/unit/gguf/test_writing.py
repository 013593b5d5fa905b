"""The file: metadata, names, exact bytes, and what is left when writing stops."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from phi4.checkpoint import Checkpoint, open_checkpoint, save_checkpoint
from phi4.configs import PHI4_MINI, Layout
from phi4.errors import CheckpointMismatch, InvalidArtifact, InvalidRequest, MissingExtra
from phi4.gguf import DTYPES, left_out, write_gguf, writing
from phi4.shapes import AnyArray
from phi4.testing.tiny import tiny_config, tiny_tensors, write_tiny_checkpoint, write_tiny_tokenizer

Read = Callable[[Path], Any]
NUMPY = {"float16": np.float16, "float32": np.float32, "bfloat16": ml_dtypes.bfloat16}
# Ours after "decoder.", llama.cpp's.
NAMES = {
    "embed_tokens.weight": "token_embd.weight",
    "norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.qkv_proj.weight": "attn_qkv.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "mlp.gate_up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
}


def theirs(name: str) -> str:
    rest = name.removeprefix("decoder.")
    if not rest.startswith("layers."):
        return NAMES[rest]
    _, layer, rest = rest.split(".", 2)
    return f"blk.{layer}.{NAMES[rest]}"


def tiny(folder: Path, layout: Layout = "original") -> Checkpoint:
    write_tiny_checkpoint(folder, layout)
    return open_checkpoint(folder, ("text",))


def write(checkpoint: Checkpoint, path: Path, dtype: Any = "float32", **options: Any) -> Path:
    write_gguf(checkpoint, checkpoint.path, path, dtype, **options)
    return path


def same(left: AnyArray, right: AnyArray) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


def test_metadata_state_the_network(nano: Checkpoint, tmp_path: Path, read: Read) -> None:
    fields = read(write(nano, tmp_path / "nano.gguf", "float16")).fields
    network = {key: value for key, value in fields.items() if key.startswith("phi3.")}
    assert network == {
        "phi3.context_length": 131072,
        "phi3.embedding_length": 256,
        "phi3.feed_forward_length": 640,
        "phi3.block_count": 6,
        "phi3.attention.head_count": 8,
        "phi3.attention.head_count_kv": 4,
        "phi3.attention.layer_norm_rms_epsilon": pytest.approx(1e-5),
        "phi3.attention.sliding_window": 0,
        "phi3.rope.dimension_count": 24,
        "phi3.rope.freq_base": 10000.0,
        "phi3.rope.scaling.original_context_length": 4096,
        "phi3.rope.scaling.attn_factor": pytest.approx(1.1902380714),
    }
    assert fields["general.architecture"] == "phi3"


def test_model_name_does_not_set_off_the_phi3_tokenizer_rules(
    nano: Checkpoint, tmp_path: Path, read: Read
) -> None:
    name = read(write(nano, tmp_path / "nano.gguf")).fields["general.name"].lower()
    assert "phi-4" in name and "phi-3" not in name and "phi3" not in name


@pytest.mark.parametrize(("dtype", "number"), [("float32", 0), ("float16", 1), ("bfloat16", 32)])
def test_every_tensor_holds_the_checkpoint_s_values(
    nano: Checkpoint, tmp_path: Path, read: Read, dtype: str, number: int
) -> None:
    written = read(write(nano, tmp_path / "nano.gguf", dtype))
    assert written.fields["general.file_type"] == number
    expected = {theirs(name): nano.read(name) for name in nano.names(("text",), ())}
    found = {name: value for name, value in written.tensors.items() if not name.startswith("rope_")}
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        kind = np.float32 if array.ndim == 1 else NUMPY[dtype]
        assert same(found[name], array.astype(np.float32).astype(kind)), name


def test_bfloat16_weights_are_copied_bit_by_bit(nano: Checkpoint, tmp_path: Path, read: Read) -> None:
    stored = nano.read("decoder.layers.5.mlp.down_proj.weight")
    assert stored.dtype == ml_dtypes.bfloat16
    assert same(read(write(nano, tmp_path / "n.gguf", "bfloat16")).tensors["blk.5.ffn_down.weight"], stored)


def test_rope_factors_have_one_float32_per_frequency(nano: Checkpoint, tmp_path: Path, read: Read) -> None:
    tensors = read(write(nano, tmp_path / "nano.gguf", "float16")).tensors
    decoder = nano.config.decoder
    for regime, factors in (("short", decoder.short_factor), ("long", decoder.long_factor)):
        assert same(tensors[f"rope_factors_{regime}.weight"], np.asarray(factors, np.float32))


def test_a_tied_model_has_no_output_matrix_and_an_untied_one_has(tmp_path: Path, read: Read) -> None:
    config = tiny_config("mini")
    config = replace(config, decoder=replace(config.decoder, tie_word_embeddings=False))
    untied = tmp_path / "untied"
    write_tiny_tokenizer(untied)
    save_checkpoint(untied, config, tiny_tensors(config))
    opened = open_checkpoint(untied)
    head = read(write(opened, tmp_path / "untied.gguf")).tensors["output.weight"]
    assert same(head, opened.read("decoder.lm_head.weight"))
    assert "output.weight" not in read(write(tiny(tmp_path / "tied"), tmp_path / "tied.gguf")).tensors


def test_every_layout_gives_the_same_weights(tmp_path: Path, read: Read) -> None:
    layouts: tuple[Layout, ...] = ("mini", "original", "hf")
    mini, *others = (read(write(tiny(tmp_path / lay, lay), tmp_path / f"{lay}.gguf")) for lay in layouts)
    for other in others:
        assert other.tensors.keys() == mini.tensors.keys()
        assert all(same(other.tensors[name], mini.tensors[name]) for name in mini.tensors)


@pytest.mark.parametrize("dtype", DTYPES)
def test_two_writes_give_equal_bytes_whatever_the_size_of_a_block(
    nano: Checkpoint, tmp_path: Path, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write(nano, tmp_path / "first.gguf", dtype).read_bytes()
    assert write(nano, tmp_path / "second.gguf", dtype).read_bytes() == first
    # 7 rows of 512 bytes, so that no block ends where the file is aligned and the last is smaller.
    monkeypatch.setattr(writing, "_BLOCK_BYTES", 7 * 512)
    assert write(nano, tmp_path / "third.gguf", dtype).read_bytes() == first


def test_no_more_than_a_block_is_read_at_once(nano: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    monkeypatch.setattr(writing, "_BLOCK_BYTES", 10_000)
    for item in writing._plan(nano, "float32"):
        sizes += [piece.nbytes for piece in writing._row_blocks(item.entry)]
    assert max(sizes) <= 10_000 and sum(sizes) == nano.nbytes(("text",), ())


def test_progress_counts_the_bytes_of_the_weights(nano: Checkpoint, tmp_path: Path, read: Read) -> None:
    calls: list[tuple[int, int]] = []
    path = write(nano, tmp_path / "nano.gguf", progress=lambda done, total: calls.append((done, total)))
    total = sum(array.nbytes for array in read(path).tensors.values())
    done = [call[0] for call in calls]
    assert done == sorted(set(done)) and calls[-1] == (total, total)
    assert {call[1] for call in calls} == {total}


def test_what_a_multimodal_model_loses_is_said(nano: Checkpoint, tmp_path: Path, read: Read) -> None:
    lost = ("vision encoder", "speech encoder", "adapter vision", "adapter speech")
    assert left_out(nano.config) == lost
    description = read(write(nano, tmp_path / "nano.gguf")).fields["general.description"]
    assert all(part in description for part in lost)


def test_a_text_model_loses_nothing(tmp_path: Path, read: Read) -> None:
    assert left_out(PHI4_MINI) == ()
    path = write(tiny(tmp_path / "model", "mini"), tmp_path / "out" / "tiny.gguf")
    assert "left out" not in read(path).fields["general.description"]


def test_an_interrupt_leaves_the_earlier_file_and_no_part(nano: Checkpoint, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    path = tmp_path / "nano.gguf"
    path.write_bytes(b"earlier")
    with pytest.raises(KeyboardInterrupt):
        write(nano, path, progress=stop, force=True)
    assert path.read_bytes() == b"earlier"
    assert os.listdir(tmp_path) == ["nano.gguf"]


def test_an_earlier_file_is_replaced_only_when_that_is_asked_for(nano: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "nano.gguf"
    path.write_bytes(b"earlier")
    with pytest.raises(InvalidRequest, match=r"is there already; .* replace it \(--force\)"):
        write(nano, path)
    assert path.read_bytes() == b"earlier"
    assert write(nano, path, force=True).stat().st_size > 1_000_000


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_full_disk_is_found_before_anything_is_written(
    nano: Checkpoint, tmp_path: Path, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = writing.room_bytes(nano, nano.path, dtype)
    size = write(nano, tmp_path / "there.gguf", dtype).stat().st_size
    assert size <= needed < size + 3_000_000
    disk = SimpleNamespace(free=needed - 1)
    monkeypatch.setattr("phi4.checkpoint.room.shutil.disk_usage", lambda path: disk)
    with pytest.raises(InvalidRequest, match=f"takes up to {needed} bytes, {needed - 1} are free there"):
        write(nano, tmp_path / "deep" / "nano.gguf", dtype)
    assert os.listdir(tmp_path) == ["there.gguf"]


def test_killed_half_way_leaves_no_file_of_the_final_name(tmp_path: Path, repository: Path) -> None:
    path = tmp_path / "nano.gguf"
    code = """
import os, sys
from pathlib import Path
from types import SimpleNamespace
from phi4.checkpoint import open_checkpoint, resolve_model
from phi4.gguf import write_gguf
checkpoint = open_checkpoint(resolve_model("nano", ("text",)), ("text",))
die = lambda done, total: os._exit(9) if done > total / 2 else None
write_gguf(checkpoint, checkpoint.path, Path(sys.argv[1]), "float32", die)
"""
    environment = {**os.environ, "PYTHONPATH": str(repository / "src")}
    done = subprocess.run([sys.executable, "-c", code, str(path)], env=environment, timeout=120)
    assert done.returncode == 9
    assert not path.exists()


def test_what_a_kill_left_is_written_over(nano: Checkpoint, tmp_path: Path) -> None:
    clean = write(nano, tmp_path / "clean.gguf").read_bytes()
    (tmp_path / "nano.gguf.part").write_bytes(b"x" * (len(clean) + 100))
    assert write(nano, tmp_path / "nano.gguf").read_bytes() == clean
    assert not (tmp_path / "nano.gguf.part").exists()


def test_unknown_dtype_is_refused_before_anything_is_written(nano: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"'int4'.*float16, float32, bfloat16"):
        write(nano, tmp_path / "nano.gguf", "int4")
    assert os.listdir(tmp_path) == []


def test_a_directory_is_not_a_file_to_write(nano: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="give the name of the file"):
        write(nano, tmp_path)


def test_weights_beyond_float16_are_refused_by_name(tmp_path: Path) -> None:
    config = tiny_config("mini")
    tensors = dict(tiny_tensors(config))
    tensors["decoder.layers.1.mlp.down_proj.weight"][3, 5] = 70000.0
    write_tiny_tokenizer(tmp_path)
    save_checkpoint(tmp_path, config, tensors)
    opened = open_checkpoint(tmp_path)
    with pytest.raises(InvalidRequest, match=r"layers\.1\.mlp\.down_proj.*float16 cannot hold"):
        write(opened, tmp_path / "tiny.gguf", "float16")
    assert not list(tmp_path.glob("*.gguf*"))
    assert write(opened, tmp_path / "tiny.gguf", "bfloat16").stat().st_size > 0


def test_a_missing_tensor_is_named(nano: Checkpoint, tmp_path: Path) -> None:
    entries = {name: entry for name, entry in nano.entries.items() if name != "decoder.norm.weight"}
    with pytest.raises(CheckpointMismatch, match=r"decoder\.norm\.weight"):
        write(replace(nano, entries=entries), tmp_path / "nano.gguf")


def test_a_missing_tokenizer_is_refused(nano: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(InvalidArtifact, match=r"tokenizer\.json"):
        write_gguf(nano, tmp_path, tmp_path / "nano.gguf", "float16")
    assert os.listdir(tmp_path) == []


def test_without_the_gguf_package_the_extra_is_named(
    nano: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtra, match=r"\.\[export\]"):
        write(nano, tmp_path / "nano.gguf")
    assert os.listdir(tmp_path) == []
