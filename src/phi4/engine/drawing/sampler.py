"""The reference sampler in numpy: what every runner's draw must equal, token for token.

A draw is a pure function of (logits, parameters, position). Randomness comes from a counter-based
generator keyed by (seed, position), so the same request gives the same tokens in any batch, any
chunking and after any re-prefill. Ties go to the lower token id everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import numpy as np

from phi4.engine.runner import Bias, PackedSampling, Scale
from phi4.errors import InvalidRequest
from phi4.shapes import AnyArray, BoolArray, FloatArray, IntArray
from phi4.types import SamplingParams

MAX_TEMPERATURE = 2.0
MAX_PENALTY = 2.0
MAX_LOGPROBS = 20
MIN_REPETITION = 0.01
"""Of `repetition_penalty`, which divides: logits stay finite."""
# (field, its kind of number, what must hold, what to give instead)
_RULES: tuple[tuple[str, type[Real], Callable[[Any], bool], str], ...] = (
    ("temperature", Real, lambda t: 0.0 <= t <= MAX_TEMPERATURE, f"a number from 0 to {MAX_TEMPERATURE:g}"),
    ("top_p", Real, lambda p: 0.0 < p <= 1.0, "a number above 0 and at most 1"),
    ("min_p", Real, lambda p: 0.0 <= p <= 1.0, "a number from 0 to 1"),
    ("top_k", Integral, lambda k: k >= 0, "0 (all tokens) or a positive whole number"),
    ("max_new_tokens", Integral, lambda n: n >= 1, "a whole number, at least 1"),
    ("seed", Integral, lambda seed: 0 <= seed < 2**64, "an integer from 0 to 2**64 - 1"),
    ("presence_penalty", Real, lambda x: abs(x) <= MAX_PENALTY, "a number from -2 to 2"),
    ("frequency_penalty", Real, lambda x: abs(x) <= MAX_PENALTY, "a number from -2 to 2"),
    ("repetition_penalty", Real, lambda x: MIN_REPETITION <= x <= MAX_PENALTY, "a number from 0.01 to 2"),
    ("logprobs", Integral, lambda n: 0 <= n <= MAX_LOGPROBS, f"a whole number from 0 to {MAX_LOGPROBS}"),
)
_MAY_BE_NONE = ("seed", "logprobs")


def uniform(seed: int, position: int) -> float:
    """The random number in [0, 1) of the draw at `position` of a request with `seed`.

    The top 53 bits of the first output of Philox4x64-10 with key (seed, 0) and counter `position`.

    Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011; `numpy.random.Philox`.
    """
    bits = int(np.random.Philox(key=seed, counter=position).random_raw())
    return (bits >> 11) * 2.0**-53


def pack(params: SamplingParams, fresh_seed: int) -> PackedSampling:
    """Check a user's parameters and turn them into a runner's numbers.

    Args:
        params: As the caller gave them; `logit_bias` is checked by `logit_edits`, which knows the vocabulary.
        fresh_seed: Taken when `params.seed` is None.

    Raises:
        InvalidRequest: A parameter is out of range or no number.
    """
    for name, kind, holds, valid in _RULES:
        value = getattr(params, name)
        if name in _MAY_BE_NONE and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, kind) or not holds(value):
            raise InvalidRequest(f"{name} is {value!r}; give {valid}")
    seed = fresh_seed if params.seed is None else params.seed
    return PackedSampling(
        float(params.temperature), int(params.top_k), float(params.top_p), int(seed), float(params.min_p)
    )


def edited(logits: FloatArray, bias: Bias | None, scale: Scale | None) -> FloatArray:
    """`[V]` logits scaled, then biased, in float32; the same array where there is neither."""
    if bias is None and scale is None:
        return logits
    changed = np.array(logits, np.float32)
    if scale is not None:
        before = changed[scale.ids]
        changed[scale.ids] = np.where(before > 0, before / scale.factors, before * scale.factors)
    if bias is not None:
        changed[bias.ids] += bias.values
    return changed


def draw(
    logits: FloatArray, sampling: PackedSampling, position: int, allowed: BoolArray | None = None
) -> int:
    """Draw one token.

    Forbidden tokens get -inf. Greedy takes the largest logit. Otherwise tokens are ranked by logit and the
    `top_k` first stay; of those the shortest run stays whose probability (of the softmax over the tokens
    still there, at `temperature`, in float64) reaches `top_p`; of those the ones stay that have at least
    `min_p` times the probability of the first; drawn is the first token at which the running sum of
    probability passes `uniform(seed, position)` times the sum of the run.

    Args:
        logits: `[V]`, finite, as `edited` leaves them.
        sampling: Packed parameters.
        position: Place in the sequence where the drawn token will stand.
        allowed: `[V]`, True = may be drawn; None = all. At least one must be allowed.
    """
    scores = np.asarray(logits, np.float32)
    if allowed is not None:
        assert allowed.any(), "a mask that allows no token cannot be drawn from"
        scores = np.where(allowed, scores, np.float32(-np.inf))
    if sampling.temperature == 0.0:
        return int(np.argmax(scores))
    ranked = ranking(scores)
    if sampling.top_k:
        ranked = ranked[: sampling.top_k]
    best = scores[ranked].astype(np.float64)
    below = (best - best[0]) / sampling.temperature  # [kept], log-probability relative to the first's
    running = np.cumsum(np.exp(below))  # [kept], unnormalised
    likely = int(np.count_nonzero(below >= log_share(sampling.min_p)))
    kept = min(nucleus(running, sampling.top_p), likely)
    mass = running[kept - 1]
    chosen = np.searchsorted(running[:kept], uniform(sampling.seed, position) * mass, side="right")
    last = np.searchsorted(
        running[:kept], mass, side="left"
    )  # rounding must not reach tokens of probability 0
    return int(ranked[min(int(chosen), int(last))])


def ranking(scores: FloatArray) -> IntArray:
    """Ids `[V]` by falling score, equal scores by rising id.

    One sort of whole numbers that hold score and id: a stable sort of 200,000 floats takes four times longer.
    """
    bits = (np.asarray(scores, np.float32) + np.float32(0.0)).view(np.uint32)  # -0.0 becomes 0.0
    falling = np.where(bits >> 31, bits, ~(bits | np.uint32(1 << 31)))
    keys = (falling.astype(np.uint64) << np.uint64(32)) | np.arange(len(bits), dtype=np.uint64)
    keys.sort()
    return (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)


def log_share(min_p: float) -> float:
    """`min_p` as what is compared: logits subtract exactly alike everywhere, exponentials do not."""
    return math.log(min_p) if min_p else -math.inf


def nucleus(running: AnyArray, top_p: float) -> int:
    """How many of the ranked tokens stay: the fewest whose `running` sum reaches `top_p` of the whole."""
    if top_p >= 1.0:
        return len(running)
    return min(int(np.searchsorted(running, top_p * running[-1], side="left")) + 1, len(running))


def log_softmax(logits: FloatArray) -> FloatArray:
    """Natural log-probabilities `[..., V]` of the model's own distribution, in float32."""
    shifted = np.asarray(logits, np.float32) - np.max(logits, axis=-1, keepdims=True)
    total = np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))
    return np.asarray(shifted - total, np.float32)


def top_candidates(logprobs: FloatArray, num_top: int) -> tuple[IntArray, FloatArray]:
    """The `num_top` best of `[V]` log-probabilities: ids and values, best first, ties by lower id."""
    ids = ranking(logprobs)[:num_top] if num_top else np.zeros(0, np.int64)
    return ids, logprobs[ids]
