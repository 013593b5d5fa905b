"""Checksum manifests: which files belong to a folder, with their sizes and SHA-256.

write_manifest(folder)        # writes folder/manifest.json
verify_manifest(folder)       # raises when a file is missing, shorter or changed
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from phi4.configs.jsonfile import read_json_object
from phi4.errors import InvalidArtifact

MANIFEST_NAME = "manifest.json"
_SHOWN = 8


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


def verify_manifest(directory: str | Path) -> tuple[str, ...]:
    """Check every file a manifest lists.

    Returns:
        The names that were checked.

    Raises:
        InvalidArtifact: The manifest is missing or broken, names a file outside the folder, or files are
            missing or changed; all of them are named.
    """
    directory = Path(directory)
    where = directory / MANIFEST_NAME
    raw = read_json_object(where)
    files = raw.get("files")
    if raw.get("version") != 1 or not isinstance(files, dict):
        raise InvalidArtifact(f"{where}: not a manifest of version 1")
    problems = []
    for name, stated in files.items():
        problem = _problem(directory, where, name, stated)
        if problem:
            problems.append(f"{name} {problem}")
    if problems:
        more = f", and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise InvalidArtifact(
            f"{directory}: does not agree with its manifest: {', '.join(problems[:_SHOWN])}{more}"
        )
    return tuple(files)


def _problem(directory: Path, where: Path, name: str, stated: Any) -> str:
    pure = PurePosixPath(name)
    if not name or "\0" in name or "\\" in name or pure.is_absolute() or ".." in pure.parts:
        raise InvalidArtifact(
            f"{where}: names the file {name[:120]!r}; only files of the folder can be listed"
        )
    if not isinstance(stated, dict) or not isinstance(stated.get("sha256"), str):
        raise InvalidArtifact(f"{where}: the entry of {name} must hold bytes and sha256")
    path = directory / name
    if not path.is_file():
        return "is missing"
    size = path.stat().st_size
    if size != stated.get("bytes"):
        return f"has {size} bytes instead of {stated.get('bytes')}"
    return "" if sha256_file(path) == stated["sha256"] else "has other contents"
