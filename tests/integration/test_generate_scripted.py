"""The generator over a scripted runner: policy without any network."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from phi4.configs import Phi4Config
from phi4.engine.drawing.sampler import draw, log_softmax, pack
from phi4.engine.generator import Generator
from phi4.engine.request import Request
from phi4.engine.runner import Draw, MediaPiece, Nothing, SequenceSpec, StepPlan, StepResult
from phi4.errors import ContextOverflow, InvalidRequest, OutOfMemory
from phi4.processing.recordings import HeardPart
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.testing.scripted import Logits, ScriptedRunner, babbling, saying
from phi4.testing.tiny import tiny_config, write_tiny_tokenizer
from phi4.types import (
    AudioArrays,
    AudioSource,
    Completion,
    ImageArrays,
    MediaSpan,
    Message,
    ModelInputs,
    SamplingParams,
    ToolSpec,
)

VOCAB = 320
NO_MARKERS = SamplingParams(temperature=1.0, seed=3, max_new_tokens=12)


class PlainProcessor:
    """Prompts of these tests are arrays already; only the config is asked for."""

    def __init__(self, config: Phi4Config) -> None:
        self.config = config

    def prepare(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> ModelInputs:
        raise AssertionError("these requests carry arrays")

    def plain(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        return tuple(messages)

    def hear(self, source: AudioSource, **options: object) -> tuple[tuple[HeardPart, ...], float]:
        raise AssertionError("these requests carry arrays")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Phi4Tokenizer:
    return write_tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"), vocab_size=VOCAB)


def make(
    tokenizer: Phi4Tokenizer,
    logits: Logits,
    policy: str = "reference",
    runner: ScriptedRunner | None = None,
    **abilities: object,
) -> Generator:
    runner = runner or ScriptedRunner(logits, VOCAB, **abilities)  # type: ignore[arg-type]
    config = tiny_config(original_max=16, max_positions=64)
    return Generator(runner, PlainProcessor(config), tokenizer, rope_policy=policy)  # type: ignore[arg-type]


def text_row(length: int, seed: int = 0) -> ModelInputs:
    return ModelInputs(np.random.default_rng(seed).integers(0, 256, length))


def media_row(length: int = 10) -> ModelInputs:
    picture = ImageArrays(
        np.zeros((1, 3, 2, 2), np.float32), np.ones((1, 1, 1), np.bool_), (2, 2), 4, "picture"
    )
    voice = AudioArrays(np.zeros((16, 80), np.float32), 2, 0.2, "voice")
    spans = (MediaSpan("image", 0, 1, 4), MediaSpan("audio", 0, 6, 2))
    return ModelInputs(np.arange(length), (picture,), (voice,), spans)


def say(tokenizer: Phi4Tokenizer, text: str, end: bool = True) -> list[int]:
    return [*tokenizer.encode_text(text), *([tokenizer.tokens.end] if end else [])]


def runner_of(generator: Generator) -> ScriptedRunner:
    assert isinstance(generator.runner, ScriptedRunner)
    return generator.runner


def answer(
    tokenizer: Phi4Tokenizer, ids: list[int], sampling: SamplingParams, tools: tuple[ToolSpec, ...] = ()
) -> Completion:
    generator = make(tokenizer, saying(ids, 3, VOCAB))
    request = Request(inputs=text_row(3), sampling=sampling, tools=tools)
    done = generator.generate([request])[0]
    pieces = list(generator.stream(request))
    assert pieces[-1].completion is not None
    assert "".join(piece.text for piece in pieces) == done.text == pieces[-1].completion.text
    assert tuple(call for piece in pieces for call in piece.tool_calls) == done.tool_calls
    assert pieces[-1].completion.token_ids == done.token_ids
    assert runner_of(generator).num_open == runner_of(generator).num_handles == 0
    return done


def test_a_stop_token_ends_the_answer_and_is_not_shown(tokenizer: Phi4Tokenizer) -> None:
    ids = say(tokenizer, "the light")
    done = answer(tokenizer, ids, SamplingParams())
    assert (done.text, done.finish_reason, done.token_ids) == ("the light", "stop", tuple(ids))
    assert done.usage.prompt_tokens == 3 and done.usage.completion_tokens == len(ids)


def test_the_end_of_text_token_ends_the_answer_too(tokenizer: Phi4Tokenizer) -> None:
    ids = [*say(tokenizer, "on", end=False), tokenizer.tokens.endoftext]
    assert answer(tokenizer, ids, SamplingParams()).finish_reason == "stop"


def test_the_length_limit_ends_the_answer(tokenizer: Phi4Tokenizer) -> None:
    ids = say(tokenizer, "xyzwvu")
    done = answer(tokenizer, ids, SamplingParams(max_new_tokens=3))
    assert done.finish_reason == "length"
    assert done.token_ids == tuple(ids[:3])


def test_a_stop_string_split_over_tokens_is_never_shown(tokenizer: Phi4Tokenizer) -> None:
    ids = say(tokenizer, "xyz#!#vw")
    assert len(ids) > 6
    done = answer(tokenizer, ids, SamplingParams(stop=("z#!",)))
    assert (done.text, done.finish_reason) == ("xy", "stop")


def test_a_character_split_over_tokens_comes_whole(tokenizer: Phi4Tokenizer) -> None:
    ids = say(tokenizer, "a€😀b")
    assert len(ids) > 7
    generator = make(tokenizer, saying(ids, 3, VOCAB))
    pieces = [delta.text for delta in generator.stream(Request(inputs=text_row(3)))]
    assert "".join(pieces) == "a€😀b"
    assert not any("\ufffd" in piece for piece in pieces)


def test_a_character_cut_by_the_length_limit_is_marked(tokenizer: Phi4Tokenizer) -> None:
    done = answer(tokenizer, say(tokenizer, "a€"), SamplingParams(max_new_tokens=2))
    assert done.text == "a\ufffd"


def test_calls_are_parsed_only_when_tools_were_offered(tokenizer: Phi4Tokenizer) -> None:
    call = '[{"name": "switch", "arguments": {"on": true}}]'
    tokens = tokenizer.tokens
    assert tokens.tool_call is not None and tokens.tool_call_end is not None
    ids = [tokens.tool_call, *tokenizer.encode_text(call), tokens.tool_call_end, tokens.end]
    tools = (ToolSpec("switch", "switches"),)
    done = answer(tokenizer, ids, SamplingParams(), tools)
    assert done.finish_reason == "tool_calls"
    assert [(c.name, dict(c.arguments)) for c in done.tool_calls] == [("switch", {"on": True})]
    assert done.text.strip() == ""
    plain = answer(tokenizer, ids, SamplingParams())
    assert (plain.text, plain.finish_reason) == (call, "stop")


ABILITIES = [
    {},
    {"max_rows": 2},
    {"max_step_tokens": 3},
    {"mixes_adapters": False},
    {"mixes_prefill_decode": False},
    {"mixes_adapters": False, "mixes_prefill_decode": False, "max_rows": 2, "max_step_tokens": 5},
]


@pytest.mark.parametrize("abilities", ABILITIES, ids=str)
@pytest.mark.parametrize("policy", ["reference", "pin", "short"])
def test_batched_equals_alone_whatever_the_runner_can_do(
    tokenizer: Phi4Tokenizer, abilities: dict[str, object], policy: str
) -> None:
    rows = [text_row(5), media_row(), text_row(17, 1), text_row(1, 2), media_row(14)]
    requests = [
        Request(inputs=row, sampling=SamplingParams(1.0, seed=n, max_new_tokens=4 + 3 * n), adapters=names)
        for n, (row, names) in enumerate(
            zip(rows, [None, None, ("speech",), (), ("speech", "vision")], strict=True)
        )
    ]
    alone = [make(tokenizer, babbling(VOCAB), policy).generate([request])[0] for request in requests]
    generator = make(tokenizer, babbling(VOCAB), policy, **abilities)
    together = generator.generate(requests)
    assert [done.token_ids for done in together] == [done.token_ids for done in alone]
    assert [done.adapters for done in together] == [(), ("vision",), ("speech",), (), ("speech", "vision")]
    assert runner_of(generator).num_open == runner_of(generator).num_handles == 0


def test_a_crossing_feeds_everything_again_and_equals_a_recompute_at_each_step(
    tokenizer: Phi4Tokenizer,
) -> None:
    row = media_row(13)
    logits = babbling(VOCAB)
    generator = make(tokenizer, logits, max_step_tokens=4)
    done = generator.generate([Request(inputs=row, sampling=NO_MARKERS)])[0]
    runner = runner_of(generator)
    # A plain loop: at each step the whole sequence under the regime of its length.
    history = list(runner_history(row))
    expected: list[int] = []
    for _ in range(len(done.token_ids)):
        expected.append(draw(logits(make_spec(len(history)), history), pack(NO_MARKERS, 0), len(history)))
        history.append(expected[-1])
    assert done.token_ids == tuple(expected)
    assert len(history) > 17
    assert done.timing.rope_crossings == 1
    assert [spec.regime for spec in runner.opened] == ["short", "long"]
    after = [row for plan in runner.plans for row in plan.rows if row.slot == runner.plans[-1].rows[0].slot]
    assert any(isinstance(piece, MediaPiece) for row in after for piece in row.pieces)


def runner_history(row: ModelInputs) -> list[int]:
    history = [int(token) for token in row.token_ids]
    for span, medium in zip(row.spans, (*row.images, *row.audios), strict=True):
        value = sum(f"vision{medium.digest}".encode()) + 1
        history[span.start : span.start + span.length] = [-(value + at) for at in range(span.length)]
    return history


@pytest.mark.parametrize(("policy", "regime"), [("pin", "long"), ("short", "short")])
def test_other_policies_never_cross(tokenizer: Phi4Tokenizer, policy: str, regime: str) -> None:
    generator = make(tokenizer, saying([5], 13, VOCAB), policy)
    done = generator.generate([Request(inputs=text_row(13), sampling=SamplingParams(max_new_tokens=10))])[0]
    assert done.timing.rope_crossings == 0
    assert [spec.regime for spec in runner_of(generator).opened] == [regime]


def test_a_prompt_over_the_boundary_starts_long(tokenizer: Phi4Tokenizer) -> None:
    generator = make(tokenizer, saying([5], 17, VOCAB))
    done = generator.generate([Request(inputs=text_row(17), sampling=SamplingParams(max_new_tokens=3))])[0]
    assert done.timing.rope_crossings == 0
    assert [spec.regime for spec in runner_of(generator).opened] == ["long"]


def test_chunks_before_the_last_want_nothing(tokenizer: Phi4Tokenizer) -> None:
    generator = make(tokenizer, saying([5], 10, VOCAB), max_step_tokens=4)
    generator.generate([Request(inputs=text_row(10), sampling=SamplingParams(max_new_tokens=2))])
    rows = [plan.rows[0] for plan in runner_of(generator).plans]
    assert [row.num_positions for row in rows] == [4, 4, 2, 1]
    assert [type(row.want) for row in rows] == [Nothing, Nothing, Draw, Draw]


def test_closing_a_stream_frees_what_the_runner_holds(tokenizer: Phi4Tokenizer) -> None:
    generator = make(tokenizer, babbling(VOCAB))
    runner = runner_of(generator)
    stream = generator.stream(
        Request(inputs=media_row(), sampling=SamplingParams(1.0, seed=1, max_new_tokens=100))
    )
    next(stream)
    assert (runner.num_open, runner.num_handles) == (1, 2)
    stream.close()  # type: ignore[attr-defined]
    assert (runner.num_open, runner.num_handles) == (0, 0)


def test_streams_read_in_turns_share_steps_and_say_what_each_says_alone(tokenizer: Phi4Tokenizer) -> None:
    requests = [
        Request(inputs=text_row(4 + n, n), sampling=SamplingParams(1.0, seed=n, max_new_tokens=9))
        for n in range(3)
    ]
    alone = [make(tokenizer, babbling(VOCAB)).generate([request])[0] for request in requests]
    generator = make(tokenizer, babbling(VOCAB))
    streams = [generator.stream(request) for request in requests]
    last = {}
    while len(last) < 3:
        for number, stream in enumerate(streams):
            for piece in itertools.islice(stream, 1):
                if piece.completion is not None:
                    last[number] = piece.completion
    assert [last[number].token_ids for number in range(3)] == [done.token_ids for done in alone]
    assert max(len(plan.rows) for plan in runner_of(generator).plans) > 1
    assert runner_of(generator).num_open == 0


def test_a_conversation_too_long_may_lose_its_oldest_turns(tokenizer: Phi4Tokenizer) -> None:
    class Processor(PlainProcessor):
        def prepare(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> ModelInputs:
            return text_row(10 * len(messages))

    runner = ScriptedRunner(babbling(VOCAB), VOCAB, max_context_tokens=40)
    processor = Processor(tiny_config(original_max=16, max_positions=64))
    generator = Generator(runner, processor, tokenizer)
    talk = tuple(Message("user", ()) for _ in range(6))
    sampling = SamplingParams(max_new_tokens=5)
    with pytest.raises(ContextOverflow, match="context of 40"):
        generator.generate([Request(talk, sampling=sampling)])
    (done,) = generator.generate([Request(talk, sampling=sampling, overflow="drop_oldest")])
    assert done.usage.prompt_tokens == 30


def test_a_failing_step_frees_what_the_runner_holds(tokenizer: Phi4Tokenizer) -> None:
    def broken(spec: object, history: Sequence[int]) -> np.ndarray:
        raise OutOfMemory("scripted")

    generator = make(tokenizer, broken)
    with pytest.raises(OutOfMemory, match="scripted"):
        generator.generate([Request(inputs=media_row())])
    assert (runner_of(generator).num_open, runner_of(generator).num_handles) == (0, 0)


def test_a_full_cache_makes_requests_wait_instead_of_failing(tokenizer: Phi4Tokenizer) -> None:
    requests = [
        Request(inputs=text_row(6, n), sampling=SamplingParams(1.0, seed=n, max_new_tokens=5))
        for n in range(4)
    ]
    free = make(tokenizer, babbling(VOCAB)).generate(requests)
    tight = make(tokenizer, babbling(VOCAB), capacity_tokens=25)
    assert [a.token_ids for a in tight.generate(requests)] == [a.token_ids for a in free]
    assert max(len(plan.rows) for plan in runner_of(tight).plans) == 2
    with pytest.raises(OutOfMemory):
        make(tokenizer, babbling(VOCAB), capacity_tokens=8).generate(requests)


class CrampedRunner(ScriptedRunner):
    """Has work space for a few rows only, and finds out in the middle of a step."""

    most_rows = 2

    def step(self, plan: StepPlan) -> StepResult:
        result = super().step(plan)
        if len(plan.rows) > self.most_rows:
            raise OutOfMemory("no work space")
        return result


@pytest.mark.parametrize("most_rows", [1, 2, 3])
def test_a_step_without_room_is_done_again_with_fewer_rows_and_changes_no_answer(
    tokenizer: Phi4Tokenizer, most_rows: int
) -> None:
    requests = [
        Request(inputs=media_row(10 + n), sampling=SamplingParams(1.0, seed=n, max_new_tokens=3 + 2 * n))
        for n in range(6)
    ]
    pairs = [(Request(inputs=text_row(5 + 9 * n, n)), "the house on the hill") for n in range(6)]
    free = make(tokenizer, babbling(VOCAB), max_step_tokens=24)
    runner = CrampedRunner(babbling(VOCAB), VOCAB, max_step_tokens=24)
    runner.most_rows = most_rows
    cramped = make(tokenizer, babbling(VOCAB), runner=runner)
    answers = cramped.generate(requests)
    assert [a.token_ids for a in answers] == [a.token_ids for a in free.generate(requests)]
    assert cramped.score_batch(pairs) == free.score_batch(pairs)
    assert (runner.num_open, runner.num_handles) == (0, 0)
    assert max(len(plan.rows) for plan in runner.plans) > most_rows
    runner.most_rows = 0
    with pytest.raises(OutOfMemory, match="no work space"):
        cramped.generate(requests)
    assert (runner.num_open, runner.num_handles) == (0, 0)


def test_score_is_the_log_probability_of_each_target_token(tokenizer: Phi4Tokenizer) -> None:
    logits = babbling(VOCAB)
    row, target = media_row(11), "the house on the hill"
    ids = [*tokenizer.encode_text(target), tokenizer.tokens.end]
    scored = make(tokenizer, logits, max_step_tokens=4).score(
        Request(inputs=row), f" {target}", with_end=True
    )
    assert scored.token_ids == tuple(ids)
    spec = make_spec(len(row.token_ids) + len(ids))
    history = runner_history(row)
    for token, logprob in zip(ids, scored.logprobs, strict=True):
        assert logprob == pytest.approx(float(log_softmax(logits(spec, history))[token]), abs=1e-6)
        history.append(token)
    assert not scored.is_greedy
    assert scored.total == pytest.approx(sum(scored.logprobs))


def make_spec(length: int) -> SequenceSpec:
    return SequenceSpec(("vision",), "long" if length > 16 else "short", 0)


def test_a_target_that_greedy_decoding_says_is_marked(tokenizer: Phi4Tokenizer) -> None:
    ids = say(tokenizer, "open from nine")
    generator = make(tokenizer, saying(ids, 3, VOCAB))
    same, other = generator.score_batch(
        [(Request(inputs=text_row(3)), "open from nine"), (Request(inputs=text_row(3)), "shut")],
        with_end=True,
    )
    assert same.is_greedy and not other.is_greedy
    assert same.total / len(same.logprobs) > other.total / len(other.logprobs)


def test_an_answer_that_cannot_fit_is_refused_before_anything_runs(tokenizer: Phi4Tokenizer) -> None:
    generator = make(tokenizer, saying([5], 3, VOCAB), max_context_tokens=20)
    good = Request(inputs=text_row(3), sampling=SamplingParams(max_new_tokens=17))
    bad = Request(inputs=text_row(3), sampling=SamplingParams(max_new_tokens=18))
    with pytest.raises(ContextOverflow, match="at most 17 new tokens"):
        generator.generate([good, bad])
    assert runner_of(generator).plans == [] and not generator.core.busy
    assert generator.generate([good])[0].finish_reason == "length"
    with pytest.raises(ContextOverflow):
        generator.stream(bad)
    with pytest.raises(ContextOverflow):
        generator.score(Request(inputs=text_row(20)), "x")


def test_impossible_requests_name_what_is_wrong(tokenizer: Phi4Tokenizer) -> None:
    generator = make(tokenizer, saying([5], 3, VOCAB))
    with pytest.raises(InvalidRequest, match="empty"):
        generator.generate([Request(inputs=text_row(0))])
    with pytest.raises(InvalidRequest, match="no tokens"):
        generator.score(Request(inputs=text_row(3)), "  ")
    with pytest.raises(InvalidRequest, match="rope_policy"):
        make(tokenizer, saying([5], 3, VOCAB), "yarn")
