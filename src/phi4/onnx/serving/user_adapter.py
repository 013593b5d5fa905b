"""A user's own adapter as inputs of the decoder's graph: the slot every package keeps for one.

The graph adds `x A B` to each linear layer when its input `user` says so. A and B come from outside, at
any rank, so an adapter is used without exporting again; without one they have rank 0.
"""

from __future__ import annotations

import numpy as np

from phi4.checkpoint.adapters import LoadedAdapter
from phi4.checkpoint.keymap import lora_name
from phi4.configs import DECODER_TARGETS
from phi4.configs.decoder import DecoderConfig
from phi4.onnx.package.rotary_order import qkv_row_order
from phi4.shapes import FloatArray


def slot_shapes(config: DecoderConfig) -> dict[str, tuple[int | None, int | None]]:
    """Inputs of the slot and their shapes, None = the rank."""
    shapes: dict[str, tuple[int | None, int | None]] = {}
    for layer in range(config.num_hidden_layers):
        for target in DECODER_TARGETS:
            width, height = config.target_dims(target)
            shapes[f"user.layers.{layer}.{target}.A"] = (width, None)
            shapes[f"user.layers.{layer}.{target}.B"] = (None, height)
    return shapes


def slot_arrays(config: DecoderConfig, adapter: LoadedAdapter | None) -> dict[str, FloatArray]:
    """What to bind to the slot: A `[K, r]`, and B `[r, N]` times the adapter's scale.

    Args:
        config: The decoder.
        adapter: The user's own, checked against the model; None = rank 0 everywhere. So are the layers it
            does not act on.
    """
    arrays: dict[str, FloatArray] = {}
    for layer in range(config.num_hidden_layers):
        for target in DECODER_TARGETS:
            narrow, wide = _matrices(config, adapter, layer, target)
            arrays[f"user.layers.{layer}.{target}.A"] = narrow
            arrays[f"user.layers.{layer}.{target}.B"] = wide
    return arrays


def _matrices(
    config: DecoderConfig, adapter: LoadedAdapter | None, layer: int, target: str
) -> tuple[FloatArray, FloatArray]:
    width, height = config.target_dims(target)
    if adapter is None or target not in adapter.config.target_modules:
        return np.zeros((width, 0), np.float32), np.zeros((0, height), np.float32)
    name = adapter.config.name
    narrow = np.asarray(adapter.tensors[lora_name(layer, target, "A", name)], np.float32)  # [r, K]
    wide = np.asarray(adapter.tensors[lora_name(layer, target, "B", name)], np.float32)  # [N, r]
    if target == "self_attn.qkv_proj":
        wide = wide[qkv_row_order(config)]
    scaled = wide.T * np.float32(adapter.config.scale)
    return np.ascontiguousarray(narrow.T), np.ascontiguousarray(scaled, np.float32)
