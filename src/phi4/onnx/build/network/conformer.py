"""The conformer blocks of the speech graph and the relative bias they share.

Half feed-forward, attention with a relative bias, causal convolution, half feed-forward, final norm, as
in `phi4.model.speech.conformer`. In both gated layers the second half is the gate. Kernel-1 convolutions,
a quarter of a block's weights, are matrix products with channels last: in the fast form for many rows in 8
bits as the rest, otherwise in float32 as all convolutions.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from phi4.configs import SpeechConfig
from phi4.onnx.build.network.encoder_layers import FP32, EncoderWriter


def relative_bias(w: EncoderWriter, config: SpeechConfig, hidden: ir.Value, name: str) -> ir.Value:
    """A learned number per head and clipped distance, key minus query: `[1, N, w, w]` for windows of w."""
    limit = config.bias_max_distance
    length = w.op("Squeeze", w.op("Shape", hidden, start=1, end=2))  # []
    places = w.op("Range", w.constant(0), length, w.constant(1))
    keys, queries = (w.op("Unsqueeze", places, w.constant([axis])) for axis in (0, 1))
    distance = w.op("Clip", w.op("Sub", keys, queries), w.constant(-limit), w.constant(limit - 1))
    rows = w.op("Add", distance, w.constant(limit))  # [w, w]
    table = w.graph.weight(name, w.array(name).T)  # [N, 2 * limit]
    return w.op("Unsqueeze", w.op("Gather", table, rows, axis=1), w.constant([0]))


def conformer_block(
    w: EncoderWriter, config: SpeechConfig, name: str, hidden: ir.Value, bias: ir.Value
) -> ir.Value:
    """One block; its output is normed: `[W, w, E]` to `[W, w, E]`."""
    hidden = w.op("Add", hidden, _half_feed_forward(w, f"{name}.feed_forward_in", hidden))
    normed = w.layer_norm(hidden, f"{name}.layer_norm_att")
    hidden = w.op("Add", hidden, _attention(w, config, f"{name}.self_attn", normed, bias))
    hidden = w.op("Add", hidden, _convolution_module(w, config, f"{name}.conv", hidden))
    hidden = w.op("Add", hidden, _half_feed_forward(w, f"{name}.feed_forward_out", hidden))
    return w.layer_norm(hidden, f"{name}.layer_norm")


def _half_feed_forward(w: EncoderWriter, name: str, hidden: ir.Value) -> ir.Value:
    """Norm, gated linear, linear, halved."""
    normed = w.layer_norm(hidden, f"{name}.layer_norm")
    value, gate = w.halves(w.linear(normed, f"{name}.net.0.linear"))
    output = w.linear(w.op("Mul", value, w.swish(gate)), f"{name}.net.2")
    return w.op("Mul", output, w.constant(0.5, np.float32))


def _attention(
    w: EncoderWriter, config: SpeechConfig, name: str, hidden: ir.Value, bias: ir.Value
) -> ir.Value:
    """Attention inside each window; the bias is added to the scaled scores."""
    query, key, value = (w.linear(hidden, f"{name}.linear_{letter}") for letter in "qkv")
    mixed = w.graph.contrib(
        "MultiHeadAttention", query, key, value, None, None, bias, num_heads=config.num_attention_heads
    )
    return w.linear(mixed, f"{name}.linear_out")


def _convolution_module(w: EncoderWriter, config: SpeechConfig, name: str, hidden: ir.Value) -> ir.Value:
    """Norm, gated pointwise, causal depthwise, pointwise, swish, pointwise."""
    normed = w.layer_norm(hidden, f"{name}.layer_norm")
    pointwise = w.precision if w.precision.kind == "rows8" else FP32
    both = w.linear(normed, f"{name}.glu.ext_pw_conv_1d", pointwise)
    halves = zip(("b1", "b2"), w.halves(both), strict=True)
    value, gate = (w.op("Add", half, w.tensor(f"{name}.glu.{which}", (-1,))) for which, half in halves)
    gated = w.op("Mul", value, w.swish(gate))
    mixed = _causal_depthwise(w, config, f"{name}.dw_sep_conv_1d.dw_conv", gated)
    mixed = w.swish(w.linear(mixed, f"{name}.dw_sep_conv_1d.pw_conv", pointwise))
    return w.linear(mixed, f"{name}.ext_pw_conv_1d", pointwise)


def _causal_depthwise(w: EncoderWriter, config: SpeechConfig, name: str, hidden: ir.Value) -> ir.Value:
    """A convolution over time, channel by channel, that looks back only: all its padding stands in front."""
    mixed = w.op(
        "Conv",
        w.op("Transpose", hidden, perm=[0, 2, 1]),
        w.tensor(f"{name}.weight"),
        w.tensor(f"{name}.bias"),
        kernel_shape=[config.kernel_size],
        pads=[config.kernel_size - 1, 0],
        group=config.hidden_size,
    )
    return w.op("Transpose", mixed, perm=[0, 2, 1])
