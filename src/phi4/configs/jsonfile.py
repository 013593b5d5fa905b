"""Reading a small JSON object from an untrusted file: size limit, no NaN, no duplicate keys.

`read_json_object(path)` serves the configs, the index, the manifest and the tokenizer of a directory,
`parse_json_object(data, origin)` bytes that are there already, such as a safetensors header. What the
object says is checked by those who asked for it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from phi4.errors import InvalidArtifact

MAX_JSON_BYTES = 64 << 20


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key[:80]!r} stands twice")
        found[key] = value
    return found


def parse_json_object(
    data: bytes, origin: str, error: type[InvalidArtifact] = InvalidArtifact
) -> dict[str, Any]:
    """Parse UTF-8 bytes that must be one JSON object.

    Args:
        data: The bytes.
        origin: Named in messages, usually the file.
        error: Class of our errors to raise.

    Raises:
        InvalidArtifact: Not UTF-8, not JSON, not an object, NaN or infinities, a key twice, nested too deep.
    """
    try:
        value = json.loads(
            data.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_no_duplicates
        )
    except (ValueError, RecursionError) as problem:
        raise error(f"{origin}: not a valid JSON file ({problem}); fetch or write it again") from None
    if not isinstance(value, dict):
        raise error(f"{origin}: holds a {type(value).__name__}, must be a JSON object")
    return value


def read_json_object(path: Path, error: type[InvalidArtifact] = InvalidArtifact) -> dict[str, Any]:
    """Read a file that must hold one JSON object of at most 64 MiB.

    Raises:
        InvalidArtifact: Missing, unreadable, too large, or not such an object.
    """
    try:
        if path.exists() and not path.is_file():
            raise error(f"{path}: not a regular file; put the file itself there")
        size = path.stat().st_size
        if size > MAX_JSON_BYTES:
            raise error(f"{path}: {size} bytes, a JSON file of a model has at most {MAX_JSON_BYTES}")
        data = path.read_bytes()
    except OSError as problem:
        raise error(f"{path}: cannot be read ({problem.strerror or problem}); check the path") from None
    return parse_json_object(data, str(path), error)
