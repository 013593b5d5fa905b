"""The speech encoder: normalisation, subsampling, conformer blocks, windows for long recordings.

What a recording gives alone is the truth; a batch gives the same. Recordings of at most
`max_window_tokens` positions share one padded, masked batch; longer ones are cut into independent
windows, whose zero-padded tail IS attended to, as the released model does for a single recording.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from phi4.configs import SpeechConfig
from phi4.model.attention import Attention
from phi4.model.speech.conformer import ConformerBlock, RelativeBias
from phi4.model.speech.subsampling import MeanVarianceNorm, Subsampling, padding_mask


class SpeechEncoder(nn.Module):
    """Log-mel frames to encoder vectors, one per eight frames."""

    def __init__(self, config: SpeechConfig) -> None:
        super().__init__()
        self.encoder_embedding = MeanVarianceNorm(config.input_size)
        self.embed = Subsampling(config)
        self.relative_attention_bias_layer = RelativeBias(config)
        self.encoders = nn.ModuleList(ConformerBlock(config) for _ in range(config.num_blocks))
        self.window = config.max_window_tokens
        self.num_tokens = config.num_tokens

    def forward(self, features: Tensor, num_frames: Sequence[int], attention: Attention) -> Tensor:
        """Encode a batch of recordings.

        Args:
            features: `[n, A, M]` log-mel, padded on the right.
            num_frames: Real frames of each recording.
            attention: The kernel.

        Returns:
            `[N_1 + N_2 + ..., D]`, the N_i = ceil(num_frames_i / 8) vectors of each recording in order.
        """
        lengths = [self.num_tokens(count) for count in num_frames]
        is_long = [length > self.window for length in lengths]
        encoded, order = [], np.zeros(len(lengths), dtype=np.int64)
        num_vectors = 0
        for long, encode in ((False, self._encode_short), (True, self._encode_long)):
            rows = [row for row, flag in enumerate(is_long) if flag is long]
            if not rows:
                continue
            frames = [num_frames[row] for row in rows]
            chosen = features[:, : max(frames)]
            if len(rows) < len(lengths):
                chosen = chosen[torch.tensor(rows, device=features.device)]
            vectors, stride = encode(chosen, frames, attention)
            order[rows] = num_vectors + np.arange(len(rows)) * stride
            num_vectors += len(vectors)
            encoded.append(vectors)
        places = np.concatenate([first + np.arange(n) for first, n in zip(order, lengths, strict=True)])
        joined = encoded[0] if len(encoded) == 1 else torch.cat(encoded)
        if len(places) == len(joined):
            return joined
        return joined[torch.from_numpy(places).to(features.device)]

    def subsample(self, features: Tensor, num_frames: Sequence[int]) -> Tensor:
        """Normalise and subsample: `[n, A, M]` to `[n, ceil(A / 8), D]`, zero behind each recording's end."""
        subsampled: Tensor = self.embed(self.encoder_embedding(features), num_frames)
        return subsampled

    def run_blocks(self, hidden: Tensor, lengths: Sequence[int] | None, attention: Attention) -> Tensor:
        """`[n, T, D]` to `[n, T, D]`; positions behind `lengths` are not attended to, None = all are real."""
        time = hidden.shape[1]
        mask = None
        if lengths is not None and any(length < time for length in lengths):
            mask = padding_mask(lengths, time, hidden.device)[:, None, None, :]
        bias = self.relative_attention_bias_layer(time)
        for block in self.encoders:
            hidden = block(hidden, mask, bias, attention)
        return hidden

    def _encode_short(
        self, features: Tensor, frames: Sequence[int], attention: Attention
    ) -> tuple[Tensor, int]:
        """Vectors of recordings that fit a window, flattened, and how many each row has, padding included."""
        lengths = [self.num_tokens(count) for count in frames]
        hidden = self.run_blocks(self.subsample(features, frames), lengths, attention)
        return hidden.flatten(0, 1), hidden.shape[1]

    def _encode_long(
        self, features: Tensor, frames: Sequence[int], attention: Attention
    ) -> tuple[Tensor, int]:
        """The same for longer recordings: every window of every recording is a row of one batch."""
        hidden = self.subsample(features, frames)  # [n, T, D]
        hidden = functional.pad(hidden, (0, 0, 0, -hidden.shape[1] % self.window))
        windows = hidden.view(-1, self.window, hidden.shape[2])  # [n * W, window, D]
        return self.run_blocks(windows, None, attention).flatten(0, 1), hidden.shape[1]
