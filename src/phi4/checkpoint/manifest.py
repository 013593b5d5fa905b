"""Checksum manifests: which files belong to a folder, with their sizes and SHA-256.

write_manifest(folder)        # writes folder/manifest.json
read_manifest(folder)         # what it says; no file is looked at
verify_manifest(folder)       # raises when a file is missing, shorter or changed
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from phi4.checkpoint.shards import contained
from phi4.configs.jsonfile import read_json_object
from phi4.errors import InvalidArtifact

MANIFEST_NAME = "manifest.json"
_SHOWN = 8


@dataclass(frozen=True)
class Listed:
    """What a manifest states of a file.

    Attributes:
        size_bytes: Its size.
        sha256: Its digest, hexadecimal.
    """

    size_bytes: int
    sha256: str


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(directory: str | Path, files: Iterable[str] | None = None) -> Path:
    """Write `manifest.json`.

    Args:
        directory: The folder.
        files: Paths inside it, with "/"; None = every file below it except hidden ones and the manifest.

    Raises:
        InvalidArtifact: A file is not there.
    """
    directory = Path(directory)
    if files is None:
        found = (path.relative_to(directory) for path in directory.rglob("*") if path.is_file())
        names = [path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts)]
    else:
        names = list(files)
    listed = {}
    for name in sorted(set(names) - {MANIFEST_NAME}):
        path = directory / name
        if not path.is_file():
            raise InvalidArtifact(f"{path}: not a file, so it cannot be listed in a manifest")
        listed[name] = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
    target = directory / MANIFEST_NAME
    part = target.with_suffix(".part")
    part.write_text(json.dumps({"version": 1, "files": listed}, indent=2) + "\n", encoding="utf-8")
    return part.replace(target)


def read_manifest(directory: str | Path) -> dict[str, Listed]:
    """What `manifest.json` says; whether a name leads out of the folder is checked where it is used.

    Raises:
        InvalidArtifact: The manifest is missing or broken.
    """
    where = Path(directory) / MANIFEST_NAME
    raw = read_json_object(where)
    files = raw.get("files")
    if raw.get("version") != 1 or not isinstance(files, dict):
        raise InvalidArtifact(f"{where}: not a manifest of version 1; fetch or write the folder again")
    return {name: _listed(where, name, stated) for name, stated in files.items()}


def verify_manifest(directory: str | Path) -> tuple[str, ...]:
    """Check every file a manifest lists.

    Returns:
        The names that were checked.

    Raises:
        InvalidArtifact: The manifest is missing or broken, names a file outside the folder or a link that
            leads there, or files are missing or changed; all of them are named.
    """
    directory = Path(directory)
    files = read_manifest(directory)
    found = {name: _problem(_inside(directory, name), stated) for name, stated in files.items()}
    problems = [f"{name} {problem}" for name, problem in found.items() if problem]
    if problems:
        more = f", and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise InvalidArtifact(
            f"{directory}: does not agree with its manifest: {', '.join(problems[:_SHOWN])}{more}; "
            "fetch, export or train these files again"
        )
    return tuple(files)


def _listed(where: Path, name: str, stated: Any) -> Listed:
    size, digest = (stated.get("bytes"), stated.get("sha256")) if isinstance(stated, dict) else (None, None)
    if isinstance(size, bool) or not isinstance(size, int) or not isinstance(digest, str):
        raise InvalidArtifact(
            f"{where}: the entry of {name[:120]!r} must hold bytes and sha256; "
            "fetch or write the folder again"
        )
    return Listed(size, digest)


def _inside(directory: Path, name: str) -> Path:
    pure = PurePosixPath(name)
    if not name or "\0" in name or "\\" in name or pure.is_absolute() or ".." in pure.parts:
        raise InvalidArtifact(
            f"{directory / MANIFEST_NAME}: names the file {name[:120]!r}; only files of the folder can be "
            "listed"
        )
    return contained(directory.joinpath(*pure.parts[:-1]), pure.name, directory)


def _problem(path: Path, stated: Listed) -> str:
    """What is wrong with a file, as the end of a sentence; "" = nothing."""
    if not path.is_file():
        return "is missing"
    size = path.stat().st_size
    if size != stated.size_bytes:
        return f"has {size} bytes instead of {stated.size_bytes}"
    return "" if sha256_file(path) == stated.sha256 else "has other contents"
