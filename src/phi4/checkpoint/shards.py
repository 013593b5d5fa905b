"""Which safetensors files make up a model's directory, and what the index says stands in each.

File names come from the directory's own index, which may be hostile: a name must be a plain file name,
and the file must really lie in the directory. The hub's cache is the one exception to the second rule:
its snapshots are links into the `blobs` folder of the same repository.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from phi4.checkpoint.safetensors_file import PICKLE_SUFFIXES, refuse_pickle
from phi4.configs.jsonfile import read_json_object
from phi4.errors import InvalidArtifact

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"


@dataclass(frozen=True)
class ShardPlan:
    """Files of a model and, when there is an index, the stored names it puts into each.

    Attributes:
        files: File name -> stored tensor names; empty tuples when there is no index.
    """

    files: dict[str, tuple[str, ...]]


def contained(directory: Path, name: str, root: Path | None = None) -> Path:
    """Path of a file or folder of the directory, checked to lie inside it.

    Args:
        directory: Where the name stands.
        name: A plain name, possibly from an untrusted file.
        root: The model's directory when `directory` is a folder in it.

    Raises:
        InvalidArtifact: The name is not a plain file name, or a link leads out of the directory.
    """
    if not name or name in (".", "..") or any(char in name for char in "/\\\0") or not name.isprintable():
        raise InvalidArtifact(
            f"{directory}: names the file {name[:120]!r}; only files of the same folder are read"
        )
    path = directory / name
    home, real = (root or directory).resolve(), path.resolve()
    allowed = [home]
    if home.parent.name == "snapshots":
        allowed.append(home.parent.parent / "blobs")
    if not any(real.is_relative_to(folder) for folder in allowed):
        raise InvalidArtifact(
            f"{path}: a link that leads out of the model's folder, to {real}; put the file itself there"
        )
    return path


def plan_shards(directory: Path) -> ShardPlan:
    """Find the weight files of a model.

    Raises:
        InvalidArtifact: No weights, pickles only, shards without index, or an index that does not hold.
    """
    if (directory / INDEX_NAME).is_file():
        return ShardPlan(_read_index(directory))
    if (directory / SINGLE_NAME).exists():
        contained(directory, SINGLE_NAME)
        return ShardPlan({SINGLE_NAME: ()})
    if not directory.is_dir():
        raise InvalidArtifact(f"{directory}: not a directory; give the folder of a model")
    for path in sorted(directory.iterdir()):
        if path.suffix.lower() in PICKLE_SUFFIXES:
            refuse_pickle(path)
    shards = sorted(path.name for path in directory.glob("model-*.safetensors"))
    if shards:
        raise InvalidArtifact(f"{directory}: has {shards[0]} but no {INDEX_NAME}; fetch that file too")
    raise InvalidArtifact(f"{directory}: no {SINGLE_NAME} and no {INDEX_NAME}; this folder holds no weights")


def _read_index(directory: Path) -> dict[str, tuple[str, ...]]:
    where = directory / INDEX_NAME
    weight_map = read_json_object(where).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InvalidArtifact(f"{where}: weight_map must be an object of tensor names and file names")
    files: dict[str, list[str]] = {}
    for name, file in weight_map.items():
        if not isinstance(file, str):
            raise InvalidArtifact(f"{where}: weight_map[{name!r}] = {file!r}: must be a file name")
        files.setdefault(file, []).append(name)
    for file in files:
        if Path(file).suffix.lower() in PICKLE_SUFFIXES:
            refuse_pickle(Path(file))
        if not file.endswith(".safetensors"):
            raise InvalidArtifact(f"{where}: names the file {file[:120]!r}; only .safetensors files are read")
        contained(directory, file)
    return {file: tuple(names) for file, names in sorted(files.items())}
