"""Pictures to decoder vectors: tower, 2x2 pooling, separators, projector.

All crops of all pictures of a batch go through the tower in one call; one gather then puts every
picture's tokens in order, separators included.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from phi4.configs import VisionConfig
from phi4.configs.patches import position_ids, seen_patches, token_index
from phi4.model.attention import Attention
from phi4.model.batch import ImageBatch
from phi4.model.vision.tower import VisionTower


class VisionEmbedder(nn.Module):
    """Turns an `ImageBatch` into vectors for the decoder.

    Args:
        config: The tower.
        output_size: Hidden size D of the decoder.
    """

    def __init__(self, config: VisionConfig, output_size: int) -> None:
        super().__init__()
        self.glb_GN = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.sub_GN = nn.Parameter(torch.zeros(1, 1, 1, config.hidden_size))
        self.img_projection = nn.Sequential(
            nn.Linear(config.hidden_size, output_size), nn.GELU(), nn.Linear(output_size, output_size)
        )
        self.img_processor = VisionTower(config)

    def forward(self, images: ImageBatch, attention: Attention) -> tuple[Tensor, tuple[int, ...]]:
        """Encode pictures.

        Returns:
            `[N_1 + N_2 + ..., D]`, the tokens of all pictures in order, and the lengths N_i.
        """
        weight = self.img_processor.embeddings.patch_embedding.weight
        patch_mask = images.patch_mask
        ids = torch.from_numpy(position_ids(patch_mask)).to(weight.device)  # [C, P]
        mask = None
        if not patch_mask.all():
            mask = torch.from_numpy(seen_patches(patch_mask)).to(weight.device)
        features = self.img_processor(images.pixels.to(weight), ids, mask, attention)  # [C, P, D]
        index, lengths = token_index(patch_mask, images.crop_grids)
        pooled = _pool(features)
        table = torch.cat((pooled, self.sub_GN.view(1, -1), self.glb_GN.view(1, -1)))
        return self.img_projection(table[torch.from_numpy(index).to(weight.device)]), lengths


def _pool(features: Tensor) -> Tensor:
    """Mean of each 2x2 block of patches: `[C, g * g, D]` to `[C * (g / 2) ** 2, D]`."""
    crops, patches, size = features.shape
    half = round(patches**0.5) // 2
    return features.view(crops, half, 2, half, 2, size).mean(dim=(2, 4)).view(-1, size)
