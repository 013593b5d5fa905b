"""Digests of large files, compared once: a file that did not change since is not read again.

    VerifiedFiles(cache_folder()).has_digest(path, sha256)

What was compared stands in `verified.json` of the user's cache: path, size, time of change and digest. Where
that file cannot be read or written, digests are compared every time, which costs time and nothing else.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from phi4.checkpoint.manifest import sha256_file
from phi4.configs.jsonfile import read_json_object
from phi4.errors import InvalidArtifact

VARIABLE = "PHI4_CACHE"
FILE_NAME = "verified.json"

_log = logging.getLogger(__name__)


def cache_folder(environment: Mapping[str, str] | None = None) -> Path | None:
    """Where this user's programs keep what can be made again: `$PHI4_CACHE`, else `phi4` in the usual place.

    Args:
        environment: Where variables stand; None = this process's own.

    Returns:
        The folder, which need not exist; None = this user has no home.

    Source: XDG Base Directory Specification 0.8: a relative `XDG_CACHE_HOME` is passed over.
    """
    variables = os.environ if environment is None else environment
    own, shared = variables.get(VARIABLE, "").strip(), variables.get("XDG_CACHE_HOME", "").strip()
    try:
        if own:
            return Path(own).expanduser().absolute()
        return (Path(shared) if os.path.isabs(shared) else Path.home() / ".cache") / "phi4"
    except RuntimeError:
        return None


class VerifiedFiles:
    """What was compared before.

    Args:
        folder: Where `verified.json` stands or will stand; None = nowhere.
    """

    def __init__(self, folder: Path | None) -> None:
        self._where = None if folder is None else folder / FILE_NAME

    def has_digest(self, path: Path, sha256: str) -> bool:
        """Whether a file has a digest; it is read unless it is as it was when that was found true."""
        name, stat = str(path.resolve()), path.stat()
        state = [stat.st_size, stat.st_mtime_ns, sha256]  # from before the file is read
        if self._read().get(name) == state:
            return True
        _log.info("comparing %s (%.1f GB) with its manifest, once", path, stat.st_size / 1e9)
        if sha256_file(path) != sha256:
            return False
        self._remember(name, state)
        return True

    def remember(self, path: Path, sha256: str) -> None:
        """Take a digest that was just computed of a file as found true."""
        stat = path.stat()
        self._remember(str(path.resolve()), [stat.st_size, stat.st_mtime_ns, sha256])

    def _read(self) -> dict[str, Any]:
        if self._where is None:
            return {}
        try:
            files = read_json_object(self._where).get("files")
        except InvalidArtifact:  # not there, or broken
            return {}
        return files if isinstance(files, dict) else {}

    def _remember(self, name: str, state: list[Any]) -> None:
        """Write the file anew, without those that are gone; of two writers at once the last one wins."""
        if self._where is None:
            return
        files = {other: known for other, known in self._read().items() if Path(other).is_file()}
        part = self._where.with_name(f"{FILE_NAME}.{os.getpid()}.{threading.get_ident()}.part")
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps({"version": 1, "files": files | {name: state}}), encoding="utf-8")
            part.replace(self._where)
        except OSError as problem:
            _log.info("%s: cannot be written (%s), so files are compared again", self._where, problem)
            with suppress(OSError):
                part.unlink()
