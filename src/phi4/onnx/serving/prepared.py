"""Graphs as this machine computes them, kept in the user's cache: which there are, and whether they hold.

    found = find_prepared(package.path)        # None = nothing was prepared
    found.graph(package.graph("decoder"))

Whenever ONNX Runtime opens a graph, it optimises it and arranges its weights for the kernels of this
processor, in memory of its own. A preparation is a copy of a package's graphs with that done, whose arranged
weights are mapped. It fits one package, one build of ONNX Runtime and one kind of processor. `preparing.py`
writes it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnxruntime

from phi4.checkpoint.manifest import read_manifest
from phi4.checkpoint.shards import contained
from phi4.configs.jsonfile import read_json_object
from phi4.errors import InvalidArtifact
from phi4.onnx.machine.processor import processor_identity
from phi4.onnx.package.checking import GENAI_NAME
from phi4.onnx.package.verified import VerifiedFiles, cache_folder

FOLDER, RECORD_NAME = "prepared", "prepared.json"
"""Folder of all preparations in the cache, and the file in each that says what it is of."""
_VERSION = 1
_KEY_DIGITS = 32


@dataclass(frozen=True)
class Basis:
    """What a preparation is made of and made for; it fits nothing else.

    Attributes:
        sources: Graphs of the package and their weights -> SHA-256, as its manifest states.
        runtime: ONNX Runtime, its build included.
        processor: See `processor_identity`.
    """

    sources: Mapping[str, str]
    runtime: str
    processor: str

    @property
    def key(self) -> str:
        """Name of its folder."""
        text = json.dumps([_VERSION, asdict(self)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:_KEY_DIGITS]


@dataclass(frozen=True)
class Preparation:
    """A preparation on disk.

    Attributes:
        folder: Where it stands.
        package: Folder of the package it was made of.
        basis: What it fits.
        files: Names of its graphs and their weights -> bytes.
    """

    folder: Path
    package: Path
    basis: Basis
    files: Mapping[str, int]

    @property
    def nbytes(self) -> int:
        """Disk it takes."""
        return sum(self.files.values())

    @property
    def graphs(self) -> tuple[str, ...]:
        """Names of its graphs, such as "decoder"."""
        return tuple(name.removesuffix(".onnx") for name in self.files if name.endswith(".onnx"))

    def graph(self, path: Path) -> Path | None:
        """What to open in place of a graph of the package; None = that one was not prepared."""
        return self.folder / path.name if path.name in self.files else None


def basis_of(package: Path) -> Basis:
    """What a preparation of a package would be made of, here and now.

    Raises:
        InvalidArtifact: The package's manifest is missing or broken.
    """
    listed = {name: file.sha256 for name, file in read_manifest(package).items()}
    sources = {
        name: digest
        for name, digest in listed.items()
        if name.endswith((".onnx", ".onnx.data")) and name != GENAI_NAME
    }
    runtime = f"{onnxruntime.__version__}, {onnxruntime.get_build_info()}"
    return Basis(sources, runtime, processor_identity())


def find_prepared(package: Path, *, compare: bool = True) -> Preparation | None:
    """The preparation that fits a package, this ONNX Runtime and this processor.

    Args:
        package: Its folder; its files have been compared with its manifest.
        compare: Also compare digests, unless that was done before. Without, sizes alone.

    Returns:
        None = there is none.

    Raises:
        InvalidArtifact: There is one, but it is broken, or of something else.
    """
    cache = cache_folder()
    if cache is None or not (cache / FOLDER).is_dir():
        return None
    basis = basis_of(package)
    folder = cache / FOLDER / basis.key
    if not folder.is_dir():
        return None
    found = read_preparation(folder)
    if found.basis != basis:
        raise _broken(folder, "was made of another package, or for another ONNX Runtime or processor")
    verified = VerifiedFiles(cache)
    for name, stated in read_manifest(folder).items():
        path = contained(folder, name)
        if not path.is_file() or path.stat().st_size != stated.size_bytes:
            raise _broken(path, f"is not there with the {stated.size_bytes} bytes it was written with")
        if compare and not verified.has_digest(path, stated.sha256):
            raise _broken(path, "changed since it was written")
    return found


def read_preparation(folder: Path) -> Preparation:
    """What a folder of the cache says it is; its files are not looked at.

    Raises:
        InvalidArtifact: It is no preparation, or one of another version.
    """
    raw = read_json_object(folder / RECORD_NAME)
    basis: Any = raw.get("basis")
    if raw.get("version") != _VERSION or not isinstance(raw.get("package"), str):
        raise _broken(folder / RECORD_NAME, "is not the record of a preparation")
    if not isinstance(basis, dict) or set(basis) != set(Basis.__dataclass_fields__):
        raise _broken(folder / RECORD_NAME, "does not say what was prepared")
    files = {name: file.size_bytes for name, file in read_manifest(folder).items() if name != RECORD_NAME}
    return Preparation(folder, Path(raw["package"]), Basis(**basis), files)


def write_record(folder: Path, package: Path, basis: Basis) -> None:
    """Write what `read_preparation` reads, but for the manifest."""
    raw = {"version": _VERSION, "package": str(package.resolve()), "basis": asdict(basis)}
    (folder / RECORD_NAME).write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")


def _broken(path: Path, what: str) -> InvalidArtifact:
    return InvalidArtifact(f"{path}: {what}; prepare the package again (phi4 prepare)")
