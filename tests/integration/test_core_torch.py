"""The engine on a real (tiny) network: mixed batches against each request alone, by the margin rule.

Equal means: the same tokens, unless a change of the logits by 1e-4 can turn one into the other at the first
place where they differ. Such places are counted and printed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from phi4.configs import regime_for
from phi4.engine.core import EngineCore, text_ids
from phi4.engine.drawing.logit_edits import LogitEdits
from phi4.engine.drawing.sampler import draw, edited, pack
from phi4.engine.events import TargetScores
from phi4.engine.longrope import longrope_policy
from phi4.engine.work import Work
from phi4.model import build_model, make_batch
from phi4.processing.mel import audio_arrays
from phi4.processing.tiles import tile_image
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.testing.media import chirp, ramp_picture
from phi4.testing.mixes import Pool, answers_of, mixed_works
from phi4.testing.tiny import tiny_config, tiny_tensors, write_tiny_tokenizer
from phi4.torch_runner.runner import TorchRunner
from phi4.types import Completion

MARGIN = 1e-4
BOUNDARY = 32


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Phi4Tokenizer:
    return write_tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def machine(tokenizer: Phi4Tokenizer) -> Machine:
    return Machine(tokenizer)


class Machine:
    """One network, engines on it, and the margin at a place where two answers differ."""

    def __init__(self, tokenizer: Phi4Tokenizer) -> None:
        config = tiny_config(original_max=BOUNDARY, max_positions=512)
        assert config.vision is not None and config.speech is not None
        self.config, self.tokenizer = config, tokenizer
        self.model = build_model(config, dict(tiny_tensors(config)).__getitem__, dtype=torch.float32)
        images = tuple(tile_image(ramp_picture(70 + n, 50), config.vision) for n in range(2))
        audios = tuple(audio_arrays(chirp(0.4 + 0.3 * n), config.speech) for n in range(2))
        self.pool = Pool(config.decoder.vocab_size, images, audios, longest_text=40, longest_answer=16)
        self.close_calls = 0
        self.seen: Counter[str] = Counter()

    def engine(self, **options: int) -> EngineCore:
        limits = {name: options.pop(name) for name in ("max_rows", "max_step_tokens") if name in options}
        policy = longrope_policy("reference", self.config.decoder)
        runner = TorchRunner(self.model, **limits)
        return EngineCore(runner, self.tokenizer, policy=policy, prefix_block=8, **options)  # type: ignore[arg-type]

    def same(self, work: Work, alone: Completion | TargetScores, together: Completion | TargetScores) -> None:
        """Hold two answers to one work against each other."""
        if isinstance(alone, TargetScores):
            assert isinstance(together, TargetScores)
            np.testing.assert_allclose(together.logprobs, alone.logprobs, atol=MARGIN)
            return
        assert isinstance(together, Completion)
        if alone.token_ids == together.token_ids:
            assert alone.finish_reason == together.finish_reason
            return
        pairs = list(zip(alone.token_ids, together.token_ids, strict=False))
        place = next(n for n, (left, right) in enumerate(pairs) if left != right)
        pair = set(pairs[place])
        assert pair <= self.near(work, alone.token_ids[:place]), (place, pair)
        self.close_calls += 1

    def near(self, work: Work, tokens: Sequence[int]) -> set[int]:
        """Tokens that may be drawn after `tokens` when the logits move by less than the margin."""
        ids = np.concatenate([work.inputs.token_ids, np.array(tokens, np.int64)])
        whole = replace(work.inputs, token_ids=ids)
        regime = regime_for(self.config.decoder, len(ids), "reference")
        with torch.no_grad():
            hidden = self.model(make_batch([whole], [regime], [work.adapters]))
            logits = self.model.logits(hidden)[0, -1].numpy()
        edits = LogitEdits(work.sampling, text_ids(work.inputs), self.pool.vocab_size)
        for token in tokens:
            edits.push(token)
            if work.grammar is not None:
                work.grammar.accept(token)
        allowed = None if work.grammar is None else work.grammar.allowed()
        logits = edited(logits, edits.bias(), edits.scale())
        random = np.random.default_rng(0)
        moved = [logits + random.uniform(-MARGIN, MARGIN, len(logits)).astype(np.float32) for _ in range(300)]
        return {draw(row, pack(work.sampling, 0), len(ids), allowed) for row in moved}


def check(machine: Machine, seed: int) -> None:
    random = np.random.default_rng(seed)
    count = int(random.integers(2, 7))
    works = mixed_works(seed, machine.pool, count)
    alone = [answers_of(machine.engine(speculate=False), [work])[0] for work in works]
    core = machine.engine(
        max_rows=int(random.integers(1, 6)),
        max_step_tokens=int(random.choice([5, 16, 64, 512])),
        prefix_positions=int(random.choice([0, 300])),
        encoder_tokens=int(random.choice([0, 60])),
    )
    for _ in range(2):  # the second time with what was kept from the first
        together = answers_of(core, mixed_works(seed, machine.pool, count))
        for work, left, right in zip(mixed_works(seed, machine.pool, count), alone, together, strict=True):
            machine.same(work, left, right)
    stats = core.stats()
    machine.seen.update(
        crossings=stats.rope_crossings,
        prefixes=stats.prefix_hits,
        encoders=stats.encoder_hits,
        guesses=stats.accepted,
    )
    core.close()
    runner = core.runner
    assert isinstance(runner, TorchRunner) and (runner.num_open, runner.num_handles) == (0, 0)


def test_mixed_batches_equal_their_requests_alone(machine: Machine) -> None:
    for seed in range(60):
        check(machine, seed)
    assert min(machine.seen.values()) > 20, machine.seen


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_thousand_mixed_batches_equal_their_requests_alone(machine: Machine) -> None:
    machine.close_calls = 0
    for seed in range(1000):
        check(machine, 10_000 + seed)
    print(f"{machine.close_calls} answers differed within {MARGIN}")
    assert machine.close_calls <= 10


def test_a_margin_of_nothing_would_be_noticed(machine: Machine) -> None:
    """The rule is no excuse: an answer under other adapters is not within it."""
    work = next(w for seed in range(50) for w in mixed_works(seed, machine.pool, 4) if plain(w))
    (alone,) = answers_of(machine.engine(), [work])
    other = Work(work.inputs, work.sampling, adapters=("speech",), loop_guard=work.loop_guard)
    (changed,) = answers_of(machine.engine(), [other])
    assert isinstance(alone, Completion) and isinstance(changed, Completion)
    assert alone.token_ids != changed.token_ids
    with pytest.raises(AssertionError):
        machine.same(work, alone, changed)


def plain(work: Work) -> bool:
    long = work.sampling.max_new_tokens >= 8
    return work.targets is None and work.grammar is None and not work.adapters and long
