"""Reading and writing single safetensors files, treating every byte of a header as hostile.

The header is checked completely before anything is allocated: its size, its JSON, every name, type,
shape and offset; the tensors must fill the file without holes or overlaps. Reads go straight into the
array that is returned, so loading needs no second copy. Files are never mapped: one that is cut short
later would end the process instead of raising an error.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from phi4.configs.jsonfile import parse_json_object
from phi4.errors import InvalidArtifact
from phi4.shapes import AnyArray

MAX_HEADER_BYTES = 100_000_000
"""Limit of the format itself."""
MAX_TENSORS = 200_000
MAX_DIMENSIONS = 8
MAX_NAME_CHARS = 512

DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
_SPELLED = {dtype: name for name, dtype in DTYPES.items()}
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
# A pickle of protocol 2 to 5, and the zip archive torch.save writes.
_PICKLE_STARTS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")
_REPAIR = "the file is broken, fetch or write it again"


@dataclass(frozen=True)
class TensorEntry:
    """Where one tensor stands on disk.

    Attributes:
        file: The safetensors file.
        stored_name: Its name in that file.
        dtype: Type as safetensors spells it, e.g. "BF16".
        shape: Dimensions.
        offset: First byte, counted from the start of the file.
        nbytes: Bytes it takes.
    """

    file: Path
    stored_name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int

    @property
    def num_elements(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


def refuse_pickle(path: Path) -> None:
    """Refuse a file whose name or first bytes are those of a pickle, without opening it further.

    Raises:
        InvalidArtifact: It is one. Unpickling runs code of whoever made the file, so it is never done.
    """
    start = b""
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(9)
    # A header of 640 bytes begins with the bytes of a pickle too, but then zeros and a brace follow.
    is_header = start[4:] == b"\0\0\0\0{"
    if path.suffix.lower() in PICKLE_SUFFIXES or (start.startswith(_PICKLE_STARTS) and not is_header):
        raise InvalidArtifact(
            f"{path}: a pickle checkpoint; loading one runs code from the file, so it is always refused. "
            "Use the safetensors files of the model, or convert it where you trust its maker"
        )


def read_header(path: Path) -> dict[str, TensorEntry]:
    """Entries of a safetensors file by stored name, in file order; reads the header only.

    Raises:
        InvalidArtifact: Not a file, a pickle, or anything in the header that does not hold.
    """
    try:
        refuse_pickle(path)
        if path.exists() and not path.is_file():
            # A pipe or a device would block for ever.
            raise InvalidArtifact(f"{path}: not a regular file; put the weights themselves there")
        file_bytes = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            if len(start) < 8:
                raise InvalidArtifact(f"{path}: {file_bytes} bytes, too short for safetensors; {_REPAIR}")
            header_bytes = int.from_bytes(start, "little")
            if not 2 <= header_bytes <= min(MAX_HEADER_BYTES, file_bytes - 8):
                limit = min(MAX_HEADER_BYTES, file_bytes - 8)
                raise InvalidArtifact(
                    f"{path}: claims a header of {header_bytes} bytes, at most {limit} can be; {_REPAIR}"
                )
            header = file.read(header_bytes)
    except OSError as problem:
        raise InvalidArtifact(
            f"{path}: cannot be read ({problem.strerror or problem}); check the path"
        ) from None
    raw = parse_json_object(header, f"{path} (header)")
    raw.pop("__metadata__", None)
    return header_entries(path, raw, 8 + header_bytes, file_bytes)


def header_entries(
    path: Path, raw: Mapping[str, Any], data_start: int, file_bytes: int
) -> dict[str, TensorEntry]:
    """Check a parsed header completely.

    Args:
        path: The file, for messages and for the entries.
        raw: Stored name -> object with dtype, shape and data_offsets.
        data_start: Bytes before the first tensor.
        file_bytes: Size of the whole file.

    Raises:
        InvalidArtifact: Anything that does not hold.
    """
    if len(raw) > MAX_TENSORS:
        raise InvalidArtifact(f"{path}: {len(raw)} tensors, at most {MAX_TENSORS} are read; {_REPAIR}")
    entries = [_entry(path, name, value, data_start) for name, value in raw.items()]
    _check_layout(path, entries, data_start, file_bytes)
    return {entry.stored_name: entry for entry in entries}


def _entry(path: Path, name: str, value: Any, data_start: int) -> TensorEntry:
    if not name or len(name) > MAX_NAME_CHARS or ".." in name or "\0" in name or not name.isprintable():
        raise InvalidArtifact(
            f"{path}: a tensor is named {name[:80]!r}, which is not a valid name; {_REPAIR}"
        )
    where = f"{path}: tensor {name}"
    if not isinstance(value, dict) or not {"dtype", "shape", "data_offsets"} <= set(value):
        raise InvalidArtifact(f"{where} lacks dtype, shape or data_offsets; {_REPAIR}")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise InvalidArtifact(f"{where}: dtype {dtype!r} is not one of {list(DTYPES)}")
    if not _is_sizes(shape) or len(shape) > MAX_DIMENSIONS:
        raise InvalidArtifact(
            f"{where}: shape {str(shape)[:80]} is not a list of at most {MAX_DIMENSIONS} sizes"
        )
    if not _is_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise InvalidArtifact(f"{where}: data_offsets {str(offsets)[:80]} is not a range of bytes; {_REPAIR}")
    nbytes = math.prod(shape) * DTYPES[dtype].itemsize
    if offsets[1] - offsets[0] != nbytes:
        held = offsets[1] - offsets[0]
        raise InvalidArtifact(
            f"{where}: {dtype} {shape} needs {nbytes} bytes, its range has {held}; {_REPAIR}"
        )
    return TensorEntry(path, name, dtype, tuple(shape), data_start + offsets[0], nbytes)


def _is_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 48 for item in value)


def _check_layout(path: Path, entries: list[TensorEntry], data_start: int, file_bytes: int) -> None:
    position = data_start
    for entry in sorted(entries, key=lambda entry: (entry.offset, entry.nbytes)):
        if entry.offset != position:
            what = "overlaps another tensor" if entry.offset < position else "follows a hole"
            raise InvalidArtifact(f"{path}: tensor {entry.stored_name} {what}; {_REPAIR}")
        position += entry.nbytes
    if position > file_bytes:
        raise InvalidArtifact(
            f"{path}: truncated, {file_bytes} of {position} bytes are there; fetch or write it again"
        )
    if position < file_bytes:
        raise InvalidArtifact(
            f"{path}: {file_bytes - position} bytes after the last tensor belong to nothing; {_REPAIR}"
        )


def read_into(entry: TensorEntry, out: AnyArray) -> None:
    """Fill `out` (contiguous, of the entry's size in bytes) with the tensor's bytes as they are stored.

    Raises:
        InvalidArtifact: The file has become shorter since its header was read, or cannot be read.
    """
    assert out.nbytes == entry.nbytes and out.flags.c_contiguous
    if not entry.nbytes:
        return
    target = out.reshape(-1).view(np.uint8).data
    try:
        with entry.file.open("rb", buffering=0) as file:
            file.seek(entry.offset)
            filled = 0
            while filled < entry.nbytes:
                count = file.readinto(target[filled:])
                if not count:
                    raise InvalidArtifact(f"{entry.file}: ends inside tensor {entry.stored_name}; {_REPAIR}")
                filled += count
    except OSError as problem:
        raise InvalidArtifact(f"{entry.file}: cannot be read ({problem.strerror or problem})") from None


def read_tensor(entry: TensorEntry) -> AnyArray:
    """The tensor as an array of its own; bfloat16 comes as `ml_dtypes.bfloat16`."""
    out = np.empty(entry.shape, dtype=DTYPES[entry.dtype])
    read_into(entry, out)
    return out


def write_safetensors(
    path: Path, tensors: Iterable[tuple[str, AnyArray]], metadata: Mapping[str, str] | None = None
) -> None:
    """Write one file; the bytes go out tensor by tensor without a copy of the whole.

    Wider types come first so that every tensor starts at a multiple of its item size.

    Raises:
        InvalidArtifact: A type safetensors does not know.
    """
    ordered = sorted(tensors, key=lambda item: -item[1].dtype.itemsize)
    header: dict[str, Any] = {"__metadata__": dict(metadata or {"format": "pt"})}
    position = 0
    for name, array in ordered:
        spelled = _SPELLED.get(array.dtype)
        if spelled is None:
            raise InvalidArtifact(
                f"tensor {name}: safetensors has no type for {array.dtype}; convert it first"
            )
        header[name] = {
            "dtype": spelled,
            "shape": list(array.shape),
            "data_offsets": [position, position + array.nbytes],
        }
        position += array.nbytes
    encoded = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for _, array in ordered:
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        file.flush()
        os.fsync(file.fileno())
