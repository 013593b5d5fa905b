"""Hidden states to what the rows want: drawn tokens, checked drafts, log-probabilities of targets.

Logits exist only for wanted positions, a bounded number at a time, and never leave this file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from phi4.engine.runner import Draw, RowResult, Score, no_result
from phi4.model import Phi4Model
from phi4.torch_runner.forward import Work
from phi4.torch_runner.sampler import DrawRequest, draw_tokens

MAX_LOGIT_ROWS = 64
"""Rows of logits alive at once; 64 released rows in fp32 take 51 MB."""


def batch_results(model: Phi4Model, hidden: Tensor, batch: Sequence[Work]) -> Iterator[tuple[int, RowResult]]:
    """Give every row of a batch what it wants, after `run_batch`; yields (place in the plan, result).

    Accepted drafts stay in the row's cache, the others are forgotten.
    """
    drawing: list[tuple[int, Work]] = []
    for index, item in enumerate(batch):
        want = item.row.want
        if isinstance(want, Draw):
            drawing.append((index, item))
        elif isinstance(want, Score):
            yield item.place, _score(model, hidden[index, : item.count], want)
        else:
            yield item.place, no_result()
    if drawing:
        picked = [
            hidden[index, item.count - 1 - len(item.row.drafts) : item.count] for index, item in drawing
        ]
        works = [item for _, item in drawing]
        logits = model.logits(torch.cat(picked)).float()  # [R, V]
        yield from zip((item.place for item in works), drawn_results(logits, works), strict=True)


def drawn_results(logits: Tensor, works: Sequence[Work]) -> list[RowResult]:
    """Draw for rows whose positions are appended already.

    Args:
        logits: `[R, V]` fp32: for every row its last position without drafts, then one per draft.
        works: The rows.
    """
    draws: list[DrawRequest] = []
    for item in works:
        want, drafts = item.row.want, item.row.drafts
        assert isinstance(want, Draw) and not (drafts and want.allowed is not None)
        first = item.sequence.length - len(drafts)
        draws += [
            DrawRequest(want.sampling, first + i, want.allowed, want.bias, want.scale)
            for i in range(1 + len(drafts))
        ]
    tokens = draw_tokens(logits, draws)
    logprobs = logits.gather(1, tokens[:, None]).squeeze(1) - torch.logsumexp(logits, dim=-1)
    # One transfer for both: every copy from an accelerator waits for it.
    both = torch.stack([tokens.double(), logprobs.double()]).cpu().numpy()
    results: list[RowResult] = []
    at = 0
    for item in works:
        end = at + 1 + len(item.row.drafts)
        results.append(_accept(item, logits[at:end], both[0, at:end].astype(np.int64), both[1, at:end]))
        at = end
    return results


def _accept(item: Work, logits: Tensor, tokens: np.ndarray, logprobs: np.ndarray) -> RowResult:
    want, drafts = item.row.want, item.row.drafts
    assert isinstance(want, Draw)
    good = 0
    while good < len(drafts) and tokens[good] == drafts[good]:
        good += 1
    item.sequence.length -= len(drafts) - good
    if want.num_top is None:
        return replace(no_result(), token_ids=tokens[: good + 1])
    top_ids, top_logprobs = _top(logits[: good + 1], want.num_top)
    empty = np.zeros(0, np.bool_)
    return RowResult(
        tokens[: good + 1], logprobs[: good + 1].astype(np.float32), top_ids, top_logprobs, empty
    )


def _top(logits: Tensor, count: int) -> tuple[np.ndarray, np.ndarray]:
    if not count:
        return np.zeros((len(logits), 0), np.int64), np.zeros((len(logits), 0), np.float32)
    values, ids = torch.sort(torch.log_softmax(logits, dim=-1), dim=-1, descending=True, stable=True)
    return ids[:, :count].cpu().numpy(), values[:, :count].cpu().numpy()


def _score(model: Phi4Model, hidden: Tensor, want: Score) -> RowResult:
    targets = torch.from_numpy(np.asarray(want.targets, np.int64)).to(hidden.device)
    assert len(targets) <= len(hidden)
    logprobs: list[Tensor] = []
    best: list[Tensor] = []
    judged = hidden[len(hidden) - len(targets) :]
    parts = torch.split(judged, MAX_LOGIT_ROWS), torch.split(targets, MAX_LOGIT_ROWS)
    for part, wanted in zip(*parts, strict=True):
        logits = model.logits(part).float()
        logprobs.append(logits.gather(1, wanted[:, None]).squeeze(1) - torch.logsumexp(logits, dim=-1))
        best.append(logits.argmax(dim=-1) == wanted)
    nothing = no_result()
    return RowResult(
        nothing.token_ids,
        torch.cat(logprobs).cpu().numpy(),
        nothing.top_ids,
        nothing.top_logprobs,
        torch.cat(best).cpu().numpy(),
    )
