"""Random requests of every kind, made anew from a number: what engines are tested with.

    works = mixed_works(7, pool, count=5)      # the same five whenever it is called
    answers = answers_of(core, works)

Prompts share beginnings and media, tenants do not; penalties, grammars, loops and scoring all occur.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from phi4.engine.answering.grammar import Grammar
from phi4.engine.answering.guards import LoopLimits
from phi4.engine.core import EngineCore
from phi4.engine.events import TargetScores
from phi4.engine.work import Work
from phi4.shapes import BoolArray, IntArray
from phi4.types import AudioArrays, Completion, ImageArrays, MediaSpan, ModelInputs, SamplingParams

TEXT_IDS = 256
"""Ids below this are text in every tokenizer of this room."""
Outcome = tuple[tuple[int, ...], tuple[float, ...], str]
"""What an answer is compared by: tokens, log-probabilities of given targets, why it ended."""
Medium = TypeVar("Medium", ImageArrays, AudioArrays)


@dataclass(frozen=True)
class Pool:
    """What works are made of.

    Attributes:
        vocab_size: V.
        images: Pictures that may occur.
        audios: Recordings that may occur.
        longest_text: Most tokens of text in a prompt.
        longest_answer: Most tokens of an answer.
    """

    vocab_size: int
    images: tuple[ImageArrays, ...] = ()
    audios: tuple[AudioArrays, ...] = ()
    longest_text: int = 24
    longest_answer: int = 12


class RandomGrammar:
    """Allows half of the text at each place, another half each time, and ends after some tokens.

    Args:
        seed: Which halves.
        vocab_size: V.
        length: Tokens until it is finished.
    """

    def __init__(self, seed: int, vocab_size: int, length: int) -> None:
        self._seed = seed
        self._vocab_size = vocab_size
        self._left = length

    @property
    def finished(self) -> bool:
        """Whether all tokens have come."""
        return self._left <= 0

    def allowed(self) -> BoolArray | None:
        """Half of the text."""
        mask = np.zeros(self._vocab_size, np.bool_)
        mask[np.random.default_rng([self._seed, self._left]).permutation(TEXT_IDS)[: TEXT_IDS // 2]] = True
        return mask

    def accept(self, token_id: int) -> None:
        """One token fewer."""
        mask = self.allowed()
        assert mask is not None and mask[token_id], "a token came that was not allowed"
        self._left -= 1


def mixed_works(seed: int, pool: Pool, count: int) -> list[Work]:
    """`count` works of every kind; grammars in them are fresh at each call."""
    random = np.random.default_rng(seed)
    half = pool.longest_text // 2
    beginnings = [random.integers(0, TEXT_IDS, size) for size in (0, half, half)]
    return [_work(random, pool, beginnings) for _ in range(count)]


def _work(random: np.random.Generator, pool: Pool, beginnings: Sequence[IntArray]) -> Work:
    inputs = _inputs(random, pool, beginnings[int(random.integers(len(beginnings)))])
    scored = random.random() < 0.2
    targets = tuple(random.integers(0, TEXT_IDS, 1 + random.integers(6)).tolist())
    seed, length = int(random.integers(2**32)), 1 + int(random.integers(pool.longest_answer))
    grammar: Grammar | None = None
    if random.random() < 0.25 and not scored:
        grammar = RandomGrammar(seed, pool.vocab_size, length)
    return Work(
        inputs,
        _sampling(random, seed, pool.longest_answer),
        adapters=[(), ("vision",), ("speech",), ("speech", "vision")][random.integers(4)],
        projector="vision" if inputs.images else "speech",
        grammar=grammar,
        salt=["", "a", "b"][random.integers(3)],
        loop_guard=[None, LoopLimits(8, 2, 6)][random.integers(2)],
        targets=targets if scored else None,
    )


def _inputs(random: np.random.Generator, pool: Pool, beginning: IntArray) -> ModelInputs:
    """A beginning, perhaps a picture and a recording, and text of its own."""
    images = _some(random, pool.images)
    audios = _some(random, pool.audios)
    parts, at = [beginning], len(beginning)
    spans: list[MediaSpan] = []
    media: tuple[ImageArrays | AudioArrays, ...] = (*images, *audios)
    for medium in media:
        kind: Literal["image", "audio"] = "image" if isinstance(medium, ImageArrays) else "audio"
        spans.append(MediaSpan(kind, 0, at, medium.num_tokens))
        parts.append(np.zeros(medium.num_tokens, np.int64))
        at += medium.num_tokens
    parts.append(random.integers(0, TEXT_IDS, 1 + random.integers(pool.longest_text // 2)))
    return ModelInputs(np.concatenate(parts), images, audios, tuple(spans))


def _some(random: np.random.Generator, media: tuple[Medium, ...]) -> tuple[Medium, ...]:
    """One of them, or none."""
    return (media[random.integers(len(media))],) if media and random.random() < 0.3 else ()


def _sampling(random: np.random.Generator, seed: int, longest: int) -> SamplingParams:
    biased = random.integers(0, TEXT_IDS, 4).tolist() if random.random() < 0.3 else []
    penalised = random.random() < 0.3
    return SamplingParams(
        temperature=[0.0, 0.7, 1.5][random.integers(3)],
        top_k=[0, 5, 50][random.integers(3)],
        top_p=[1.0, 0.9, 0.5][random.integers(3)],
        seed=seed,
        max_new_tokens=1 + int(random.integers(longest)),
        min_p=[0.0, 0.0, 0.05][random.integers(3)],
        presence_penalty=0.5 * penalised,
        frequency_penalty=0.8 * penalised,
        repetition_penalty=1.3 if penalised else 1.0,
        logit_bias={int(token): 2.5 for token in biased},
        logprobs=[None, 0, 2][random.integers(3)],
    )


def outcome(answer: Completion | TargetScores) -> Outcome:
    """What of an answer may not depend on its company."""
    if isinstance(answer, TargetScores):
        return answer.token_ids, answer.logprobs, "scored"
    return answer.token_ids, (), answer.finish_reason


def answers_of(
    core: EngineCore, works: Sequence[Work], most_steps: int = 10_000
) -> list[Completion | TargetScores]:
    """Run works together to their ends.

    Raises:
        Phi4Error: One of them failed.
    """
    places = {core.submit(work): place for place, work in enumerate(works)}
    found: dict[int, Completion | TargetScores] = {}
    for _ in range(most_steps):
        if not core.busy:
            break
        for event in core.step():
            if event.error is not None:
                raise event.error
            ended = event.scores or (event.delta.completion if event.delta is not None else None)
            if ended is not None:
                found[places[event.id]] = ended
    assert not core.busy, f"not done after {most_steps} steps"
    return [found[place] for place in range(len(works))]
