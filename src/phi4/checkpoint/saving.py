"""Writing a model's directory in any of the three layouts, shard by shard.

Weights go out as they come in; at most one shard's arrays are held, and HF-native adapters, which
have a file each. Everything is made complete in a hidden folder of the directory first; then the files
are renamed into place, and what nobody reads any more is deleted last. What a crash in between leaves
is said at `save_checkpoint`. Files that are no part of a model's layout are left alone.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from phi4.checkpoint.adapters import ADAPTER_CONFIG, LoadedAdapter, save_adapter
from phi4.checkpoint.differences import compare_shapes
from phi4.checkpoint.inventory import expected_shapes, optional_shapes
from phi4.checkpoint.keymap import adapter_of, part_of, to_stored
from phi4.checkpoint.opening import ADAPTER_FILE
from phi4.checkpoint.safetensors_file import write_safetensors
from phi4.checkpoint.shards import INDEX_NAME, SINGLE_NAME
from phi4.configs import AdapterConfig, Layout, Phi4Config, write_config
from phi4.errors import InvalidRequest
from phi4.shapes import AnyArray

DEFAULT_SHARD_BYTES = 5_000_000_000
"""The released shards stay just under this."""
_CONFIG_NAME = "config.json"
_STAGE_NAME = ".writing"


def save_checkpoint(
    directory: str | Path,
    config: Phi4Config,
    tensors: Mapping[str, AnyArray] | Iterable[tuple[str, AnyArray]],
    layout: Layout | None = None,
    max_shard_bytes: int = DEFAULT_SHARD_BYTES,
) -> tuple[Path, ...]:
    """Write `config.json` and weights.

    A crash never leaves a mixture of an earlier save and this one: the folder holds the one, or the other,
    or no `config.json`, and is then refused by everybody who opens it until it is saved again. The last can
    happen only where one rename cannot change everything: `config.json` becomes another one, HF-native
    adapters come or go, or the new shards need the names of the old (as many of them, and more than one).

    Args:
        directory: Made when missing; weight files of an earlier save in it are replaced, in the HF-native
            layout also its adapters' folders; others are kept.
        config: The model.
        tensors: By our names; an iterator is consumed once, so weights can be made or read on the way.
            Parts the layout cannot hold (everything but text in "mini") are left out.
        layout: Layout to write; None = the config's own. HF-native adapters get folders of their own.
        max_shard_bytes: A shard is closed before it would grow past this; one tensor may exceed it alone.

    Returns:
        The files written.

    Raises:
        InvalidRequest: `max_shard_bytes` is not positive, or a folder in the way holds more than an adapter.
        CheckpointMismatch: The tensors are not those the config implies; nothing in the directory changes.
    """
    if max_shard_bytes < 1:
        raise InvalidRequest(f"max_shard_bytes = {max_shard_bytes}: must be at least 1")
    directory = Path(directory)
    layout = layout or config.layout
    target = config.with_layout(layout)
    adapters = target.adapters if layout == "hf" else ()
    stale = _stale_adapters(directory, adapters) if layout == "hf" else []
    stage = directory / _STAGE_NAME
    shutil.rmtree(stage, ignore_errors=True)  # of a save that was killed
    stage.mkdir(parents=True)
    writer = _ShardWriter(stage, layout, max_shard_bytes)
    try:
        for name, array in _kept(tensors, config, target):
            writer.add(name, array)
        writer.flush()
        compare_shapes(writer.shapes, expected_shapes(target), optional_shapes(target)).raise_for(
            str(directory)
        )
        writer.finish()
        for adapter in adapters:
            save_adapter(stage / _folder(adapter), LoadedAdapter(adapter, writer.adapters[adapter.name]))
        _write_json(stage / _CONFIG_NAME, write_config(config, layout))
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise
    return _publish(directory, stage, stale)


def _kept(
    tensors: Mapping[str, AnyArray] | Iterable[tuple[str, AnyArray]], config: Phi4Config, target: Phi4Config
) -> Iterator[tuple[str, AnyArray]]:
    """The tensors without those of parts that the config has and the layout does not."""
    dropped: set[str] = {part for part in config.modalities if part not in target.modalities}
    dropped |= {f"adapter:{a.name}" for a in config.adapters if a not in target.adapters}
    for name, array in tensors.items() if isinstance(tensors, Mapping) else tensors:
        if part_of(name) not in dropped:
            yield name, array


def _folder(adapter: AdapterConfig) -> str:
    return f"{adapter.name}-lora"


def _stale_adapters(directory: Path, adapters: Sequence[AdapterConfig]) -> list[Path]:
    """Folders a reader of the HF-native layout would take for adapters of a model that lacks them.

    Raises:
        InvalidRequest: One of them is not as `save_adapter` leaves it, so it may be somebody's own.
    """
    kept = {_folder(adapter) for adapter in adapters}
    found = sorted(path.parent for path in directory.glob(f"*-lora/{ADAPTER_CONFIG}"))
    stale = [folder for folder in found if folder.name not in kept]
    for folder in stale:
        others = sorted({path.name for path in folder.iterdir()} - {ADAPTER_CONFIG, ADAPTER_FILE})
        if others or folder.is_symlink():
            what = f"also holds {others[0]!r}" if others else "is a link"
            raise InvalidRequest(
                f"{folder}: would be read as an adapter of the model to be saved, which has none of this "
                f"name; it {what}, so it is not deleted: move it out of the directory"
            )
    return stale


def _publish(directory: Path, stage: Path, stale: Sequence[Path]) -> tuple[Path, ...]:
    """Rename what is staged into place, the config last; then delete what it leaves without a reader."""
    staged = sorted(path.relative_to(stage) for path in stage.rglob("*") if path.is_file())
    config, index = Path(_CONFIG_NAME), Path(INDEX_NAME)
    weights = [file for file in staged if file not in (config, index)]
    if not _changes_at_once(directory, stage, weights, stale):
        (directory / config).unlink(missing_ok=True)
    for file in [*weights, index] if index in staged else weights:
        (directory / file).parent.mkdir(exist_ok=True)
        os.replace(stage / file, directory / file)
    if index not in staged:
        (directory / index).unlink(missing_ok=True)  # while there is one, nobody reads the single file
    for folder in stale:
        for name in (ADAPTER_CONFIG, ADAPTER_FILE):
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()
    os.replace(stage / config, directory / config)
    written = [directory / file for file in staged]
    for former in {*directory.glob("model-*-of-*.safetensors"), directory / SINGLE_NAME} - set(written):
        former.unlink(missing_ok=True)
    shutil.rmtree(stage, ignore_errors=True)
    return tuple(written)


def _changes_at_once(directory: Path, stage: Path, weights: Sequence[Path], stale: Sequence[Path]) -> bool:
    """Whether one step (the index, or the only file) turns the old model into the new one."""
    former = directory / _CONFIG_NAME
    if stale or not former.is_file() or former.read_bytes() != (stage / _CONFIG_NAME).read_bytes():
        return False
    if list(weights) == [Path(SINGLE_NAME)]:
        return True
    return not any(len(file.parts) > 1 or (directory / file).exists() for file in weights)


class _ShardWriter:
    """Collects tensors until a shard is full and writes it; shards get their names at the end."""

    def __init__(self, directory: Path, layout: Layout, max_shard_bytes: int) -> None:
        self.directory, self.layout, self.max_shard_bytes = directory, layout, max_shard_bytes
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.adapters: dict[str, dict[str, AnyArray]] = {}
        self._pending: list[tuple[str, AnyArray]] = []
        self._written: list[tuple[Path, list[str]]] = []
        self._total_bytes = 0

    def add(self, name: str, array: AnyArray) -> None:
        assert name not in self.shapes, f"{name} is given twice"
        self.shapes[name] = tuple(array.shape)
        adapter = adapter_of(name)
        if self.layout == "hf" and adapter is not None:
            self.adapters.setdefault(adapter, {})[name] = array
            return
        pending_bytes = sum(held.nbytes for _, held in self._pending)
        if self._pending and pending_bytes + array.nbytes > self.max_shard_bytes:
            self.flush()
        # A name without a place in the layout is reported with all others once the end is reached.
        self._pending.append((to_stored(name, self.layout) or name, array))

    def flush(self) -> None:
        if not self._pending:
            return
        path = self.directory / f"{len(self._written) + 1:05d}.part"
        self._written.append((path, [stored for stored, _ in self._pending]))
        write_safetensors(path, self._pending)
        self._total_bytes += sum(array.nbytes for _, array in self._pending)
        self._pending = []

    def finish(self) -> None:
        """Name the files, now that their number is known, and list them in an index when there are more."""
        count = len(self._written)
        if count == 1:
            os.replace(self._written[0][0], self.directory / SINGLE_NAME)
            return
        weight_map: dict[str, str] = {}
        for number, (path, names) in enumerate(self._written, start=1):
            file = f"model-{number:05d}-of-{count:05d}.safetensors"
            os.replace(path, self.directory / file)
            weight_map |= dict.fromkeys(names, file)
        index = {
            "metadata": {"total_size": self._total_bytes},
            "weight_map": dict(sorted(weight_map.items())),
        }
        _write_json(self.directory / INDEX_NAME, index)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
