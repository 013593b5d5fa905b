"""The graph of the vision encoder: tower, 2x2 pooling, token order and projector.

    build_vision(config.vision, config.decoder.hidden_size, read, folder / "vision.onnx", precision)

It is `phi4.model.vision` node by node. Padding is hidden from attention by one more number in every head
of queries and keys instead of a mask: the fused operator then never writes the scores of all pairs of
patches to memory (0.5 GB for eight crops at full size) and is quicker too.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from phi4.configs import VisionConfig
from phi4.onnx.build.network.encoder_layers import FP32, EncoderWriter, Read
from phi4.onnx.build.network.graph import GraphWriter, save_graph
from phi4.onnx.build.network.linear import Precision, linear
from phi4.onnx.build.weights import WeightSink
from phi4.shapes import AnyArray

TOWER = "vision.img_processor"
HIDDEN_SCORE = -1e9
"""Added to the score of a padded patch before scaling. Finite, so that nothing can become NaN."""


def build_vision(
    config: VisionConfig, output_size: int, read: Read, path: Path, precision: Precision
) -> None:
    """Write the graph and, beside it, its weights (`<name>.data`).

    Inputs: `pixels` `[C, 3, crop, crop]`; `position_ids` `[C, P]` int64 and `seen` `[C, P]` bool from
    `phi4.configs.patches`; `index` `[N]` int64, the pooled vector that stands at each token, numbered crop
    by crop, then `sub_GN`, then `glb_GN`. Output: `features` `[N, D]`.

    Args:
        config: The tower.
        output_size: Hidden size D of the decoder.
        read: Array of a canonical tensor name; each is read once.
        path: The graph's file.
        precision: Of the linear layers of tower and projector.
    """
    with WeightSink(path.with_name(f"{path.name}.data")) as sink:
        g = GraphWriter("vision", sink)
        w = EncoderWriter(g, read, precision)
        side, patches = config.crop_size, config.grid**2
        pixels = g.input("pixels", np.float32, ("C", config.num_channels, side, side))
        position_ids = g.input("position_ids", np.int64, ("C", patches))
        seen = g.input("seen", np.bool_, ("C", patches))
        index = g.input("index", np.int64, ("N",))
        hidden = _embed(w, config, pixels, position_ids)
        penalty = _penalty(w, config, seen)
        for layer in range(config.num_layers_used):
            hidden = _layer(w, config, f"{TOWER}.encoder.layers.{layer}", hidden, penalty)
        chosen = w.op("Gather", _pooled_table(w, config, hidden), index, axis=0)  # [N, D_vision]
        w.output("features", w.projector(chosen, "vision.img_projection"), ("N", output_size))
        model = g.model()
    save_graph(model, path)


def _embed(w: EncoderWriter, config: VisionConfig, pixels: ir.Value, position_ids: ir.Value) -> ir.Value:
    """`[C, 3, crop, crop]` to `[C, P, D]`: patches do not overlap, so one matrix product convolves."""
    grid, patch, channels = config.grid, config.patch_size, config.num_channels
    cut = w.op("Reshape", pixels, w.constant([-1, channels, grid, patch, grid, patch]))
    cut = w.op("Transpose", cut, perm=[0, 2, 4, 1, 3, 5])
    cut = w.op("Reshape", cut, w.constant([-1, grid * grid, channels * patch * patch]))
    patches = w.linear(cut, f"{TOWER}.embeddings.patch_embedding", FP32)
    table = w.tensor(f"{TOWER}.embeddings.position_embedding.weight")
    return w.op("Add", patches, w.op("Gather", table, position_ids, axis=0))


def _penalty(w: EncoderWriter, config: VisionConfig, seen: ir.Value) -> ir.Value:
    """`[C, P, N * (H + 1)]` to add to the keys: the extra number of every head, 0 where a patch is seen."""
    heads = config.num_attention_heads
    far = np.zeros((heads, config.hidden_size // heads + 1), np.float32)
    far[:, -1] = HIDDEN_SCORE
    hidden = w.graph.weight("hidden_penalty", far.reshape(-1))
    return w.op("Where", w.op("Unsqueeze", seen, w.constant([2])), w.constant(0, np.float32), hidden)


def _layer(
    w: EncoderWriter, config: VisionConfig, name: str, hidden: ir.Value, penalty: ir.Value
) -> ir.Value:
    """Attention, then MLP, each on a normed copy and added back: `[C, P, D]` to `[C, P, D]`."""
    normed = w.layer_norm(hidden, f"{name}.layer_norm1", config.layer_norm_eps)
    hidden = w.op("Add", hidden, _attention(w, config, f"{name}.self_attn", normed, penalty))
    normed = w.layer_norm(hidden, f"{name}.layer_norm2", config.layer_norm_eps)
    inner = w.op("Gelu", w.linear(normed, f"{name}.mlp.fc1"), approximate="tanh")
    return w.op("Add", hidden, w.linear(inner, f"{name}.mlp.fc2"))


def _attention(
    w: EncoderWriter, config: VisionConfig, name: str, hidden: ir.Value, penalty: ir.Value
) -> ir.Value:
    """Heads of H + 1 numbers: the last is 1 in a query; in a key 0 or, where padded, far below any score."""
    heads = config.num_attention_heads
    query = _widened(w, hidden, f"{name}.q_proj", heads, 1.0)
    key = w.op("Add", _widened(w, hidden, f"{name}.k_proj", heads, 0.0), penalty)
    value = w.linear(hidden, f"{name}.v_proj")
    scale = (config.hidden_size // heads) ** -0.5
    mixed = w.graph.contrib("MultiHeadAttention", query, key, value, num_heads=heads, scale=scale)
    return w.linear(mixed, f"{name}.out_proj")


def _widened(w: EncoderWriter, hidden: ir.Value, name: str, heads: int, last: float) -> ir.Value:
    """A projection whose heads have one number more, always `last`: `[C, P, D]` to `[C, P, N * (H + 1)]`."""

    def widen(rows: AnyArray, fill: float) -> AnyArray:
        by_head = rows.reshape(heads, -1, *rows.shape[1:])
        extra = np.full_like(by_head[:, :1], fill)
        return np.concatenate((by_head, extra), axis=1).reshape(-1, *rows.shape[1:])

    weight = widen(w.read(f"{name}.weight"), 0.0)
    bias = widen(w.array(f"{name}.bias"), last)
    return linear(w.graph, hidden, f"{name}.weight", weight, w.precision, bias)


def _pooled_table(w: EncoderWriter, config: VisionConfig, features: ir.Value) -> ir.Value:
    """Mean of each 2x2 block of patches, then the two separators: `[C * (g / 2) ** 2 + 2, D]`."""
    half, size = config.pooled_grid, config.hidden_size
    blocks = w.op("Reshape", features, w.constant([-1, half, 2, half, 2, size]))
    pooled = w.op("ReduceMean", blocks, w.constant([2, 4]), keepdims=0)
    pooled = w.op("Reshape", pooled, w.constant([-1, size]))
    separators = (w.tensor(f"vision.{name}", (1, size)) for name in ("sub_GN", "glb_GN"))
    return w.op("Concat", pooled, *separators, axis=0)
