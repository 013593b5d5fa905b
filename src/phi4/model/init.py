"""Random weights a model can be trained from.

Matrices get a normal of variance 1 / inputs, the layers that write into a residual stream less; norms
start at one, biases at zero. Numbers are drawn on the CPU from one generator in the order of the
modules, so a seed gives the same model on every device.
"""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor, nn

from phi4.model.decoder import RMSNorm
from phi4.model.lora import LoraLinear
from phi4.model.multimodal import Phi4Model
from phi4.model.speech.conformer import GatedPointwise
from phi4.model.speech.subsampling import MeanVarianceNorm
from phi4.model.vision.embedder import VisionEmbedder

EMBEDDING_STD = 0.02
"""Released `initializer_range`."""

PROJECTOR_GAIN = 0.1
"""Media then start with vectors about as long as those of embedded tokens."""

_PROJECTOR_OUTPUT = re.compile(r"(img_projection|audio_projection\.\w+)\.2$")
_RESIDUAL_OUTPUTS = ("o_proj", "down_proj", "out_proj", "fc2", "linear_out", "net.2", "conv.ext_pw_conv_1d")


@torch.no_grad()
def init_weights(model: Phi4Model, generator: torch.Generator) -> None:
    """Fill every parameter in place.

    Residual outputs are scaled by 1 / sqrt(2 layers), so that depth does not change the size of the stream;
    the projectors' last layers are small, so that media start as large as embedded tokens. LoRA B is zero: a
    fresh adapter changes nothing. Normalisation statistics of the speech encoder become 0 and 1; set them
    from data before training.
    """
    depths = {"decoder": len(model.decoder.layers)}
    if model.vision is not None:
        depths["vision"] = len(model.vision.img_processor.encoder.layers)
    if model.speech is not None:
        depths["speech"] = len(model.speech.encoder.encoders)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
            _fill_matrix(module, _gain(name, depths[name.split(".")[0]]), generator)
        elif isinstance(module, nn.LayerNorm | RMSNorm):
            _fill_norm(module)
        elif isinstance(module, nn.Embedding):
            _normal(module.weight, EMBEDDING_STD, generator)
        elif isinstance(module, MeanVarianceNorm):
            module.global_mean.zero_()
            module.global_invstd.fill_(1.0)
        else:
            _fill_loose(module, generator)
    for module in model.modules():
        if isinstance(module, LoraLinear):
            for weight in module.lora_B.parameters():
                weight.zero_()


def _gain(name: str, depth: int) -> float:
    """Standard deviation of a layer's weights, in units of 1 / sqrt(inputs)."""
    if _PROJECTOR_OUTPUT.search(name):
        return PROJECTOR_GAIN
    return (2 * max(depth, 1)) ** -0.5 if name.endswith(_RESIDUAL_OUTPUTS) else 1.0


def _fill_matrix(module: nn.Linear | nn.Conv1d | nn.Conv2d, gain: float, generator: torch.Generator) -> None:
    _normal(module.weight, gain / math.sqrt(module.weight[0].numel()), generator)
    if module.bias is not None:
        module.bias.zero_()


def _fill_norm(module: nn.LayerNorm | RMSNorm) -> None:
    module.weight.fill_(1.0)
    if isinstance(module, nn.LayerNorm):
        module.bias.zero_()


def _fill_loose(module: nn.Module, generator: torch.Generator) -> None:
    """Parameters that hang directly on our own modules."""
    if isinstance(module, VisionEmbedder):
        _normal(module.glb_GN, 1.0, generator)
        _normal(module.sub_GN, 1.0, generator)
    elif isinstance(module, GatedPointwise):
        module.b1.zero_()
        module.b2.zero_()


def _normal(tensor: Tensor, std: float, generator: torch.Generator) -> None:
    tensor.copy_(torch.randn(tensor.shape, generator=generator) * std)
