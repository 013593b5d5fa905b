"""What a checkpoint is, told from its headers alone: the content of `phi4 show`.

report = describe(folder)
report.as_dict()               # for --json
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phi4.checkpoint.differences import Differences
from phi4.checkpoint.inventory import expected_shapes, optional_shapes
from phi4.checkpoint.keymap import part_of
from phi4.checkpoint.opening import Checkpoint, scan_checkpoint
from phi4.checkpoint.safetensors_file import refuse_pickle
from phi4.configs import Layout, Phi4Config
from phi4.errors import InvalidArtifact
from phi4.types import Modality

EXAMPLE_TOKENS = 4096
"""Length for which the report states memory: the longest the short LongRoPE factors serve."""

SMALL_MODEL_BYTES = 1 << 30
"""Weights that take less on disk are computed in fp32: nothing is gained by rounding a model this small."""

_ITEM_BYTES = {"float32": 4, "bfloat16": 2}


def loaded_dtype(stored_bytes: int) -> str:
    """Type a model is computed in when nobody asks for one: "float32" for a small model, else "bfloat16"."""
    return "float32" if stored_bytes < SMALL_MODEL_BYTES else "bfloat16"


@dataclass(frozen=True)
class AdapterReport:
    """One adapter: rank, alpha and its size."""

    name: str
    r: int
    lora_alpha: float
    scale: float
    parameters: int
    nbytes: int


@dataclass(frozen=True)
class CheckpointReport:
    """What stands in a model's directory.

    Attributes:
        path: The directory, or the hub id with its commit.
        config: Its config, sizes read off the tensors included.
        parameters: Part ("text", "vision", "speech", "adapter:<name>") -> values in it, unused ones apart.
        nbytes: The same in bytes on disk.
        dtypes: Type -> number of tensors stored in it.
        adapters: The adapters.
        unused_parameters: Stored values nothing computes with.
        kv_bytes_per_token: Key/value cache one position takes, in the type the weights are loaded in.
        differences: Missing, unexpected and misshapen tensors.
        absent_files: Files the index names that are not there.
    """

    path: Path
    config: Phi4Config
    parameters: dict[str, int]
    nbytes: dict[str, int]
    dtypes: dict[str, int]
    adapters: tuple[AdapterReport, ...]
    unused_parameters: int
    kv_bytes_per_token: int
    differences: Differences
    absent_files: tuple[str, ...]

    @property
    def layout(self) -> Layout:
        """Released layout the files follow."""
        return self.config.layout

    @property
    def total_parameters(self) -> int:
        """All values, adapters and unused ones included."""
        return sum(self.parameters.values()) + self.unused_parameters

    @property
    def loaded_dtype(self) -> str:
        """Type the weights are loaded in, unless another is asked for; see the function of this name."""
        return loaded_dtype(sum(self.nbytes.values()))

    def weight_bytes(self, modalities: Sequence[Modality]) -> int:
        """Bytes on disk of the weights a set of modalities loads, its adapters included."""
        return sum(self.nbytes[part] for part in self._loaded(modalities))

    def loaded_bytes(self, modalities: Sequence[Modality]) -> int:
        """Bytes of the same weights in memory, in `loaded_dtype`."""
        item_bytes = _ITEM_BYTES[self.loaded_dtype]
        return item_bytes * sum(self.parameters[part] for part in self._loaded(modalities))

    def memory_bytes(self, modalities: Sequence[Modality], num_tokens: int = EXAMPLE_TOKENS) -> int:
        """Memory for loaded weights and the cache of one sequence; activations come on top."""
        return self.loaded_bytes(modalities) + num_tokens * self.kv_bytes_per_token

    def _loaded(self, modalities: Sequence[Modality]) -> list[str]:
        """Parts and adapters a set of modalities loads."""
        own = {"vision", "speech"} - set(modalities)
        left_out = own | {f"adapter:{name}" for name in own}
        return [part for part in self.nbytes if part not in left_out]

    def modality_sets(self) -> tuple[tuple[Modality, ...], ...]:
        """Sets worth loading: text, text with each encoder, everything."""
        encoders = self.config.modalities[1:]
        sets: list[tuple[Modality, ...]] = [("text",), *(("text", encoder) for encoder in encoders)]
        if len(encoders) > 1:
            sets.append(self.config.modalities)
        return tuple(sets)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        decoder = self.config.decoder
        return {
            "path": str(self.path),
            "layout": self.layout,
            "modalities": list(self.config.modalities),
            "context_tokens": decoder.max_position_embeddings,
            "original_context_tokens": decoder.original_max_position_embeddings,
            "dtypes": self.dtypes,
            "parameters": {
                **self.parameters,
                "unused": self.unused_parameters,
                "total": self.total_parameters,
            },
            "weight_bytes": self.nbytes,
            "loaded_dtype": self.loaded_dtype,
            "kv_bytes_per_token": self.kv_bytes_per_token,
            "memory_bytes": {"+".join(parts): self.memory_bytes(parts) for parts in self.modality_sets()},
            "memory_tokens": EXAMPLE_TOKENS,
            "adapters": [vars(adapter) for adapter in self.adapters],
            "missing": list(self.differences.missing),
            "unexpected": list(self.differences.unexpected),
            "misshapen": [str(item) for item in self.differences.misshapen],
            "absent_files": list(self.absent_files),
        }


def describe(path: str | Path) -> CheckpointReport:
    """Report on a model's directory; reads `config.json` and the headers of the weight files.

    Tensors that do not fit and files that are absent are part of the report, not errors.

    Raises:
        InvalidConfig: The config cannot work.
        InvalidArtifact: No weights, or a file that is not what it claims.
    """
    directory = Path(path)
    if directory.is_file():
        refuse_pickle(directory)
        raise InvalidArtifact(f"{directory}: a file; give the directory of the model, with its config.json")
    return report_on(scan_checkpoint(directory))


def report_on(checkpoint: Checkpoint) -> CheckpointReport:
    """The report on what was scanned."""
    config = checkpoint.config
    used = expected_shapes(config)
    unused = optional_shapes(config)
    parameters, nbytes = _sizes(checkpoint, used)
    return CheckpointReport(
        path=checkpoint.path,
        config=config,
        parameters=parameters,
        nbytes=nbytes,
        dtypes=dict(Counter(entry.dtype for entry in checkpoint.entries.values()).most_common()),
        adapters=tuple(
            AdapterReport(
                a.name,
                a.r,
                a.lora_alpha,
                a.scale,
                parameters[f"adapter:{a.name}"],
                nbytes[f"adapter:{a.name}"],
            )
            for a in config.adapters
        ),
        unused_parameters=sum(
            entry.num_elements for name, entry in checkpoint.entries.items() if name in unused
        ),
        kv_bytes_per_token=_kv_bytes_per_token(config, sum(nbytes.values())),
        differences=checkpoint.differences(),
        absent_files=checkpoint.absent_files,
    )


def _sizes(checkpoint: Checkpoint, used: dict[str, tuple[int, ...]]) -> tuple[dict[str, int], dict[str, int]]:
    config = checkpoint.config
    parts = [*config.modalities, *(f"adapter:{adapter.name}" for adapter in config.adapters)]
    parameters, nbytes = dict.fromkeys(parts, 0), dict.fromkeys(parts, 0)
    for name in used:
        entry = checkpoint.entries.get(name)
        if entry is not None:
            parameters[part_of(name)] += entry.num_elements
            nbytes[part_of(name)] += entry.nbytes
    return parameters, nbytes


def _kv_bytes_per_token(config: Phi4Config, stored_bytes: int) -> int:
    decoder = config.decoder
    return 2 * decoder.num_hidden_layers * decoder.kv_dim * _ITEM_BYTES[loaded_dtype(stored_bytes)]
