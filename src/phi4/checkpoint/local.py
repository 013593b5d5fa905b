"""Models on this machine: built in, in the cache of huggingface_hub, and in folders one names.

    for model in models_on_disk([Path("models")]): ...
    freed = remove_cached("microsoft/Phi-4-mini-instruct")

Only configs are read. A cache is shared with other programs, so what is no model of this family is neither
shown nor removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from phi4.checkpoint.hub import BUILTIN, HubId, locate_model
from phi4.configs import Phi4Config, read_config
from phi4.errors import InvalidArtifact, InvalidRequest, ModelNotFound, Phi4Error
from phi4.types import Modality

if TYPE_CHECKING:
    from huggingface_hub import CachedRepoInfo, HFCacheInfo

Place = Literal["built in", "cache", "folder"]


@dataclass(frozen=True)
class LocalModel:
    """A model that can be loaded without a connection, as far as its files were fetched.

    Attributes:
        name: What `phi4.load` takes.
        place: Where it is from.
        path: Its folder.
        num_bytes: Its files together; in the cache those of all revisions.
        modalities: What it takes.
    """

    name: str
    place: Place
    path: Path
    num_bytes: int
    modalities: tuple[Modality, ...]


def models_on_disk(folders: Sequence[Path] = ()) -> tuple[LocalModel, ...]:
    """Every model found, by name within its place.

    Args:
        folders: Folders to look into as well: each may be a model, or hold models.

    Raises:
        InvalidRequest: One is no folder.
    """
    found = [model for name in BUILTIN for model in _builtin(name)]
    found += sorted(_cached(), key=lambda model: model.name)
    for folder in folders:
        if not folder.is_dir():
            raise InvalidRequest(f"{folder}: no such folder; give one that is a model or holds models")
        found += _in_folder(folder)
    return tuple(found)


def remove_cached(name: str) -> int:
    """Remove a model from the cache, all its revisions or the one that is named.

    Args:
        name: A hub id, perhaps with `@` and a revision: a commit, or a branch or tag it was fetched by.

    Returns:
        Bytes that were freed.

    Raises:
        InvalidRequest: A model that is built in, or a folder: those are not ours to remove.
        ModelNotFound: The cache does not hold it.
    """
    found = locate_model(name)
    if not isinstance(found, HubId):
        what = "built in" if name in BUILTIN else "a folder of yours, which you can delete yourself"
        raise InvalidRequest(f"{name!r} is {what}; only models that were downloaded can be removed")
    cache = _scan()
    repos = [] if cache is None else [repo for repo in cache.repos if _is_model(repo, found.repo)]
    hashes = [
        revision.commit_hash
        for repo in repos
        for revision in repo.revisions
        if found.revision is None or revision.commit_hash == found.revision or found.revision in revision.refs
    ]
    if cache is None or not hashes:
        raise ModelNotFound(f"{name}: not in the cache; `phi4 list` shows what is there")
    if all(_config(revision.snapshot_path) is None for repo in repos for revision in repo.revisions):
        raise InvalidRequest(
            f"{name}: in the cache, but no model of this family; remove it with `hf cache rm`"
        )
    plan = cache.delete_revisions(*hashes)
    plan.execute()
    return int(plan.expected_freed_size)


def _builtin(name: str) -> Iterable[LocalModel]:
    try:
        path = locate_model(name)
    except ModelNotFound:
        return []
    assert isinstance(path, Path)
    return [LocalModel(name, "built in", path, _size(path), read_config(path).modalities)]


def _in_folder(folder: Path) -> list[LocalModel]:
    inside = sorted(path for path in folder.iterdir() if path.is_dir())
    found = []
    for path in [folder, *inside]:
        config = _config(path)
        if config is not None:
            found.append(LocalModel(str(path), "folder", path, _size(path), config.modalities))
    return found


def _cached() -> list[LocalModel]:
    cache = _scan()
    found = []
    for repo in () if cache is None else cache.repos:
        newest = sorted(repo.revisions, key=lambda revision: revision.last_modified, reverse=True)
        configs = [(_config(revision.snapshot_path), revision) for revision in newest]
        known = next(((config, revision) for config, revision in configs if config is not None), None)
        if known is not None and repo.repo_type == "model":
            config, revision = known
            path = Path(revision.snapshot_path)
            found.append(LocalModel(repo.repo_id, "cache", path, repo.size_on_disk, config.modalities))
    return found


def _scan() -> HFCacheInfo | None:
    """The cache; None = there is none yet."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        return scan_cache_dir()
    except CacheNotFound:
        return None
    except (OSError, ValueError) as error:
        raise InvalidArtifact(
            f"the cache of huggingface_hub cannot be read ({error}); see HF_HUB_CACHE"
        ) from None


def _is_model(repo: CachedRepoInfo, name: str) -> bool:
    return repo.repo_type == "model" and repo.repo_id == name


def _config(folder: Path) -> Phi4Config | None:
    """The config of a model of this family; None = it is none, or broken."""
    try:
        return read_config(folder) if (folder / "config.json").is_file() else None
    except Phi4Error:
        return None


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
