"""The SigLIP-shaped vision tower: crops of pixels to one vector a patch.

Pre-norm transformer with learned positions, full attention inside a crop, no class token. Only the
layers up to the configured feature layer exist here: what released checkpoints store beyond it (last
layer, final norm, pooling head) is never computed, so it is never loaded.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from phi4.configs import VisionConfig
from phi4.model.attention import Attention


class PatchEmbeddings(nn.Module):
    """Linear map of each patch plus a row of the position table."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.patch_embedding = nn.Conv2d(
            config.num_channels, config.hidden_size, kernel_size=config.patch_size, stride=config.patch_size
        )
        self.position_embedding = nn.Embedding(config.grid**2, config.hidden_size)

    def forward(self, pixels: Tensor, position_ids: Tensor) -> Tensor:
        """`[C, 3, crop, crop]` and `[C, P]` to `[C, P, D]`."""
        weight = self.patch_embedding.weight
        crops, channels, side, _ = pixels.shape
        patch = weight.shape[-1]
        # Patches do not overlap, so the convolution is one matrix product over cut-out patches.
        cut = pixels.view(crops, channels, side // patch, patch, side // patch, patch)
        cut = cut.permute(0, 2, 4, 1, 3, 5).reshape(crops, -1, channels * patch * patch)  # [C, P, 3*p*p]
        patches = functional.linear(cut, weight.flatten(1), self.patch_embedding.bias)
        return patches + cast(Tensor, self.position_embedding(position_ids))


class TowerAttention(nn.Module):
    """Multi-head attention among the patches of a crop."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden: Tensor, mask: Tensor | None, attention: Attention) -> Tensor:
        """`[C, P, D]` to `[C, P, D]`; `mask` `[C, 1, 1, P]`, True = this patch may be looked at."""
        crops, patches, _ = hidden.shape
        query, key, value = (
            projection(hidden).view(crops, patches, self.num_heads, -1).transpose(1, 2)  # [C, N, P, H]
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = attention(query, key, value, mask=mask)
        output: Tensor = self.out_proj(mixed.transpose(1, 2).reshape(crops, patches, -1))
        return output


class TowerMLP(nn.Module):
    """Two linear layers with the tanh form of GELU between them."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """`[..., D]` to `[..., D]`."""
        output: Tensor = self.fc2(functional.gelu(self.fc1(hidden), approximate="tanh"))
        return output


class TowerLayer(nn.Module):
    """Attention, then MLP, each on a normed copy and added back."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = TowerAttention(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = TowerMLP(config)

    def forward(self, hidden: Tensor, mask: Tensor | None, attention: Attention) -> Tensor:
        """`[C, P, D]` to `[C, P, D]`."""
        hidden = hidden + self.self_attn(self.layer_norm1(hidden), mask, attention)
        output: Tensor = hidden + self.mlp(self.layer_norm2(hidden))
        return output


class TowerEncoder(nn.Module):
    """The layers up to the feature layer."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TowerLayer(config) for _ in range(config.num_layers_used))

    def forward(self, hidden: Tensor, mask: Tensor | None, attention: Attention) -> Tensor:
        """`[C, P, D]` to `[C, P, D]`."""
        for layer in self.layers:
            hidden = layer(hidden, mask, attention)
        return hidden


class VisionTower(nn.Module):
    """Crops to patch features."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.embeddings = PatchEmbeddings(config)
        self.encoder = TowerEncoder(config)

    def forward(
        self, pixels: Tensor, position_ids: Tensor, mask: Tensor | None, attention: Attention
    ) -> Tensor:
        """Features of the configured layer.

        Args:
            pixels: `[C, 3, crop, crop]`.
            position_ids: `[C, P]` from `phi4.configs.patches.position_ids`.
            mask: `[C, P]` bool, True = the patch shows picture; None when all do.
            attention: The kernel.

        Returns:
            `[C, P, D]`, without a final norm.
        """
        hidden = self.embeddings(pixels, position_ids)
        keys = None if mask is None else mask[:, None, None, :]
        features: Tensor = self.encoder(hidden, keys, attention)
        return features
