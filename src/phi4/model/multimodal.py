"""The whole model: decoder, vision, speech and adapters behind one forward pass.

`forward` takes a `ModelBatch` and gives hidden states, `logits` scores the vocabulary for the positions
you pick. A runner with a cache uses the parts instead: `encode_images`, `encode_audios`, `rotary`,
`decoder`, `router`. Parts that are not asked for do not exist and take no memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from phi4.configs import AdapterConfig, Phi4Config
from phi4.errors import InvalidRequest
from phi4.model.attention import Attention, CausalAttend, causal_mask, select_attention
from phi4.model.batch import AudioBatch, ImageBatch, ModelBatch
from phi4.model.decoder import Decoder
from phi4.model.lora import install_lora, remove_lora
from phi4.model.rotary import Rotary
from phi4.model.speech import SpeechEmbedder
from phi4.model.vision import VisionEmbedder
from phi4.types import Modality


class Phi4Model(nn.Module):
    """Phi-4-mini (parts = text) or Phi-4-multimodal.

    Args:
        config: Sizes of every part.
        parts: Which parts to build; "text" is always there. None = all the config describes.
        adapters: Names of the config's adapters to build; None = all but those of encoders not built.

    Raises:
        InvalidRequest: A part or an adapter the config does not have.
    """

    def __init__(
        self,
        config: Phi4Config,
        parts: Sequence[Modality] | None = None,
        adapters: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        parts = config.modalities if parts is None else parts
        for part in parts:
            _check_part(config, part)
        chosen = [
            config.adapter(name) for name in (_adapters_of(config, parts) if adapters is None else adapters)
        ]
        self.config = config
        self.decoder = Decoder(config.decoder)
        self.vision: VisionEmbedder | None = None
        self.speech: SpeechEmbedder | None = None
        for part in parts:
            self.add_part(part)
        self.rotary = Rotary(config.decoder)
        self.router = install_lora(self.decoder, chosen)
        self.attention: Attention = select_attention("cpu")
        self.encoder_attention: Attention = self.attention

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.decoder.norm.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights and activations."""
        return self.decoder.norm.weight.dtype

    def use_attention(self, requested: str | None = None) -> None:
        """Choose the kernel of all parts for the present device; set the two attributes to choose one by one.

        Raises:
            InvalidRequest: An unknown kernel, or one that cannot run here.
        """
        self.attention = self.encoder_attention = select_attention(self.device, requested)

    def add_part(self, part: Modality) -> None:
        """Build an encoder that is not there yet, with default weights; see `loading.load_part` to fill it.

        Raises:
            InvalidRequest: The config does not describe it.
        """
        size = self.config.decoder.hidden_size
        _check_part(self.config, part)
        if part == "vision" and self.vision is None and self.config.vision is not None:
            self.vision = VisionEmbedder(self.config.vision, size)
        if part == "speech" and self.speech is None and self.config.speech is not None:
            self.speech = SpeechEmbedder(self.config.speech, size)

    def add_adapter(self, adapter: AdapterConfig) -> None:
        """Add an adapter with zero delta beside those that are there.

        Raises:
            InvalidRequest: One of that name is loaded already.
        """
        install_lora(self.decoder, [adapter], self.router)

    def remove_adapter(self, name: str) -> None:
        """Forget an adapter and free its weights; nothing happens when it is not there."""
        remove_lora(self.decoder, name, self.router)

    def encode_images(self, images: ImageBatch) -> tuple[Tensor, tuple[int, ...]]:
        """Decoder vectors `[N_1 + N_2 + ..., D]` of pictures, one after the other, and the lengths N_i.

        Raises:
            InvalidRequest: The vision part is not loaded.
        """
        if self.vision is None:
            raise InvalidRequest("the prompt holds a picture but the vision part is not loaded")
        encoded: tuple[Tensor, tuple[int, ...]] = self.vision(images, self.encoder_attention)
        return encoded

    def encode_audios(self, audios: AudioBatch) -> tuple[Tensor, tuple[int, ...]]:
        """Decoder vectors `[N_1 + N_2 + ..., D]` of recordings, one after the other, and the lengths N_i.

        Raises:
            InvalidRequest: The speech part is not loaded.
        """
        if self.speech is None:
            raise InvalidRequest("the prompt holds a recording but the speech part is not loaded")
        encoded: tuple[Tensor, tuple[int, ...]] = self.speech(audios, self.encoder_attention)
        return encoded

    def embed(self, batch: ModelBatch) -> Tensor:
        """`[B, T, D]`: embedded tokens with the media's vectors in their places; gradients reach both."""
        hidden = self.decoder.embed(batch.input_ids)
        flat = hidden.flatten(0, 1)  # [B * T, D]
        if batch.images is not None:
            assert batch.image_positions is not None, "pictures come with their positions"
            vectors, _ = self.encode_images(batch.images)
            flat = flat.index_copy(0, batch.image_positions, vectors.to(flat.dtype))
        if batch.audios is not None:
            assert batch.audio_positions is not None, "recordings come with their positions"
            vectors, _ = self.encode_audios(batch.audios)
            flat = flat.index_copy(0, batch.audio_positions, vectors.to(flat.dtype))
        return flat.view_as(hidden)

    def forward(self, batch: ModelBatch) -> Tensor:
        """Hidden states `[B, T, D]` after the final norm; what stands at padded positions means nothing."""
        hidden = self.embed(batch)
        angles = self.rotary(batch.position_ids, batch.regimes, hidden.dtype)
        attend = CausalAttend(self.attention, causal_mask(batch.segments))
        with self.router.use(self.router.make_plan(batch.adapters, hidden.device)):
            output: Tensor = self.decoder(hidden, angles, attend)
            return output

    def logits(self, hidden: Tensor) -> Tensor:
        """`[..., D]` to `[..., V]`; pass only the positions you need."""
        return self.decoder.logits(hidden)


def _check_part(config: Phi4Config, part: Modality) -> None:
    if part not in config.modalities:
        raise InvalidRequest(f"this model has no {part!r} part, only {', '.join(config.modalities)}")


def _adapters_of(config: Phi4Config, parts: Sequence[Modality]) -> list[str]:
    """All adapters but those of encoders that are not asked for."""
    names = [adapter.name for adapter in config.adapters]
    return [name for name in names if name in parts or name not in ("vision", "speech")]
