"""The two graphs of the speech encoder: frames to vectors, and vectors in windows to features.

    build_subsampling(config.speech, read, folder / "subsampling.onnx", precision)
    build_speech(config.speech, config.decoder.hidden_size, read, folder / "speech.onnx", precision)

Two, since a long recording is subsampled in pieces but attended to in windows, and the two are cut in
different places. Both are `phi4.model.speech` node by node; the blocks are in `conformer`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from phi4.configs import SpeechConfig
from phi4.onnx.build.network.conformer import conformer_block, relative_bias
from phi4.onnx.build.network.encoder_layers import EncoderWriter, Read
from phi4.onnx.build.network.graph import GraphWriter, save_graph
from phi4.onnx.build.network.linear import Precision
from phi4.onnx.build.weights import WeightSink

ENCODER = "speech.encoder"
STRIDED: Mapping[str, Any] = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
"""Halves time and mel, both rounded up."""


def build_subsampling(config: SpeechConfig, read: Read, path: Path, precision: Precision) -> None:
    """Write the graph that normalises frames and makes one vector of eight, with its weights (`<name>.data`).

    Input: `frames` `[1, A, M]` log-mel. Output: `vectors` `[1, ceil(A / 8), E]`.

    Args:
        config: The encoder.
        read: Array of a canonical tensor name; each is read once.
        path: The graph's file.
        precision: Of the linear layer; the convolutions are float32.
    """
    with WeightSink(path.with_name(f"{path.name}.data")) as sink:
        g = GraphWriter("subsampling", sink)
        w = EncoderWriter(g, read, precision)
        frames = g.input("frames", np.float32, (1, "A", config.input_size))
        centred = w.op("Sub", frames, w.tensor(f"{ENCODER}.encoder_embedding.global_mean"))
        normed = w.op("Mul", centred, w.tensor(f"{ENCODER}.encoder_embedding.global_invstd"))
        joined = _convolutions(w, config, w.op("Unsqueeze", normed, w.constant([1])))
        w.output("vectors", w.linear(joined, f"{ENCODER}.embed.out"), (1, "T", config.hidden_size))
        model = g.model()
    save_graph(model, path)


def build_speech(
    config: SpeechConfig, output_size: int, read: Read, path: Path, precision: Precision
) -> None:
    """Write the graph of the conformer blocks and both projectors, with its weights (`<name>.data`).

    Inputs: `windows` `[W, w, E]`, vectors of the other graph, every window attended to on its own and as a
    whole; `vision_projector` `[]` bool, True = project for a prompt that also holds pictures. Output:
    `features` `[W * w, D]`.

    Args:
        config: The encoder.
        output_size: Hidden size D of the decoder.
        read: Array of a canonical tensor name; each is read once.
        path: The graph's file.
        precision: Of the linear layers of blocks and projectors; convolutions are float32.
    """
    with WeightSink(path.with_name(f"{path.name}.data")) as sink:
        g = GraphWriter("speech", sink)
        w = EncoderWriter(g, read, precision)
        hidden = g.input("windows", np.float32, ("W", "w", config.hidden_size))
        for_vision = g.input("vision_projector", np.bool_, ())
        bias = relative_bias(w, config, hidden, f"{ENCODER}.relative_attention_bias_layer.bias_values.weight")
        for block in range(config.num_blocks):
            hidden = conformer_block(w, config, f"{ENCODER}.encoders.{block}", hidden, bias)
        flat = w.op("Reshape", hidden, w.constant([-1, config.hidden_size]))
        features = g.when(
            for_vision,
            lambda: w.projector(flat, "speech.audio_projection.vision"),
            lambda: w.projector(flat, "speech.audio_projection.speech"),
        )
        w.output("features", features, ("N", output_size))
        model = g.model()
    save_graph(model, path)


def _convolutions(w: EncoderWriter, config: SpeechConfig, x: ir.Value) -> ir.Value:
    """`[1, 1, A, M]` to `[1, ceil(A / 8), channels * mels]`: a strided one, then depthwise-pointwise pairs.

    Their places in the released list are 0, (2, 3) and (5, 6), with an activation after each.
    """
    channels = config.nemo_conv_channels
    x = w.op("Relu", _convolution(w, x, 0, STRIDED))
    for index in (2, 5):
        x = _convolution(w, x, index, {**STRIDED, "group": channels})
        x = w.op("Relu", _convolution(w, x, index + 1, {"kernel_shape": [1, 1]}))
    by_time = w.op("Transpose", x, perm=[0, 2, 1, 3])  # [1, T, channels, mels]
    return w.op("Reshape", by_time, w.constant([1, -1, channels * config.subsampled_mels]))


def _convolution(w: EncoderWriter, x: ir.Value, index: int, attributes: Mapping[str, Any]) -> ir.Value:
    name = f"{ENCODER}.embed.conv.{index}"
    return w.op("Conv", x, w.tensor(f"{name}.weight"), w.tensor(f"{name}.bias"), **attributes)
