"""Sizes a config does not carry, read off the tensors.

The original layout's config is silent about the vision tower except for the crop size. Width, inner
width, depth, patch and grid stand in the shapes; the number of heads does not, and is 16 there unless
the config says otherwise.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace

from phi4.checkpoint.safetensors_file import TensorEntry
from phi4.configs import Phi4Config
from phi4.configs.jsonpath import ABSENT, read_path
from phi4.errors import InvalidArtifact, InvalidConfig

_TOWER = "vision.img_processor"
_LAYER = re.compile(re.escape(_TOWER) + r"\.encoder\.layers\.(\d+)\.")
_HEADS = 16


def infer_sizes(config: Phi4Config, entries: Mapping[str, TensorEntry]) -> Phi4Config:
    """Fill in the vision tower of an original-layout config from its tensors.

    Returns the config unchanged when it says the sizes itself or the tower's tensors are not there.

    Raises:
        InvalidArtifact: The shapes give no tower.
        InvalidConfig: They contradict the config, or do not fit 16 heads.
    """
    patches = entries.get(f"{_TOWER}.embeddings.position_embedding.weight")
    kernel = entries.get(f"{_TOWER}.embeddings.patch_embedding.weight")
    inner = entries.get(f"{_TOWER}.encoder.layers.0.mlp.fc1.weight")
    if config.vision is None or not config.vision_from_tensors or not (patches and kernel and inner):
        return config
    if len(patches.shape) != 2 or len(kernel.shape) != 4 or len(inner.shape) != 2:
        raise InvalidArtifact(f"{patches.file}: the vision tower's tensors have impossible shapes")
    grid, width = math.isqrt(patches.shape[0]), patches.shape[1]
    if grid**2 != patches.shape[0]:
        raise InvalidArtifact(f"{patches.file}: {patches.shape[0]} vision positions, must be a square number")
    crop_size = grid * kernel.shape[2]
    stated = read_path(config.extra, "embd_layer.image_embd_layer.crop_size")
    if stated is not ABSENT and stated != crop_size:
        raise InvalidConfig(
            f"embd_layer.image_embd_layer.crop_size = {stated}: must be {crop_size}, "
            f"the stored tower has {grid} patches of {kernel.shape[2]} pixels a side"
        )
    if width % _HEADS:
        raise InvalidConfig(
            f"vision_config.num_attention_heads is missing: the tower's width {width} is not a multiple of "
            f"{_HEADS}; write the tower's sizes under vision_config in config.json"
        )
    layers = [int(match[1]) for name in entries if (match := _LAYER.match(name))]
    vision = replace(
        config.vision,
        hidden_size=width,
        intermediate_size=inner.shape[0],
        num_hidden_layers=max(layers) + 1,
        num_attention_heads=_HEADS,
        crop_size=crop_size,
        patch_size=kernel.shape[2],
    )
    return replace(config, vision=vision, vision_from_tensors=False)
