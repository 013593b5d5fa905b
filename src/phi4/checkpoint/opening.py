"""A model's directory as one mapping from our tensor names to places on disk.

    checkpoint = open_checkpoint(folder, modalities=("text",))
    array = checkpoint.read("decoder.norm.weight")

Opening reads headers only. Files that hold nothing of the modalities asked for need not be there,
which is how a text model runs from part of a download.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from phi4.checkpoint.differences import Differences, compare_shapes
from phi4.checkpoint.infer import infer_sizes
from phi4.checkpoint.inventory import adapters_for, check_parts, expected_shapes, optional_shapes
from phi4.checkpoint.keymap import adapter_to_canonical, part_of, to_canonical
from phi4.checkpoint.safetensors_file import TensorEntry, read_header, read_tensor, refuse_pickle
from phi4.checkpoint.shards import ShardPlan, contained, plan_shards
from phi4.configs import Layout, Phi4Config, read_config
from phi4.errors import CheckpointMismatch, InvalidArtifact
from phi4.shapes import AnyArray
from phi4.types import Modality

ADAPTER_FILE = "adapter_model.safetensors"
Header = dict[str, TensorEntry]
"""Entries of one file by stored name."""


@dataclass(frozen=True)
class Checkpoint:
    """Weights on disk, by our names.

    Attributes:
        path: The model's directory.
        config: Its config, sizes the file is silent about filled in from the tensors.
        entries: Our name -> place on disk, for every file that is there.
        unknown: Stored names no table of the layout knows.
        absent_files: Files the index names that are not there.
    """

    path: Path
    config: Phi4Config
    entries: dict[str, TensorEntry]
    unknown: tuple[str, ...] = ()
    absent_files: tuple[str, ...] = ()

    @property
    def layout(self) -> Layout:
        """Released layout the files follow."""
        return self.config.layout

    def read(self, name: str) -> AnyArray:
        """One tensor as an array of its own (bfloat16 through ml_dtypes).

        Raises:
            CheckpointMismatch: There is no such tensor.
            InvalidArtifact: The file changed since it was opened.
        """
        entry = self.entries.get(name)
        if entry is None:
            raise CheckpointMismatch(f"{self.path}: no tensor {name} is stored here")
        return read_tensor(entry)

    def names(
        self, parts: Sequence[Modality] | None = None, adapters: Sequence[str] | None = None
    ) -> tuple[str, ...]:
        """Names of the tensors a model with these parts and adapters computes with."""
        return tuple(expected_shapes(self.config, parts, adapters))

    def tensors(
        self,
        parts: Sequence[Modality] | None = None,
        adapters: Sequence[str] | None = None,
        *,
        unused: bool = False,
    ) -> Iterator[tuple[str, AnyArray]]:
        """Read tensors one after the other, file by file.

        Args:
            parts: Modalities; None = all.
            adapters: Adapters; None = those the modalities need.
            unused: Also the stored ones nothing computes with, for a conversion that loses nothing.
        """
        wanted = set(self.names(parts, adapters))
        if unused:
            wanted |= set(optional_shapes(self.config, parts))
        for name in self.entries:
            if name in wanted:
                yield name, self.read(name)

    def nbytes(self, parts: Sequence[Modality] | None = None, adapters: Sequence[str] | None = None) -> int:
        """Bytes of the tensors a model with these parts and adapters loads."""
        found = (self.entries.get(name) for name in self.names(parts, adapters))
        return sum(entry.nbytes for entry in found if entry is not None)

    def differences(
        self, parts: Sequence[Modality] | None = None, adapters: Sequence[str] | None = None
    ) -> Differences:
        """What is missing, unexpected and misshapen for these parts and adapters."""
        parts = check_parts(self.config, parts)
        expected = expected_shapes(self.config, parts, adapters)
        known_adapters = {f"adapter:{adapter.name}" for adapter in self.config.adapters}
        left_out = (set(self.config.modalities) - set(parts)) | known_adapters
        found = {
            name: entry.shape
            for name, entry in self.entries.items()
            if name in expected or part_of(name) not in left_out
        }
        # A matrix of a known adapter that its config does not name is a stranger, whatever was asked for.
        every = expected_shapes(self.config, ("text",), [adapter.name for adapter in self.config.adapters])
        strays = [name for name in self.entries if part_of(name) in known_adapters and name not in every]
        return compare_shapes(found, expected, optional_shapes(self.config, parts), (*strays, *self.unknown))

    def check(self, parts: Sequence[Modality] | None = None, adapters: Sequence[str] | None = None) -> None:
        """Refuse a checkpoint whose tensors do not fit its config.

        Raises:
            CheckpointMismatch: Missing, unexpected and misshapen tensors, all in one message.
        """
        self.differences(parts, adapters).raise_for(str(self.path))


def open_checkpoint(
    path: str | Path, modalities: Sequence[Modality] | None = None, *, check: bool = True
) -> Checkpoint:
    """Open a model's directory in any of the three layouts.

    Args:
        path: The directory; files are read, never written.
        modalities: What is going to be loaded; None = everything. Files without any of it may be absent.
        check: Compare the tensors with the config; False only reports (see `Checkpoint.differences`).

    Raises:
        InvalidConfig: The config cannot work.
        InvalidArtifact: A file is missing, truncated, a pickle, or otherwise not what it claims.
        CheckpointMismatch: Tensors do not fit the config.
    """
    directory = Path(path)
    if directory.is_file():
        refuse_pickle(directory)
        raise InvalidArtifact(f"{directory}: a file; give the directory of the model, with its config.json")
    config = read_config(directory)
    parts = check_parts(config, modalities)
    checkpoint = _scan(directory, config, plan_shards(directory), local_header)
    _require_files(checkpoint, parts)
    if check:
        checkpoint.check(parts)
    return checkpoint


def local_header(path: Path) -> Header | None:
    """Header of a file, None when it is not there."""
    return read_header(path) if path.exists() else None


def scan_checkpoint(
    path: Path, plan: ShardPlan | None = None, header: Callable[[Path], Header | None] = local_header
) -> Checkpoint:
    """Open a directory without asking for completeness: for reports on what is there.

    Args:
        path: The directory, with `config.json`.
        plan: Its weight files; None = as `plan_shards` finds them.
        header: Where headers come from, when the weights themselves are elsewhere.
    """
    return _scan(path, read_config(path), plan or plan_shards(path), header)


def _scan(
    directory: Path, config: Phi4Config, plan: ShardPlan, header_of: Callable[[Path], Header | None]
) -> Checkpoint:
    entries: dict[str, TensorEntry] = {}
    unknown: list[str] = []
    absent: list[str] = []
    for file, listed in plan.files.items():
        header = header_of(directory / file)
        if header is None:
            absent.append(file)
            continue
        for name in listed:
            if name not in header:
                raise InvalidArtifact(
                    f"{directory / file}: the index puts tensor {name} here, but it is not; fetch both again"
                )
        _add(entries, unknown, header, {name: to_canonical(name, config.layout) for name in header})
    for adapter in config.adapters if config.layout == "hf" else ():
        folder = contained(directory, f"{adapter.name}-lora")
        header = header_of(contained(folder, ADAPTER_FILE, root=directory))
        if header is None:
            absent.append(f"{folder.name}/{ADAPTER_FILE}")
            continue
        _add(entries, unknown, header, {name: adapter_to_canonical(name, adapter.name) for name in header})
    checkpoint = Checkpoint(directory, config, entries, tuple(unknown), tuple(absent))
    return replace(checkpoint, config=infer_sizes(config, entries))


def _add(
    entries: dict[str, TensorEntry],
    unknown: list[str],
    header: Header,
    names: dict[str, str | None],
) -> None:
    for stored, entry in header.items():
        name = names[stored]
        if name is None:
            unknown.append(stored)
        elif name in entries:
            raise InvalidArtifact(
                f"{entry.file}: tensor {stored} is stored twice, also in {entries[name].file}"
            )
        else:
            entries[name] = entry


def _require_files(checkpoint: Checkpoint, parts: tuple[Modality, ...]) -> None:
    """Refuse when a file is absent that the index says holds something of the parts asked for."""
    if not checkpoint.absent_files:
        return
    wanted = {*parts, *(f"adapter:{name}" for name in adapters_for(checkpoint.config, parts))}
    plan = plan_shards(checkpoint.path)
    for file in checkpoint.absent_files:
        folder, is_adapter, _ = file.partition("-lora/")
        if is_adapter and f"adapter:{folder}" in wanted:
            raise InvalidArtifact(
                f"{checkpoint.path / file}: the weights of this adapter are missing; fetch them"
            )
        for stored in plan.files.get(file, ()):
            name = to_canonical(stored, checkpoint.layout)
            if name is not None and part_of(name) in wanted:
                raise InvalidArtifact(
                    f"{checkpoint.path / file}: this shard is missing, it holds {stored}; fetch it"
                )


def required_files(
    config: Phi4Config, files: dict[str, tuple[str, ...]], parts: Sequence[Modality]
) -> list[str]:
    """Shards of an index that hold anything of the modalities asked for.

    Args:
        config: The model.
        files: File name -> stored tensor names.
        parts: Modalities asked for.
    """
    wanted = {*check_parts(config, parts), *(f"adapter:{name}" for name in adapters_for(config, parts))}
    return [
        file
        for file, names in files.items()
        if any(part_of(name) in wanted for stored in names if (name := to_canonical(stored, config.layout)))
    ]
