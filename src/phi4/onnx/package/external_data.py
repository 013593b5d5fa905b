"""Which files a graph would open: a walk over the ONNX protobuf, without the onnx package.

A graph names the files of its weights itself, and a folder from somewhere else may name any file. What it
names is therefore read and judged before ONNX Runtime sees the graph. Digests in the folder's own manifest
could not do that: whoever writes a hostile graph writes its digest too. Only messages that can hold
tensors are entered, everything else is skipped by its length, so a released graph takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_DEPTH = 100  # as protobuf's own readers
# Message -> its fields that are, or contain, tensors. Source: onnx.proto, IR version 13.
_MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_EXTERNAL_DATA = 13
_KEYS = ("location", "offset", "length", "checksum")
"""What a tensor of a package may say of its data."""
_PACKED = "prepacked_"
"""What ONNX Runtime's own graphs say besides."""


def external_files(model: bytes) -> dict[str, int]:
    """Files the tensors of a serialised model name, each with the bytes it must have at least.

    Raises:
        ValueError: The bytes are not a protobuf message, or an entry is malformed.
    """
    files: dict[str, int] = {}
    for entries in _tensors(memoryview(model), "model", 0):
        strange = next((key for key in entries if key not in _KEYS), None)
        if strange is not None:
            raise ValueError(f"a tensor states {strange[:40]!r} of its data, known are {', '.join(_KEYS)}")
        if "location" not in entries:
            raise ValueError("a tensor's data are elsewhere, but it does not say where")
        end = sum(_number(entries.get(key, "0")) for key in ("offset", "length"))
        files[entries["location"]] = max(end, files.get(entries["location"], 0))
    return files


def packed_offsets(model: bytes) -> list[int]:
    """Where ONNX Runtime stored the arranged form of weights, in the data file of a graph it wrote itself.

    Raises:
        ValueError: The bytes are not a protobuf message, or an entry is malformed.

    Source: ONNX Runtime, `ExternalDataInfo`: an entry is its key, "|", then offset, length and checksum of
    every piece, with ";" between.
    """
    offsets: list[int] = []
    for entries in _tensors(memoryview(model), "model", 0):
        for key, value in entries.items():
            if key.startswith(_PACKED):
                offsets += [_number(place) for place in value.partition("|")[2].split(";")[::3]]
    return offsets


def _tensors(message: memoryview, kind: str, depth: int) -> Iterator[dict[str, str]]:
    """The `external_data` of every tensor in a message that has any."""
    if depth > _MAX_DEPTH:
        raise ValueError("messages are nested too deep")
    inside = _MESSAGES.get(kind, {})
    entries: dict[str, str] = {}
    for number, data in _fields(message):
        if number in inside:
            yield from _tensors(data, inside[number], depth + 1)
        elif kind == "tensor" and number == _EXTERNAL_DATA:
            entry = dict(_fields(data))
            key, value = (bytes(entry.get(field, b"")).decode("utf-8") for field in (1, 2))
            if key in entries:
                raise ValueError(f"a tensor states its {key[:40]!r} twice")
            entries[key] = value
    if entries:
        yield entries


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Length-delimited fields of a message, in order.

    Source: protobuf.dev, "Encoding": a field is the varint (number << 3 | wire type), then its value.
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        if key >> 32:
            raise ValueError("a field has an impossible number")
        wire = key & 7
        if wire == _BYTES:
            length, at = _varint(message, at)
            end = at + length
            if end > len(message):
                raise ValueError("a field is longer than its message")
            yield key >> 3, message[at:end]
            at = end
        elif wire == _VARINT:
            _, at = _varint(message, at)
        elif wire in (_FIXED32, _FIXED64):
            at += 4 if wire == _FIXED32 else 8
        else:
            raise ValueError(f"a field has the unknown wire type {wire}")
    if at != len(message):
        raise ValueError("the last field is cut off")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise ValueError("a number is cut off")
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def _number(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"{text[:40]!r} is no place in a file")
    return int(text)
