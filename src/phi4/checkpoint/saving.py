"""Writing a model's directory in any of the three layouts, shard by shard.

Weights go out as they come in; at most one shard's arrays are held, and HF-native adapters, which
have a file each. Every file is written under another name first and renamed when all are complete,
the index and `config.json` last.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from phi4.checkpoint.adapters import LoadedAdapter, save_adapter
from phi4.checkpoint.differences import compare_shapes
from phi4.checkpoint.inventory import expected_shapes, optional_shapes
from phi4.checkpoint.keymap import adapter_of, part_of, to_stored
from phi4.checkpoint.safetensors_file import write_safetensors
from phi4.checkpoint.shards import INDEX_NAME, SINGLE_NAME
from phi4.configs import Layout, Phi4Config, write_config
from phi4.errors import InvalidRequest
from phi4.shapes import AnyArray

DEFAULT_SHARD_BYTES = 5_000_000_000
"""The released shards stay just under this."""


def save_checkpoint(
    directory: str | Path,
    config: Phi4Config,
    tensors: Mapping[str, AnyArray] | Iterable[tuple[str, AnyArray]],
    layout: Layout | None = None,
    max_shard_bytes: int = DEFAULT_SHARD_BYTES,
) -> tuple[Path, ...]:
    """Write `config.json` and weights.

    Args:
        directory: Made when missing; weight files of an earlier save in it are replaced, others are kept.
        config: The model.
        tensors: By our names; an iterator is consumed once, so weights can be made or read on the way.
            Parts the layout cannot hold (everything but text in "mini") are left out.
        layout: Layout to write; None = the config's own. HF-native adapters get folders of their own.
        max_shard_bytes: A shard is closed before it would grow past this; one tensor may exceed it alone.

    Returns:
        The files written.

    Raises:
        InvalidRequest: `max_shard_bytes` is not positive.
        CheckpointMismatch: The tensors are not those the config implies; nothing in the directory changes.
    """
    if max_shard_bytes < 1:
        raise InvalidRequest(f"max_shard_bytes = {max_shard_bytes}: must be at least 1")
    directory = Path(directory)
    layout = layout or config.layout
    target = config.with_layout(layout)
    directory.mkdir(parents=True, exist_ok=True)
    writer = _ShardWriter(directory, layout, max_shard_bytes)
    try:
        for name, array in _kept(tensors, config, target):
            writer.add(name, array)
        writer.flush()
        compare_shapes(writer.shapes, expected_shapes(target), optional_shapes(target)).raise_for(
            str(directory)
        )
    except BaseException:
        writer.discard()
        raise
    files = writer.publish()
    for adapter in target.adapters if layout == "hf" else ():
        folder = directory / f"{adapter.name}-lora"
        save_adapter(folder, LoadedAdapter(adapter, writer.adapters[adapter.name]))
        files += sorted(folder.iterdir())
    files.append(_write_json(directory / "config.json", write_config(config, layout)))
    return tuple(files)


def _kept(
    tensors: Mapping[str, AnyArray] | Iterable[tuple[str, AnyArray]], config: Phi4Config, target: Phi4Config
) -> Iterator[tuple[str, AnyArray]]:
    """The tensors without those of parts that the config has and the layout does not."""
    dropped: set[str] = {part for part in config.modalities if part not in target.modalities}
    dropped |= {f"adapter:{a.name}" for a in config.adapters if a not in target.adapters}
    for name, array in tensors.items() if isinstance(tensors, Mapping) else tensors:
        if part_of(name) not in dropped:
            yield name, array


class _ShardWriter:
    """Collects tensors until a shard is full, writes it under a passing name, renames all at the end."""

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
        path = self.directory / f".writing-{len(self._written) + 1:05d}.part"
        self._written.append((path, [stored for stored, _ in self._pending]))
        write_safetensors(path, self._pending)
        self._total_bytes += sum(array.nbytes for _, array in self._pending)
        self._pending = []

    def discard(self) -> None:
        for path, _ in self._written:
            path.unlink(missing_ok=True)

    def publish(self) -> list[Path]:
        """Replace what an earlier save left and give the new files their names."""
        for stale in (*self.directory.glob("model-*-of-*.safetensors"), self.directory / SINGLE_NAME):
            stale.unlink(missing_ok=True)
        (self.directory / INDEX_NAME).unlink(missing_ok=True)
        count = len(self._written)
        if count == 1:
            return [self._written[0][0].replace(self.directory / SINGLE_NAME)]
        files: list[Path] = []
        weight_map: dict[str, str] = {}
        for number, (path, names) in enumerate(self._written, start=1):
            file = f"model-{number:05d}-of-{count:05d}.safetensors"
            files.append(path.replace(self.directory / file))
            weight_map |= dict.fromkeys(names, file)
        index = {
            "metadata": {"total_size": self._total_bytes},
            "weight_map": dict(sorted(weight_map.items())),
        }
        return [*files, _write_json(self.directory / INDEX_NAME, index)]


def _write_json(path: Path, value: Mapping[str, Any]) -> Path:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return part.replace(path)
