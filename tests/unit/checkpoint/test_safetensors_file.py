"""Single safetensors files: what is written is read, and every kind of damage is one clear refusal."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from phi4.checkpoint import read_header, read_tensor, write_safetensors
from phi4.checkpoint.safetensors_file import DTYPES, read_into
from phi4.errors import InvalidArtifact

TENSOR = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}


def raw_file(path: Path, header: Any, data: bytes = b"", claimed: int | None = None) -> Path:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    length = len(encoded) if claimed is None else claimed
    path.write_bytes(length.to_bytes(8, "little") + encoded + data)
    return path


def test_every_type_is_written_and_read_bit_for_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    arrays = {
        name: rng.integers(0, 2 if name == "BOOL" else 100, (3, 5)).astype(dtype)
        for name, dtype in DTYPES.items()
    }
    arrays |= {"empty": np.zeros((0, 4), np.float32), "scalar": np.array(2.5, np.float32)}
    write_safetensors(tmp_path / "x.safetensors", arrays.items())
    header = read_header(tmp_path / "x.safetensors")
    assert set(header) == set(arrays)
    for name, array in arrays.items():
        back = read_tensor(header[name])
        assert back.dtype == array.dtype and back.shape == array.shape
        assert back.tobytes() == array.tobytes()
        assert header[name].offset % array.dtype.itemsize == 0


def test_other_implementations_read_what_is_written_and_the_reverse(tmp_path: Path) -> None:
    arrays = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.ones(3, ml_dtypes.bfloat16)}
    write_safetensors(tmp_path / "ours.safetensors", arrays.items())
    theirs = load_file(tmp_path / "ours.safetensors")
    save_file(theirs, tmp_path / "theirs.safetensors")
    header = read_header(tmp_path / "theirs.safetensors")
    for name, array in arrays.items():
        assert theirs[name].tobytes() == array.tobytes() == read_tensor(header[name]).tobytes()


def test_non_contiguous_arrays_are_written_as_they_look(tmp_path: Path) -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4).T
    write_safetensors(tmp_path / "x.safetensors", [("t", array)])
    np.testing.assert_array_equal(read_tensor(read_header(tmp_path / "x.safetensors")["t"]), array)


def test_type_without_a_place_in_the_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArtifact, match="no type for complex128"):
        write_safetensors(tmp_path / "x.safetensors", [("t", np.zeros(2, np.complex128))])


@pytest.mark.parametrize(
    ("header", "data", "told"),
    [
        ({"a": TENSOR}, b"\0" * 15, "truncated, "),
        ({"a": TENSOR}, b"\0" * 17, "1 bytes after the last tensor"),
        ({"../a": TENSOR}, b"\0" * 16, "not a valid name"),
        ({"a\0b": TENSOR}, b"\0" * 16, "not a valid name"),
        ({"": TENSOR}, b"\0" * 16, "not a valid name"),
        ({"a": TENSOR, "b": TENSOR}, b"\0" * 16, "overlaps"),
        ({"a": TENSOR, "b": TENSOR | {"data_offsets": [20, 36]}}, b"\0" * 36, "hole"),
        ({"a": TENSOR | {"data_offsets": [4, 20]}}, b"\0" * 20, "hole"),
        ({"a": TENSOR | {"data_offsets": [0, 12]}}, b"\0" * 16, "needs 16 bytes, its range has 12"),
        ({"a": TENSOR | {"data_offsets": [16, 0]}}, b"\0" * 16, "not a range"),
        ({"a": TENSOR | {"data_offsets": [-16, 0]}}, b"\0" * 16, "not a range"),
        ({"a": TENSOR | {"data_offsets": [0, 16, 3]}}, b"\0" * 16, "not a range"),
        ({"a": TENSOR | {"shape": [2, -2]}}, b"\0" * 16, "shape"),
        ({"a": TENSOR | {"shape": [True, 4]}}, b"\0" * 16, "shape"),
        ({"a": TENSOR | {"shape": [2.0, 2]}}, b"\0" * 16, "shape"),
        ({"a": TENSOR | {"shape": [1 << 47] * 8}}, b"\0" * 16, "needs"),
        ({"a": TENSOR | {"shape": [1] * 9}}, b"\0" * 16, "shape"),
        ({"a": TENSOR | {"dtype": "F12"}}, b"\0" * 16, "dtype 'F12'"),
        ({"a": TENSOR | {"dtype": ["F32"]}}, b"\0" * 16, "dtype"),
        ({"a": {"dtype": "F32", "shape": [4]}}, b"\0" * 16, "lacks"),
        ({"a": 3}, b"", "lacks"),
        (
            b'{"a":' + json.dumps(TENSOR).encode() + b',"a":' + json.dumps(TENSOR).encode() + b"}",
            b"",
            "twice",
        ),
        (b'{"a": ', b"", "not a valid JSON"),
        (b"\xff\xfe{}", b"", "not a valid JSON"),
        (b"[]", b"", "must be a JSON object"),
        (b'{"a":' * 3000, b"", "not a valid JSON"),
    ],
)
def test_header_that_does_not_hold_is_refused(tmp_path: Path, header: Any, data: bytes, told: str) -> None:
    path = raw_file(tmp_path / "x.safetensors", header, data)
    with pytest.raises(InvalidArtifact, match=told) as refusal:
        read_header(path)
    assert str(path) in str(refusal.value)
    assert len(str(refusal.value)) < 600


@pytest.mark.parametrize("content", [b"", b"\x10\0\0", b"\x02\0\0\0\0\0\0\0", b"\xff" * 8 + b"{}"])
def test_file_too_short_for_its_header_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(InvalidArtifact, match=r"too short|claims a header"):
        read_header(tmp_path / "x.safetensors")


def test_header_over_the_limit_is_refused_without_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with path.open("wb") as file:
        file.write((200_000_000).to_bytes(8, "little"))
        file.truncate(400_000_000)
    with pytest.raises(InvalidArtifact, match="header of 200000000 bytes, at most 100000000"):
        read_header(path)


def test_missing_file_is_one_of_our_errors(tmp_path: Path) -> None:
    with pytest.raises(InvalidArtifact, match="cannot be read"):
        read_header(tmp_path / "none.safetensors")


def test_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.safetensors")
    with pytest.raises(InvalidArtifact, match="not a regular file"):
        read_header(tmp_path / "x.safetensors")


def _pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"w": [1.0]}))


def _archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps([1]))


@pytest.mark.parametrize("make", [_pickle, _archive])
@pytest.mark.parametrize("name", ["renamed.safetensors", "pytorch_model.bin", "w.pt", "w.PTH", "w.ckpt"])
def test_pickle_is_refused_under_any_name(tmp_path: Path, name: str, make: Callable[[Path], None]) -> None:
    make(tmp_path / name)
    with pytest.raises(InvalidArtifact, match=r"pickle checkpoint.*always refused"):
        read_header(tmp_path / name)


@pytest.mark.parametrize("start", [b"\x80\x02", b"\x80\x05"])
def test_header_whose_length_looks_like_a_pickle_is_read(tmp_path: Path, start: bytes) -> None:
    header = json.dumps({"a": TENSOR}).encode().ljust(int.from_bytes(start, "little"))
    path = raw_file(tmp_path / "x.safetensors", header, b"\0" * 16)
    assert path.read_bytes().startswith(start)
    assert set(read_header(path)) == {"a"}


def test_file_cut_after_its_header_was_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, [("t", np.ones(100, np.float32))])
    entry = read_header(path)["t"]
    os.truncate(path, path.stat().st_size - 8)
    with pytest.raises(InvalidArtifact, match="ends inside tensor t"):
        read_tensor(entry)
    path.unlink()
    with pytest.raises(InvalidArtifact, match="cannot be read"):
        read_tensor(entry)


def test_reading_into_an_array_makes_no_other_one(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, [("t", np.arange(8, dtype=np.float32))])
    out = np.zeros((2, 4), np.float32)
    read_into(read_header(path)["t"], out)
    np.testing.assert_array_equal(out.ravel(), np.arange(8))


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("intact") / "x.safetensors"
    write_safetensors(path, [("a", np.ones((2, 3), np.float32)), ("b", np.zeros(4, np.int8))])
    return path.read_bytes()


@given(data=st.data())
def test_any_flipped_header_byte_is_refused_or_gives_readable_tensors(
    intact: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    header_end = 8 + int.from_bytes(intact[:8], "little")
    position = data.draw(st.integers(0, header_end - 1))
    damaged = bytearray(intact)
    damaged[position] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.mktemp("damaged") / "x.safetensors"
    path.write_bytes(damaged)
    try:
        for entry in read_header(path).values():
            read_tensor(entry)
    except InvalidArtifact:
        pass
