"""The engine as its callers see it: submit and cancel at any time, one last event for each request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from phi4.engine.answering.guards import LoopLimits
from phi4.engine.core import EngineCore
from phi4.engine.drawing.sampler import log_softmax
from phi4.engine.events import TargetScores
from phi4.engine.work import Work
from phi4.errors import ContextOverflow, InvalidRequest
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.processing.tool_json import CALL_BEGIN, CALL_END
from phi4.testing.mixes import RandomGrammar, answers_of
from phi4.testing.scripted import ScriptedRunner, babbling, saying
from phi4.types import Completion, ModelInputs, SamplingParams

VOCAB = 320
Text = Callable[..., ModelInputs]
MakeCore = Callable[..., tuple[EngineCore, ScriptedRunner]]


def drawn(core: EngineCore, *works: Work) -> list[Completion]:
    answers = answers_of(core, works)
    assert all(isinstance(answer, Completion) for answer in answers)
    return answers  # type: ignore[return-value]


def test_requests_may_come_while_others_run(make_core: MakeCore, text: Text) -> None:
    core, runner = make_core()
    works = [Work(text(3 + n, n), SamplingParams(1.0, seed=n, max_new_tokens=8)) for n in range(5)]
    expected = [drawn(make_core()[0], work)[0].token_ids for work in works]
    found: dict[int, tuple[int, ...]] = {}
    for work in works:
        core.submit(work)
        for event in core.step():
            if event.delta is not None and event.delta.completion is not None:
                found[event.id] = event.delta.completion.token_ids
    while core.busy:
        for event in core.step():
            if event.delta is not None and event.delta.completion is not None:
                found[event.id] = event.delta.completion.token_ids
    assert [found[number] for number in sorted(found)] == expected
    assert (runner.num_open, core.stats().running, core.stats().waiting) == (0, 0, 0)


def test_what_cannot_run_is_refused_at_once_and_leaves_nothing(make_core: MakeCore, text: Text) -> None:
    core, runner = make_core(max_context_tokens=20)
    with pytest.raises(ContextOverflow):
        core.submit(Work(text(10), SamplingParams(max_new_tokens=11)))
    with pytest.raises(InvalidRequest, match="min_p"):
        core.check(Work(text(3), SamplingParams(min_p=2.0)))
    assert not core.busy and core.step() == [] and runner.plans == []


def test_text_tokens_and_events_of_an_answer_agree(make_core: MakeCore, text: Text) -> None:
    core, _ = make_core()
    number = core.submit(Work(text(3), SamplingParams(1.0, seed=8, max_new_tokens=12)))
    deltas = []
    while core.busy:
        deltas += [event.delta for event in core.step() if event.delta is not None and event.id == number]
    assert [delta.completion is not None for delta in deltas] == [False] * (len(deltas) - 1) + [True]
    assert "".join(delta.text for delta in deltas) == deltas[-1].completion.text  # type: ignore[union-attr]


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 6])
def test_cancelling_frees_everything_at_once_and_nothing_follows(
    make_core: MakeCore, text: Text, shown: Text, steps: int
) -> None:
    core, runner = make_core(max_step_tokens=4)
    other = core.submit(Work(text(3), SamplingParams(1.0, seed=1, max_new_tokens=30), loop_guard=None))
    number = core.submit(Work(shown(), SamplingParams(1.0, seed=1, max_new_tokens=50), loop_guard=None))
    for _ in range(steps):
        core.step()
    core.cancel(number)
    assert runner.num_handles == 0
    assert runner.num_open == core.stats().running <= 1
    core.cancel(number)
    core.cancel(12345)
    events = []
    while core.busy:
        events += core.step()
    assert {event.id for event in events} == {other}
    assert runner.num_open == 0


def test_scores_and_answers_share_steps(make_core: MakeCore, text: Text) -> None:
    core, runner = make_core(max_step_tokens=8)
    row, targets = text(9), (5, 60, 7, 9)
    plain = Work(text(4), SamplingParams(max_new_tokens=5))
    scores, answer = answers_of(core, [Work(row, targets=targets), plain])
    assert isinstance(scores, TargetScores) and isinstance(answer, Completion)
    history = row.token_ids.tolist()
    for target, logprob in zip(targets, scores.logprobs, strict=True):
        own = log_softmax(babbling(VOCAB)(runner.opened[0], history))
        assert logprob == pytest.approx(float(own[target]))
        history.append(target)
    assert scores.token_ids == targets and core.stats().finished["stop"] >= 1


def test_log_probabilities_are_the_models_own_whatever_changes_the_draw(
    make_core: MakeCore, text: Text
) -> None:
    core, runner = make_core()
    row = text(6)
    changes: dict[str, Any] = {"logit_bias": {44: 9.0}, "frequency_penalty": 1.0}
    sampling = SamplingParams(0.5, seed=3, max_new_tokens=6, logprobs=3, **changes)
    (done,) = drawn(core, Work(row, sampling))
    assert len(done.logprobs) == len(done.token_ids) and 44 in done.token_ids
    history = row.token_ids.tolist()
    for token, entry in zip(done.token_ids, done.logprobs, strict=True):
        own = log_softmax(babbling(VOCAB)(runner.opened[0], history))
        best = np.argsort(-own, kind="stable")[:3]
        assert entry.token_id == token and entry.logprob == pytest.approx(float(own[token]))
        assert entry.top == tuple((int(n), pytest.approx(float(own[n]))) for n in best)
        history.append(token)


@pytest.mark.parametrize(("asked", "entries", "candidates"), [(None, 0, 0), (0, 4, 0), (2, 4, 2)])
def test_only_what_was_asked_for_is_reported(
    make_core: MakeCore, text: Text, asked: int | None, entries: int, candidates: int
) -> None:
    core, _ = make_core(logits=saying([9, 8, 7, 6], 3, VOCAB))
    core.submit(Work(text(3), SamplingParams(max_new_tokens=4, logprobs=asked)))
    deltas = []
    while core.busy:
        deltas += [event.delta for event in core.step() if event.delta is not None]
    done = deltas[-1].completion
    assert done is not None and len(done.logprobs) == entries
    assert all(len(entry.top) == candidates for entry in done.logprobs)
    assert sum((delta.logprobs for delta in deltas), ()) == done.logprobs


def copying(tokenizer: Phi4Tokenizer) -> Any:
    """Logits that say eight tokens again and again, a second choice close behind."""

    def logits(spec: Any, history: Any) -> Any:
        row = np.zeros(VOCAB, np.float32)
        row[20 + len(history) % 8] = 4.0
        row[60] = 3.0
        return row

    return logits


@pytest.mark.parametrize(
    ("params", "guesses"),
    [
        ({}, True),
        ({"logit_bias": {60: 0.5}}, True),
        ({"frequency_penalty": 0.1}, False),
        ({"presence_penalty": 0.1}, False),
        ({"repetition_penalty": 1.1}, False),
    ],
)
def test_penalties_that_follow_the_answer_go_without_guesses(
    make_core: MakeCore, tokenizer: Phi4Tokenizer, params: dict[str, Any], guesses: bool
) -> None:
    core, _ = make_core(logits=copying(tokenizer))
    prompt = ModelInputs(np.array([20 + n % 8 for n in range(16)]))
    (done,) = drawn(core, Work(prompt, SamplingParams(max_new_tokens=24, **params)))
    assert (done.timing.drafted > 0) == guesses
    assert core.stats().drafted == done.timing.drafted and core.stats().accepted == done.timing.accepted


def test_a_frequency_penalty_turns_a_copy_into_something_else(
    make_core: MakeCore, tokenizer: Phi4Tokenizer
) -> None:
    prompt = ModelInputs(np.array([20 + n % 8 for n in range(16)]))
    sampling = SamplingParams(max_new_tokens=24, frequency_penalty=1.5)
    (plain,) = drawn(make_core(logits=copying(tokenizer))[0], Work(prompt, SamplingParams(max_new_tokens=24)))
    (varied,) = drawn(make_core(logits=copying(tokenizer))[0], Work(prompt, sampling))
    assert plain.token_ids == tuple(20 + (16 + n) % 8 for n in range(24))
    # 4.0 the first time, 2.5 the second; the second choice begins at 3.0 and falls by 1.5 when it is said.
    assert varied.token_ids[:10] == (20, 21, 22, 23, 24, 25, 26, 27, 60, 21)


def test_a_loop_ends_with_its_own_reason_and_only_when_the_guard_is_on(
    make_core: MakeCore, text: Text
) -> None:
    work = Work(text(3), SamplingParams(max_new_tokens=100))
    core, _ = make_core(logits=saying([7], 3, VOCAB))
    (looped,) = drawn(core, work)
    assert (looped.finish_reason, len(looped.token_ids)) == ("repetition", 48)
    (unguarded,) = drawn(core, replace(work, loop_guard=None))
    assert (unguarded.finish_reason, len(unguarded.token_ids)) == ("length", 100)
    (strict,) = drawn(core, replace(work, loop_guard=LoopLimits(4, 2, 6)))
    assert len(strict.token_ids) == 6
    assert core.stats().finished == {"repetition": 2, "length": 1}


def test_a_grammar_decides_every_token_and_ends_the_answer(
    make_core: MakeCore, text: Text, tokenizer: Phi4Tokenizer
) -> None:
    core, _ = make_core()
    grammar = RandomGrammar(5, VOCAB, 7)  # asserts that each token was allowed
    (done,) = drawn(core, Work(text(3), SamplingParams(1.2, seed=4), grammar=grammar))
    assert (len(done.token_ids), done.finish_reason, done.timing.drafted) == (7, "stop", 0)
    assert done.text == tokenizer.decode(done.token_ids), "the last token is shown"


class FreeUntil(RandomGrammar):
    """Anything may come until `trigger` does; then three tokens of its own."""

    triggers = frozenset((23,))

    def __init__(self) -> None:
        super().__init__(0, VOCAB, 3)
        self.free = True

    def allowed(self) -> Any:
        return None if self.free else super().allowed()

    def accept(self, token_id: int) -> None:
        if self.free:
            self.free = token_id not in self.triggers
        else:
            super().accept(token_id)


def test_free_text_before_a_trigger_is_guessed_and_what_follows_is_not(
    make_core: MakeCore, tokenizer: Phi4Tokenizer
) -> None:
    core, runner = make_core(logits=copying(tokenizer))
    prompt = ModelInputs(np.array([20 + n % 8 for n in range(21)]))  # 25 is next, 23 in seven tokens
    (done,) = drawn(core, Work(prompt, SamplingParams(max_new_tokens=30), grammar=FreeUntil()))
    assert done.token_ids[:7] == (25, 26, 27, 20, 21, 22, 23)
    assert len(done.token_ids) == 10 and done.finish_reason == "stop"
    assert done.timing.accepted > 0
    assert not any(23 in row.drafts for plan in runner.plans for row in plan.rows)


def test_choices_of_one_prompt_differ_by_seed_and_compute_it_once(make_core: MakeCore, shown: Text) -> None:
    row = shown(length=30)
    works = [Work(row, SamplingParams(1.0, seed=10 + n, max_new_tokens=6)) for n in range(4)]
    expected = [drawn(make_core()[0], work)[0].token_ids for work in works]
    core, runner = make_core()
    found = drawn(core, *works)
    assert [done.token_ids for done in found] == expected and len(set(expected)) == 4
    assert [done.usage.cached_tokens for done in found] == [0, 28, 28, 28]
    stats = core.stats()
    assert (stats.encoder_queries, stats.encoder_hits, stats.prefix_hits) == (8, 6, 84)
    assert runner.num_handles == 0


def test_a_conversation_goes_on_where_its_last_turn_ended(make_core: MakeCore, text: Text) -> None:
    core, runner = make_core(engine={"prefix_positions": 200})
    sampling = SamplingParams(1.0, seed=2, max_new_tokens=9)
    first = text(10)
    (done,) = drawn(core, Work(first, sampling))
    said = [*first.token_ids.tolist(), *done.token_ids, 7, 8, 9]
    again = Work(ModelInputs(np.array(said)), sampling)
    (after,) = drawn(core, again)
    assert after.token_ids == drawn(make_core()[0], again)[0].token_ids
    fed = len(first.token_ids) + len(done.token_ids) - 1
    assert after.usage.cached_tokens == fed - fed % 4
    assert core.stats().kept == 1, "the longer one has taken the place of the shorter"
    core.drop_caches()
    assert (runner.num_open, core.stats().kept_positions) == (0, 0)


def test_tenants_share_nothing(make_core: MakeCore, shown: Text) -> None:
    core, _ = make_core(engine={"prefix_positions": 500, "encoder_tokens": 100})
    row, sampling = shown(length=30), SamplingParams(max_new_tokens=2)
    cached = [drawn(core, Work(row, sampling, salt=salt))[0].usage.cached_tokens for salt in "aabba"]
    assert cached == [0, 28, 0, 28, 28]
    assert core.stats().encoder_hits == 6


def test_other_adapters_and_projectors_share_nothing(make_core: MakeCore, text: Text) -> None:
    core, _ = make_core(engine={"prefix_positions": 500})
    row, sampling = text(30), SamplingParams(max_new_tokens=2)
    for adapters in ((), ("vision",), ("vision", "speech")):
        for projector in ("speech", "vision"):
            work = Work(row, sampling, adapters, projector)  # type: ignore[arg-type]
            (done,) = drawn(core, work)
            assert done.usage.cached_tokens == 0


def test_encoder_outputs_are_kept_for_the_next_turn(make_core: MakeCore, shown: Text) -> None:
    core, runner = make_core(engine={"encoder_tokens": 100})
    for _ in range(3):
        drawn(core, Work(shown(), SamplingParams(max_new_tokens=2)))
    assert (runner.num_handles, core.stats().encoder_hits) == (2, 4)
    core.close()
    assert runner.num_handles == 0


def test_the_share_of_the_cache_in_use_is_told(make_core: MakeCore, text: Text) -> None:
    core, _ = make_core(engine={"cache_positions": 40, "prefix_positions": 40})
    core.submit(Work(text(10), SamplingParams(max_new_tokens=10), loop_guard=None))
    core.submit(Work(text(12, 1), SamplingParams(max_new_tokens=10), loop_guard=None))
    core.step()
    stats = core.stats()
    assert (stats.running, stats.waiting, stats.cache_usage) == (1, 1, 0.5)
    core.close()
    assert core.stats().cache_usage == 0.0 and not core.busy


def test_what_is_kept_of_ended_requests_counts_as_free(make_core: MakeCore, text: Text) -> None:
    core, _ = make_core(engine={"cache_positions": 40, "prefix_positions": 40})
    drawn(core, Work(text(10), SamplingParams(max_new_tokens=10)))
    stats = core.stats()
    assert (stats.kept, stats.cache_usage) == (1, 0.0)
    assert stats.kept_usage == stats.kept_positions / 40 > 0.0
    core.submit(Work(text(12, 1), SamplingParams(max_new_tokens=8)))
    core.step()
    assert core.stats().cache_usage == 0.5
    core.drop_caches()
    assert core.stats().kept_usage == 0.0
    core.close()


def test_markup_of_calls_may_be_left_in_the_text(
    make_core: MakeCore, text: Text, tokenizer: Phi4Tokenizer
) -> None:
    tokens = tokenizer.tokens
    assert tokens.tool_call is not None and tokens.tool_call_end is not None
    call = '[{"name": "lamp", "arguments": {}}]'
    ids = [tokens.tool_call, *tokenizer.encode_text(call), tokens.tool_call_end, tokens.end]
    core, _ = make_core(logits=saying(ids, 3, VOCAB))
    work = Work(text(3), tool_names=("lamp",))
    (parsed,), (raw,) = drawn(core, work), drawn(core, replace(work, keep_markup=True))
    assert (parsed.text.strip(), parsed.finish_reason, len(parsed.tool_calls)) == ("", "tool_calls", 1)
    assert raw.text == f"{CALL_BEGIN}{call}{CALL_END}"
    assert (raw.finish_reason, raw.tool_calls) == ("stop", ())
