"""The draw on the device, equal to `phi4.engine.drawing.sampler` token for token.

Random numbers come from the same counter-based generator, computed on the host (one number a row), so
no generator state lives on the device. Running sums are taken in float64 on both sides: the order of
additions then matters less than the gap between any random number and a threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from phi4.engine.drawing.sampler import log_share, uniform
from phi4.engine.runner import Bias, PackedSampling, Scale
from phi4.shapes import BoolArray, FloatArray, IntArray


@dataclass(frozen=True)
class DrawRequest:
    """One draw: parameters, place in the sequence of the drawn token, and changes of its logits before."""

    sampling: PackedSampling
    position: int
    allowed: BoolArray | None = None
    bias: Bias | None = None
    scale: Scale | None = None


def draw_tokens(logits: Tensor, draws: Sequence[DrawRequest]) -> Tensor:
    """Draw one token a row.

    Args:
        logits: `[R, V]` fp32.
        draws: One per row.

    Returns:
        `[R]` int64 on the device of the logits.
    """
    logits = _edited(logits, draws)
    masked = [row for row, draw in enumerate(draws) if draw.allowed is not None]
    if masked:
        allowed = np.stack([np.asarray(draws[row].allowed) for row in masked])
        assert allowed.any(axis=1).all(), "a mask that allows no token cannot be drawn from"
        rows = torch.tensor(masked, device=logits.device)
        forbidden = ~torch.from_numpy(allowed).to(logits.device)
        logits = logits.index_copy(0, rows, logits[rows].masked_fill(forbidden, float("-inf")))
    tokens = logits.argmax(dim=-1)  # the first of equals
    sampled = [row for row, draw in enumerate(draws) if draw.sampling.temperature > 0]
    if sampled:
        rows = torch.tensor(sampled, device=logits.device)
        tokens[rows] = _sample(logits[rows], [draws[row] for row in sampled])
    return tokens


def _edited(logits: Tensor, draws: Sequence[DrawRequest]) -> Tensor:
    """Logits scaled, then biased, as `phi4.engine.drawing.sampler.edited` does; the input stays as it is."""
    scales = [(row, d.scale.ids, d.scale.factors) for row, d in enumerate(draws) if d.scale is not None]
    if scales:
        places, factors = _entries(scales, logits.device)
        before = logits[places]
        logits = logits.index_put(places, torch.where(before > 0, before / factors, before * factors))
    biases = [(row, d.bias.ids, d.bias.values) for row, d in enumerate(draws) if d.bias is not None]
    if biases:
        places, values = _entries(biases, logits.device)
        logits = logits.index_put(places, logits[places] + values)
    return logits


def _entries(
    parts: Sequence[tuple[int, IntArray, FloatArray]], device: torch.device
) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Sparse vectors of rows as ((row, token), number), `[n]` each."""
    rows = np.repeat([row for row, _, _ in parts], [len(ids) for _, ids, _ in parts])
    columns = np.concatenate([ids for _, ids, _ in parts])
    numbers = np.concatenate([values for _, _, values in parts])
    found = [torch.from_numpy(array).to(device) for array in (rows, columns, numbers)]
    return (found[0], found[1]), found[2]


def _sample(logits: Tensor, draws: Sequence[DrawRequest]) -> Tensor:
    """`[R, V]` logits of rows with a temperature above 0 to `[R]` tokens."""
    vocab = logits.shape[1]
    numbers = np.array(
        [
            (
                draw.sampling.temperature,
                draw.sampling.top_p,
                uniform(draw.sampling.seed, draw.position),
                min(draw.sampling.top_k or vocab, vocab),
                log_share(draw.sampling.min_p),
            )
            for draw in draws
        ],
        np.float64,
    )
    columns = torch.from_numpy(numbers).to(logits.device)
    temperature, top_p, random, top_k, share = columns[:, :, None].unbind(1)  # [R, 1] each
    width = int(numbers[:, 3].max())
    best, ranked = torch.sort(
        logits, dim=-1, descending=True, stable=True
    )  # equal logits stay in order of id
    best = best[:, :width].double()
    place = torch.arange(width, device=logits.device)
    below = (best - best[:, :1]) / temperature
    weights = torch.exp(below).masked_fill(place >= top_k, 0.0)
    running = torch.cumsum(weights, dim=-1)  # [R, width], unnormalised
    reached = torch.searchsorted(running, top_p * running[:, -1:])
    kept = torch.where(top_p < 1.0, torch.minimum(reached + 1, top_k.long()), top_k.long())  # [R, 1]
    kept = torch.minimum(kept, (below >= share).sum(dim=-1, keepdim=True))
    mass = running.gather(1, kept - 1)
    chosen = torch.searchsorted(running, random * mass, right=True)
    last = torch.searchsorted(running, mass)  # rounding must not reach tokens of probability 0
    return ranked.gather(1, torch.minimum(chosen, last)).squeeze(1)
