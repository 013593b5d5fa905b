"""The torch draw equals the numpy reference."""

from __future__ import annotations

import numpy as np
import torch

from phi4.engine.drawing.sampler import draw, edited
from phi4.engine.runner import Bias, PackedSampling, Scale
from phi4.torch_runner.sampler import DrawRequest, draw_tokens

VOCAB = 300


def random_case(random: np.random.Generator) -> tuple[np.ndarray, DrawRequest]:
    logits = random.normal(0, random.choice([0.1, 1.0, 5.0]), VOCAB).astype(np.float32)
    if random.random() < 0.5:
        logits = np.round(logits)  # many ties
    sampling = PackedSampling(
        float(random.choice([0.0, 0.2, 0.7, 1.0, 2.0])),
        int(random.choice([0, 1, 2, 5, 50, 1000])),
        float(random.choice([0.01, 0.3, 0.9, 0.99, 1.0])),
        int(random.integers(2**64, dtype=np.uint64)),
        float(random.choice([0.0, 0.0, 0.02, 0.5, 1.0])),
    )
    allowed = random.random(VOCAB) < 0.2 if random.random() < 0.4 else None
    if allowed is not None:
        allowed[random.integers(VOCAB)] = True
    bias = scale = None
    if random.random() < 0.4:
        ids = random.permutation(VOCAB)[: random.integers(1, 40)]
        bias = Bias(ids, random.normal(0, 3, len(ids)).astype(np.float32))
    if random.random() < 0.4:
        ids = random.permutation(VOCAB)[: random.integers(1, 40)]
        scale = Scale(ids, random.uniform(0.5, 2.0, len(ids)).astype(np.float32))
    return logits, DrawRequest(sampling, int(random.integers(131072)), allowed, bias, scale)


def test_a_thousand_random_draws_equal_the_reference() -> None:
    random = np.random.default_rng(7)
    cases = [random_case(random) for _ in range(1000)]
    expected = [
        draw(edited(logits, d.bias, d.scale), d.sampling, d.position, d.allowed) for logits, d in cases
    ]
    drawn: list[int] = []
    for start in range(0, 1000, 25):  # rows of every kind share a call
        part = cases[start : start + 25]
        drawn += draw_tokens(torch.from_numpy(np.stack([c[0] for c in part])), [c[1] for c in part]).tolist()
    assert drawn == expected


def test_the_input_logits_are_not_changed() -> None:
    logits = torch.randn(2, VOCAB, generator=torch.Generator().manual_seed(0))
    before = logits.clone()
    allowed = np.zeros(VOCAB, np.bool_)
    allowed[3] = True
    bias = Bias(np.array([7]), np.array([50.0], np.float32))
    scale = Scale(np.array([7]), np.array([0.5], np.float32))
    masked = DrawRequest(PackedSampling(), 0, allowed)
    lifted = DrawRequest(PackedSampling(1.0), 0, None, bias, scale)
    assert draw_tokens(logits, [masked, lifted]).tolist() == [3, 7]
    assert torch.equal(logits, before)
