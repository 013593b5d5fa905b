"""LoRA adapters in PEFT's two files, read and written.

adapter = load_adapter("my-lora", config)      # checked against the model's sizes
save_adapter("my-lora", adapter)
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from phi4.checkpoint.differences import compare_shapes
from phi4.checkpoint.inventory import adapter_shapes
from phi4.checkpoint.keymap import adapter_to_canonical, adapter_to_stored
from phi4.checkpoint.opening import ADAPTER_FILE
from phi4.checkpoint.safetensors_file import (
    PICKLE_SUFFIXES,
    read_header,
    read_tensor,
    refuse_pickle,
    write_safetensors,
)
from phi4.checkpoint.shards import contained
from phi4.configs import DECODER_TARGETS, AdapterConfig, Phi4Config, read_peft_config, write_peft_config
from phi4.configs.jsonfile import read_json_object
from phi4.errors import InvalidArtifact, InvalidConfig, InvalidRequest
from phi4.shapes import AnyArray

ADAPTER_CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class LoadedAdapter:
    """An adapter with its weights.

    Attributes:
        config: Name, rank, alpha, targets.
        tensors: Our names (they contain the adapter's) -> arrays.
    """

    config: AdapterConfig
    tensors: dict[str, AnyArray]


UserAdapters = LoadedAdapter | Sequence[LoadedAdapter] | None
"""The user's own adapters a runner is opened with; each request uses one of them, or none."""


def user_adapters(given: UserAdapters) -> tuple[LoadedAdapter, ...]:
    """One adapter, several or none, as a tuple.

    Raises:
        InvalidRequest: Two have the same name.
    """
    found = () if given is None else (given,) if isinstance(given, LoadedAdapter) else tuple(given)
    names = [adapter.config.name for adapter in found]
    if len(set(names)) < len(names):
        raise InvalidRequest(f"adapters are called {names}; give each its own name")
    return found


def load_adapter(directory: str | Path, config: Phi4Config, name: str | None = None) -> LoadedAdapter:
    """Read a user's PEFT adapter.

    Args:
        directory: Folder with `adapter_config.json` and `adapter_model.safetensors`.
        config: The model it is for.
        name: What to call it; None = the folder's name.

    Raises:
        InvalidConfig: A variant that cannot be applied exactly (DoRA, rsLoRA, biases, patterns).
        InvalidArtifact: Files missing, broken, or a pickle.
        InvalidRequest: The name is one of the model's own adapters.
        CheckpointMismatch: Tensors missing, unexpected or of the wrong size for this model.
    """
    directory = Path(directory)
    name = name or re.sub(r"[^A-Za-z0-9_-]", "_", directory.resolve().name)[:64] or "user"
    if name in {adapter.name for adapter in config.adapters}:
        raise InvalidRequest(f"adapter name {name!r}: the model has one of that name; choose another")
    where = contained(directory, ADAPTER_CONFIG)
    try:
        adapter = read_peft_config(read_json_object(where), name)
    except InvalidConfig as problem:
        raise InvalidConfig(f"{where}: {problem}") from None
    header = read_header(_weights(directory))
    names = {stored: adapter_to_canonical(stored, name) for stored in header}
    found = {ours: header[stored] for stored, ours in names.items() if ours is not None}
    if not found:
        raise InvalidArtifact(f"{directory}: no LoRA matrices of the decoder's {list(DECODER_TARGETS)} in it")
    present = {target for target in DECODER_TARGETS if any(f".{target}.lora_" in ours for ours in found)}
    adapter = replace(adapter, target_modules=tuple(t for t in adapter.target_modules if t in present))
    compare_shapes(
        {ours: entry.shape for ours, entry in found.items()},
        adapter_shapes(config.decoder, adapter),
        {},
        [stored for stored, ours in names.items() if ours is None],
    ).raise_for(f"adapter {directory}")
    return LoadedAdapter(adapter, {ours: read_tensor(entry) for ours, entry in found.items()})


def _weights(directory: Path) -> Path:
    path = contained(directory, ADAPTER_FILE)
    if not path.is_file():
        for other in sorted(directory.iterdir()):
            if other.suffix.lower() in PICKLE_SUFFIXES:
                refuse_pickle(other)
        raise InvalidArtifact(f"{path}: missing; an adapter folder holds {ADAPTER_CONFIG} and {ADAPTER_FILE}")
    return path


def save_adapter(directory: str | Path, adapter: LoadedAdapter) -> None:
    """Write an adapter as a PEFT folder, names without prefix as the HF-native layout has them."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    stored = [(adapter_to_stored(name), array) for name, array in adapter.tensors.items()]
    weights = directory / ADAPTER_FILE
    part = weights.with_suffix(".part")
    write_safetensors(part, stored)
    part.replace(weights)
    text = json.dumps(write_peft_config(adapter.config), indent=2) + "\n"
    (directory / ADAPTER_CONFIG).write_text(text, encoding="utf-8")
