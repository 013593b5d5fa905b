"""One request to an engine: arrays in, nothing left to prepare; and the checks it passes before it may wait.

`Generator` makes works of messages; a server makes them in another process and sends them over. Whatever
could break a step is refused here, since a step is shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from phi4.configs.routing import AudioProjector
from phi4.engine.answering.grammar import Grammar
from phi4.engine.answering.guards import LoopLimits
from phi4.engine.answering.stop import checked_stops
from phi4.engine.drawing.logit_edits import checked_bias
from phi4.engine.drawing.sampler import pack
from phi4.engine.runner import RunnerInfo
from phi4.errors import ContextOverflow, InvalidRequest
from phi4.shapes import IntArray
from phi4.types import AudioArrays, ImageArrays, ModelInputs, SamplingParams


@dataclass(frozen=True)
class Work:
    """A prompt and what is wanted of it.

    Attributes:
        inputs: The prompt.
        sampling: How to draw.
        adapters: Ordered adapter tuple, see `phi4.engine.adapters.choose_adapters`.
        projector: Audio projector, from the same place.
        tool_names: Functions the prompt offered.
        keep_markup: As for `Answer`.
        grammar: What may be drawn, fresh for this answer; None = anything.
        salt: Tenant: works of different salts share no cache, so none can time another's prompts.
        loop_guard: When the answer counts as a loop and ends; None = never.
        targets: Tokens to judge instead of drawing any; None = draw.
    """

    inputs: ModelInputs
    sampling: SamplingParams = field(default_factory=SamplingParams)
    adapters: tuple[str, ...] = ()
    projector: AudioProjector = "speech"
    tool_names: tuple[str, ...] = ()
    keep_markup: bool = False
    grammar: Grammar | None = None
    salt: str = ""
    loop_guard: LoopLimits | None = field(default_factory=LoopLimits)
    targets: tuple[int, ...] | None = None

    @property
    def answer_tokens(self) -> int:
        """Positions it may add to the prompt."""
        return self.sampling.max_new_tokens if self.targets is None else len(self.targets)


def check_work(work: Work, info: RunnerInfo) -> None:
    """Refuse what cannot run.

    Raises:
        InvalidRequest: The prompt is empty or has ids or media at impossible places, or a parameter is out of
            its range.
        ContextOverflow: The prompt with its answer does not fit the context.
    """
    _check_prompt(work.inputs, info.vocab_size)
    if len(set(work.adapters)) != len(work.adapters):
        raise InvalidRequest(f"an adapter stands twice in {work.adapters}; name each once")
    if work.targets is None:
        pack(work.sampling, 0)
        checked_stops(work.sampling.stop)
        checked_bias(work.sampling.logit_bias, info.vocab_size)
    elif not work.targets:
        raise InvalidRequest("there is nothing to judge; give at least one target token")
    else:
        _check_ids(np.asarray(work.targets, np.int64), info.vocab_size)
    length, limit = len(work.inputs.token_ids), info.max_context_tokens
    if length + work.answer_tokens > limit:
        raise ContextOverflow(
            f"the prompt has {length} tokens and the answer may take {work.answer_tokens}, together "
            f"over the model's context of {limit}; shorten the prompt or ask for at most "
            f"{max(limit - length, 0)} new tokens"
        )


def _check_prompt(inputs: ModelInputs, vocab_size: int) -> None:
    if not len(inputs.token_ids):
        raise InvalidRequest("the prompt is empty; give at least one token")
    _check_ids(np.asarray(inputs.token_ids, np.int64), vocab_size)
    at = 0
    seen = {"image": 0, "audio": 0}
    media: dict[str, Sequence[ImageArrays | AudioArrays]] = {"image": inputs.images, "audio": inputs.audios}
    for span in inputs.spans:
        fits = at <= span.start and span.length > 0 and span.start + span.length <= len(inputs.token_ids)
        known = span.kind in media and span.index == seen[span.kind] < len(media[span.kind])
        if not (fits and known and span.length == media[span.kind][span.index].num_tokens):
            raise InvalidRequest(f"{span} does not fit the prompt or its media; let a processor prepare it")
        seen[span.kind] += 1
        at = span.start + span.length
    if any(seen[kind] != len(media[kind]) for kind in seen):
        raise InvalidRequest("the prompt has media without a place; let a processor prepare it")


def _check_ids(ids: IntArray, vocab_size: int) -> None:
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= vocab_size:
        wrong = low if low < 0 else high
        raise InvalidRequest(f"the token {wrong} is not in the vocabulary; ids go from 0 to {vocab_size - 1}")
