"""Recordings to decoder vectors: encoder and one of two projectors.

The projector "speech" serves recordings alone, "vision" those whose prompt also holds pictures.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from phi4.configs import SpeechConfig
from phi4.configs.routing import AudioProjector
from phi4.model.attention import Attention
from phi4.model.batch import AudioBatch
from phi4.model.speech.encoder import SpeechEncoder

PROJECTORS: tuple[AudioProjector, ...] = ("speech", "vision")


class SpeechEmbedder(nn.Module):
    """Turns an `AudioBatch` into vectors for the decoder.

    Args:
        config: The encoder.
        output_size: Hidden size D of the decoder.
    """

    def __init__(self, config: SpeechConfig, output_size: int) -> None:
        super().__init__()
        self.encoder = SpeechEncoder(config)
        self.audio_projection = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.Linear(config.hidden_size, output_size), nn.GELU(), nn.Linear(output_size, output_size)
                )
                for name in PROJECTORS
            }
        )

    def forward(self, audios: AudioBatch, attention: Attention) -> tuple[Tensor, tuple[int, ...]]:
        """Encode recordings.

        Returns:
            `[N_1 + N_2 + ..., D]`, the tokens of all recordings in order, and the lengths N_i.
        """
        weight = self.encoder.embed.out.weight
        encoded = self.encoder(audios.features.to(weight), audios.num_frames, attention)
        lengths = tuple(self.encoder.num_tokens(count) for count in audios.num_frames)
        return self.project(encoded, lengths, audios.projectors), lengths

    def project(
        self, encoded: Tensor, lengths: Sequence[int], projectors: Sequence[AudioProjector]
    ) -> Tensor:
        """`[N_1 + N_2 + ..., D_speech]` to `[N_1 + N_2 + ..., D]`, each recording through its projector."""
        if len(set(projectors)) == 1:
            output: Tensor = self.audio_projection[projectors[0]](encoded)
            return output
        pieces = zip(encoded.split_with_sizes(lengths), projectors, strict=True)
        return torch.cat([self.audio_projection[name](piece) for piece, name in pieces])
