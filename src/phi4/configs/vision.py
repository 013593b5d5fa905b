"""Sizes of the SigLIP-shaped vision tower and of its tiles, and how many positions a picture takes.

The processor asks for the crop, the patch, the limit of crops and `num_tokens`, the network for the
rest. Left out on purpose: how a picture is cut into crops (`phi4.processing.tiles`), and switches this
architecture fixes (`spelling.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from phi4.configs.fields import MAX_LAYERS, divides, number, refuse, whole


@dataclass(frozen=True)
class VisionConfig:
    """Shape of the vision tower; a picture becomes one global crop and up to `max_crops` local ones.

    Attributes:
        hidden_size: Width of the tower.
        intermediate_size: Inner width of its MLP.
        num_hidden_layers: Stored layers; only those up to `feature_layer` are computed.
        num_attention_heads: Heads; divides `hidden_size`.
        crop_size: Side of a crop in pixels; a multiple of two patches.
        patch_size: Side of a patch in pixels.
        num_channels: Always 3.
        layer_norm_eps: Of every LayerNorm of the tower.
        feature_layer: Index into the list of hidden states (embeddings first); -2 = without the last layer.
        max_crops: Local crops a picture may take, `dynamic_hd` in the released preprocessor config.

    Raises:
        InvalidConfig: A value cannot work.
    """

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    crop_size: int
    patch_size: int
    num_channels: int = 3
    layer_norm_eps: float = 1e-6
    feature_layer: int = -2
    max_crops: int = 36

    def __post_init__(self) -> None:
        for field in ("hidden_size", "intermediate_size", "num_attention_heads", "crop_size", "patch_size"):
            whole(field, getattr(self, field))
        whole("num_hidden_layers", self.num_hidden_layers, high=MAX_LAYERS)
        divides("num_attention_heads", self.num_attention_heads, "hidden_size", self.hidden_size)
        if self.crop_size % (2 * self.patch_size):
            refuse("crop_size", self.crop_size, f"a multiple of two patches of {self.patch_size} pixels")
        if self.num_channels != 3:
            refuse("num_channels", self.num_channels, "3")
        number("layer_norm_eps", self.layer_norm_eps, 1e-12, 1.0)
        # One hidden state before the first layer and one after each.
        whole("feature_layer", self.feature_layer, -self.num_hidden_layers - 1, self.num_hidden_layers)
        whole("max_crops", self.max_crops, high=1024)

    @property
    def grid(self) -> int:
        """Patches along one side of a crop."""
        return self.crop_size // self.patch_size

    @property
    def pooled_grid(self) -> int:
        """Feature vectors along one side of a crop, after 2x2 average pooling."""
        return self.grid // 2

    @property
    def num_layers_used(self) -> int:
        """Layers that are computed to reach `feature_layer`."""
        return (
            self.feature_layer if self.feature_layer >= 0 else self.num_hidden_layers + 1 + self.feature_layer
        )

    def num_tokens(self, valid_rows: int, valid_cols: int) -> int:
        """Positions one picture takes in the prompt.

        Args:
            valid_rows: Patch rows of the tiled picture that show picture (not padding), all crops together.
            valid_cols: The same for columns.

        Source: `processing_phi4mm.py` of the released model, (g/2)^2 + g/2 + 1 + h'(w' + 1) with
        h' = ceil(rows/2), w' = ceil(cols/2).
        """
        pooled_rows, pooled_cols = -(-valid_rows // 2), -(-valid_cols // 2)
        return self.pooled_grid * (self.pooled_grid + 1) + 1 + pooled_rows * (pooled_cols + 1)
