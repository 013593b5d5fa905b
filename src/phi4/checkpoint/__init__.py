"""Weights on disk: safetensors shards, names of three layouts, adapters, the hub, manifests.

    folder = resolve_model("microsoft/Phi-4-multimodal-instruct", ("text",))
    checkpoint = open_checkpoint(folder, ("text",))
    for name, array in checkpoint.tensors(("text",)): ...

Names are ours (canonical) everywhere outside this folder. Nothing here needs torch.
"""

from __future__ import annotations

from phi4.checkpoint.adapters import LoadedAdapter, UserAdapters, load_adapter, save_adapter, user_adapters
from phi4.checkpoint.differences import Differences, Misshapen, compare_shapes
from phi4.checkpoint.hub import BUILTIN, HubId, locate_model, resolve_model
from phi4.checkpoint.inspect import AdapterReport, CheckpointReport, describe
from phi4.checkpoint.inventory import adapter_shapes, adapters_for, expected_shapes, optional_shapes
from phi4.checkpoint.keymap import adapter_of, lora_name, part_of, to_canonical, to_stored
from phi4.checkpoint.manifest import sha256_file, verify_manifest, write_manifest
from phi4.checkpoint.opening import Checkpoint, open_checkpoint
from phi4.checkpoint.remote import describe_model
from phi4.checkpoint.safetensors_file import TensorEntry, read_header, read_tensor, write_safetensors
from phi4.checkpoint.saving import save_checkpoint

__all__ = [
    "BUILTIN",
    "AdapterReport",
    "Checkpoint",
    "CheckpointReport",
    "Differences",
    "HubId",
    "LoadedAdapter",
    "Misshapen",
    "TensorEntry",
    "UserAdapters",
    "adapter_of",
    "adapter_shapes",
    "adapters_for",
    "compare_shapes",
    "describe",
    "describe_model",
    "expected_shapes",
    "load_adapter",
    "locate_model",
    "lora_name",
    "open_checkpoint",
    "optional_shapes",
    "part_of",
    "read_header",
    "read_tensor",
    "resolve_model",
    "save_adapter",
    "save_checkpoint",
    "sha256_file",
    "to_canonical",
    "to_stored",
    "user_adapters",
    "verify_manifest",
    "write_manifest",
    "write_safetensors",
]
