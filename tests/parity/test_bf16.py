"""Greedy tokens in bf16 against the reference in bf16, by the margin rule.

Equal means identical, unless at the first divergence the two best candidates lie closer than 1e-4 in
fp32; such cases are counted in the table, never hidden.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from phi4.model import Phi4Model, make_batch
from phi4.types import ModelInputs

MARGIN = 1e-4
NUM_TOKENS = 12
PROMPTS: dict[str, tuple[int | str, ...]] = {
    "text": tuple(range(5, 25)),
    "other text": (90, 17, 200, 33, 8),
    "padded image": (5, 6, "padded", 7, 8),
    "audio": (5, 6, "second", 7, 8),
    "image and audio": (5, "full", 9, "second", 7, 8),
}


def next_logits(model: Phi4Model, row: ModelInputs) -> torch.Tensor:
    with torch.no_grad():
        return model.logits(model(make_batch([row], ["short"], [()]))[0, -1]).float()


def continued(row: ModelInputs, tokens: list[int]) -> ModelInputs:
    return replace(row, token_ids=np.concatenate((row.token_ids, np.array(tokens, dtype=np.int64))))


@pytest.mark.parity
@pytest.mark.parametrize("name", PROMPTS)
def test_greedy_tokens_equal_the_reference(
    name: str,
    ours: Callable[..., Phi4Model],
    reference: Callable[..., Any],
    prompt: Any,
    media: Any,
    parity_table: Any,
) -> None:
    model, precise, hf = ours(dtype=torch.bfloat16), ours(), reference(dtype=torch.bfloat16)
    model.use_attention("eager")
    case = prompt(*(media.get(item, item) for item in PROMPTS[name]))
    tokens: list[int] = []
    worst, note = 0.0, "identical"
    for _ in range(NUM_TOKENS):
        row = continued(case.row, tokens)
        with torch.no_grad():
            expected = hf(**{**case.kwargs, "input_ids": torch.from_numpy(row.token_ids)[None]}).logits[0, -1]
        mine = next_logits(model, row)
        worst = max(worst, (mine - expected.float()).abs().max().item())
        token = int(expected.argmax())
        if int(mine.argmax()) != token:
            best = next_logits(precise, row).topk(2).values
            margin = float(best[0] - best[1])
            assert margin < MARGIN, f"{name}: token {len(tokens)} differs at a margin of {margin:.3g}"
            note = f"diverged at token {len(tokens)}, margin {margin:.2g}"
            break
        tokens.append(token)
    parity_table.add(f"bf16 greedy, {name}", worst, 0.05, note)
