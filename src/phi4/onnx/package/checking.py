"""Whether a package's files are those its manifest lists, and whether its graphs read no others.

    check_files(folder, ("decoder", "head"), {"head.onnx.data": 270_336})

Every file that is going to be used is compared with its digest, so a damaged one gives an error and not an
answer. Digests cannot prove where a package comes from: whoever writes a hostile graph writes its digest
too. So the weights a graph takes are judged as well.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from phi4.checkpoint.manifest import MANIFEST_NAME, Listed, read_manifest, sha256_file
from phi4.checkpoint.shards import contained
from phi4.errors import InvalidArtifact
from phi4.onnx.package.description import DESCRIPTION_NAME
from phi4.onnx.package.external_data import external_files
from phi4.onnx.package.parts import data_file
from phi4.onnx.package.verified import VerifiedFiles, cache_folder

MAX_GRAPH_BYTES = 256 << 20
"""A graph holds no weights; that of the released model has a few MB."""
LARGE_BYTES = 64 << 20
"""Reading so much takes about as long as starting Python; larger files are compared once (`verified.py`)."""
CONFIG_NAME, TOKENIZER_NAME = "config.json", "tokenizer.json"
GENAI_NAME, GENAI_SETTINGS = "genai.onnx", ("genai_config.json", "tokenizer_config.json")
"""What only onnxruntime-genai opens, and its users edit. Even so the graph may lead to no other files."""
_GENAI_DATA = ("decoder.onnx.data", "head.onnx.data")


def check_files(
    folder: Path, graphs: Sequence[str], ends: Mapping[str, int], compare_large: bool = True
) -> None:
    """Refuse a package whose files are not as they should be.

    Args:
        folder: The package.
        graphs: Graphs that are going to be used; those of other parts need not be there.
        ends: Data file -> bytes it must have at least, besides what the graphs read.
        compare_large: Also compare digests of files above `LARGE_BYTES`, where that has not been done before.

    Raises:
        InvalidArtifact: A file is missing, not listed, of another size or content, outside of the folder,
            shorter than what is read of it; or a graph takes weights from another file than its own.
    """
    files = _Files(folder, compare_large)
    there = [TOKENIZER_NAME] if (folder / TOKENIZER_NAME).exists() else []
    for name in (CONFIG_NAME, DESCRIPTION_NAME, *there):
        files.checked(name)
    needed = dict(ends)
    for name in graphs:
        path = files.checked(f"{name}.onnx")
        data = data_file(name)
        needed[data] = max(_weights(path, (data,)).get(data, 0), needed.get(data, 0))
    for file, end in needed.items():
        path = files.checked(file)
        if path.stat().st_size < end:
            raise InvalidArtifact(
                f"{path}: {path.stat().st_size} bytes, but it is read up to byte {end}; "
                "fetch or export the file again"
            )
    if (folder / GENAI_NAME).is_file():
        _weights(contained(folder, GENAI_NAME), _GENAI_DATA)


class _Files:
    """The files of a folder beside what its manifest states of them."""

    def __init__(self, folder: Path, compare_large: bool) -> None:
        self._folder = folder
        self._listed = read_manifest(folder)
        self._compare_large = compare_large
        self._verified = VerifiedFiles(cache_folder())

    def checked(self, name: str) -> Path:
        """Path of a file that is as the manifest states."""
        path, stated = contained(self._folder, name), self._listed.get(name)
        if stated is None:
            raise InvalidArtifact(
                f"{self._folder / MANIFEST_NAME}: does not list {name!r}; export the model again"
            )
        if not path.is_file():
            raise InvalidArtifact(f"{path}: missing; fetch it, or export the model again")
        size = path.stat().st_size
        if size != stated.size_bytes:
            raise InvalidArtifact(
                f"{path}: has {size} bytes, the manifest states {stated.size_bytes}; fetch or export it again"
            )
        if not self._same(path, stated):
            raise InvalidArtifact(
                f"{path}: its content is not what the manifest states (SHA-256), so a byte or more changed; "
                "fetch or export it again"
            )
        return path

    def _same(self, path: Path, stated: Listed) -> bool:
        if stated.size_bytes <= LARGE_BYTES:
            return sha256_file(path) == stated.sha256
        return not self._compare_large or self._verified.has_digest(path, stated.sha256)


def _weights(path: Path, allowed: Collection[str]) -> dict[str, int]:
    """Files a graph takes weights from, each with the first byte it does not read.

    Raises:
        InvalidArtifact: No graph, too large for one, or it takes weights from elsewhere.
    """
    if path.stat().st_size > MAX_GRAPH_BYTES:
        raise InvalidArtifact(
            f"{path}: {path.stat().st_size} bytes, a graph has at most {MAX_GRAPH_BYTES}; export it again"
        )
    try:
        files = external_files(path.read_bytes())
    except ValueError as problem:
        raise InvalidArtifact(f"{path}: not an ONNX graph ({problem}); fetch or export it again") from None
    for file in files:
        if file not in allowed:
            raise InvalidArtifact(
                f"{path}: takes weights from {file[:120]!r}, but may from {' and '.join(allowed)} only; "
                "do not use files of this origin"
            )
    return files
