"""Answers of the engine process, on a scripted runner and without the process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phi4.configs import Phi4Config
from phi4.engine.core import EngineCore
from phi4.engine.longrope import longrope_policy
from phi4.engine.structured.compiler import GrammarCompiler
from phi4.engine.structured.spec import GrammarSpec
from phi4.engine.structured.tool_choice import plan_tools
from phi4.processing.processor import Processor
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.server.worker.answers import Answers
from phi4.server.worker.frames import Events, Failed, Frame, Submit
from phi4.server.worker.opening import OpenedEngine
from phi4.server.worker.pace import Pace
from phi4.server.worker.rows import pack_row
from phi4.server.worker.values import GenerateOptions, ModelCard, ServerEvent
from phi4.testing.media import image_bytes, ramp_picture
from phi4.testing.scripted import ScriptedRunner, babbling, saying
from phi4.types import ModelInputs, SamplingParams

PROMPT = ModelInputs(np.array([5, 6, 7, 8], np.int64))
LONG_PROMPT = ModelInputs(np.arange(100, dtype=np.int64) + 5)
KEPT = 400
"""Positions of ended answers that are kept: the prompts of these tests but one are too short for that."""


class Bench:
    """Answers on a scripted runner."""

    def __init__(
        self,
        config: Phi4Config,
        tokenizer: Phi4Tokenizer,
        adapters: tuple[str, ...] = (),
        said: Sequence[int] = (),
    ) -> None:
        vocab = config.decoder.vocab_size
        logits = babbling(vocab)
        if said:
            logits = saying([*said, tokenizer.tokens.end], len(PROMPT.token_ids), vocab)
        self.runner = ScriptedRunner(
            logits, vocab, max_context_tokens=512, adapters=("vision", "speech", *adapters)
        )
        policy = longrope_policy("reference", config.decoder)
        core = EngineCore(self.runner, tokenizer, policy=policy, prefix_positions=KEPT)
        card = ModelCard("tiny", "scripted", "none", "float32", 512, vocab, ("text",), adapters)
        opened = OpenedEngine(core, self.runner, config, tokenizer, Path("nowhere"), card)
        self.ready: list[tuple[int, Future[Any]]] = []
        self.pace = Pace(5.0)
        self.answers = Answers(
            opened,
            GrammarCompiler(tokenizer, vocab),
            self.pace,
            lambda number, done: self.ready.append((number, done)),
        )

    def submit(
        self, first_id: int = 1, count: int = 1, blob: bytes | None = None, **options: Any
    ) -> list[Frame]:
        most, salt = options.pop("max_new_tokens", 8), options.pop("salt", "")
        sampling = SamplingParams(**options)
        blob = pack_row(PROMPT) if blob is None else blob
        return self.answers.submit(
            Submit(first_id, 0, count, blob, GenerateOptions(sampling, salt=salt), most)
        )

    def run(self) -> tuple[dict[int, list[ServerEvent]], dict[int, Failed]]:
        events: dict[int, list[ServerEvent]] = {}
        failed: dict[int, Failed] = {}
        while self.answers.busy:
            for frame in self.answers.step():
                if isinstance(frame, Events):
                    for number, event in frame.items:
                        events.setdefault(number, []).append(event)
                elif isinstance(frame, Failed):
                    failed[frame.id] = frame
        return events, failed

    @property
    def is_empty(self) -> bool:
        answers = self.answers
        held = (answers._wordings, answers._in_core, answers._names, answers._compiling)
        kept = answers.stats()["kept"]  # for prompts that begin alike
        return not any(held) and self.runner.num_open == kept and not self.runner.num_handles


@pytest.fixture
def bench(served_config: Phi4Config, served_tokenizer: Phi4Tokenizer) -> Bench:
    return Bench(served_config, served_tokenizer)


def text(events: list[ServerEvent]) -> str:
    return "".join(event.text for event in events)


def test_an_answer_ends_with_one_event_that_says_why(bench: Bench) -> None:
    assert bench.submit(first_id=41) == []
    events, failed = bench.run()
    assert not failed and list(events) == [41]
    reasons = [event.finish_reason for event in events[41]]
    assert reasons[-1] in ("length", "stop") and not any(reasons[:-1])
    usage = events[41][-1].usage
    assert usage is not None and usage.prompt_tokens == 4
    assert bench.is_empty


def test_choices_differ_by_seed_and_repeat_with_it(bench: Bench) -> None:
    bench.submit(1, 3, temperature=1.0, seed=7, max_new_tokens=20)
    first, _ = bench.run()
    bench.submit(11, 3, temperature=1.0, seed=7, max_new_tokens=20)
    second, _ = bench.run()
    assert [text(first[n]) for n in (1, 2, 3)] == [text(second[n]) for n in (11, 12, 13)]
    assert len({text(first[n]) for n in (1, 2, 3)}) > 1
    assert [first[n][-1].index for n in (1, 2, 3)] == [0, 1, 2]
    bench.submit(21, 1, temperature=1.0, seed=8, max_new_tokens=20)
    assert text(bench.run()[0][21]) == text(first[2])


@pytest.mark.parametrize(
    "options", [{"temperature": -1.0}, {"top_p": 0.0}, {"max_new_tokens": 600}, {"seed": -1}]
)
def test_what_the_engine_refuses_fails_all_answers_of_the_row(bench: Bench, options: dict[str, Any]) -> None:
    found = bench.submit(5, 2, **options)
    assert [frame.id for frame in found if isinstance(frame, Failed)] == [5, 6]
    assert bench.is_empty


def test_a_broken_row_fails_and_leaves_the_others_alone(bench: Bench) -> None:
    bench.submit(1)
    found = bench.submit(2, blob=b"nonsense")
    assert isinstance(found[0], Failed) and found[0].failure.kind == "InvalidRequest"
    assert list(bench.run()[0]) == [1]


def test_an_adapter_nobody_registered_is_refused(bench: Bench) -> None:
    found = bench.submit(blob=pack_row(PROMPT, adapter="mine"))
    assert [frame.failure.message for frame in found if isinstance(frame, Failed)] == [
        "no adapter named 'mine' is loaded"
    ]


def test_a_registered_adapter_is_added(served_config: Phi4Config, served_tokenizer: Phi4Tokenizer) -> None:
    bench = Bench(served_config, served_tokenizer, ("mine",))
    bench.submit(1, blob=pack_row(PROMPT, adapter="mine"))
    bench.submit(2)
    events, _ = bench.run()
    assert events[1][-1].adapters == ("mine",) and events[2][-1].adapters == ()


def test_keys_share_no_beginning_of_a_prompt(bench: Bench) -> None:
    cached = []
    for number, salt in enumerate(("mine", "mine", "yours", "", "yours")):
        bench.submit(number, blob=pack_row(LONG_PROMPT), salt=salt)
        cached.append(bench.run()[0][number][-1].cached_tokens)
    assert cached == [0, 96, 0, 0, 96]


def test_cancelled_answers_free_everything_at_once(bench: Bench) -> None:
    bench.submit(1, 3, max_new_tokens=200)
    bench.answers.step()
    bench.answers.cancel((1, 2, 3, 99))
    assert bench.is_empty and not bench.answers.busy


def finish(bench: Bench, count: int) -> list[Frame]:
    found: list[Frame] = []
    for number, done in [bench.ready.pop(0) for _ in range(count)]:
        found += bench.answers.compiled(number, done)
    return found


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.005)


def test_an_answer_with_a_form_begins_when_that_is_compiled(bench: Bench) -> None:
    blob = pack_row(PROMPT, grammar=GrammarSpec("choice", '["yes", "no"]'))
    assert bench.submit(1, 2, blob=blob) == []
    assert not bench.answers.busy
    wait_for(lambda: len(bench.ready) == 2)
    assert finish(bench, 2) == []
    events, failed = bench.run()
    assert not failed
    assert {text(events[1]), text(events[2])} <= {"yes", "no"}


def test_a_row_that_offers_tools_calls_them(bench: Bench) -> None:
    plan = plan_tools([{"name": "stop", "parameters": {}}], "required")
    bench.submit(1, blob=pack_row(PROMPT, tool_names=plan.names, grammar=plan.grammar), max_new_tokens=64)
    wait_for(lambda: len(bench.ready) == 1)
    finish(bench, 1)
    events, failed = bench.run()
    assert not failed and bench.is_empty
    names = [piece.name for event in events[1] for piece in event.tool_calls if piece.name]
    assert names and set(names) == {"stop"} and text(events[1]) == ""


def test_a_row_whose_calls_no_grammar_holds_says_text(
    served_config: Phi4Config, served_tokenizer: Phi4Tokenizer
) -> None:
    tokens = served_tokenizer.tokens
    call = '[{"name": "add", "arguments": {"a": 1}}]'
    begin, end = tokens.require("tool_call"), tokens.require("tool_call_end")
    said = [begin, *served_tokenizer.encode_text(call), end]
    bench = Bench(served_config, served_tokenizer, said=said)
    bench.submit(1, blob=pack_row(PROMPT, tool_names=("add",)), max_new_tokens=200)
    events, failed = bench.run()
    assert not failed and text(events[1]) == call
    assert not any(event.tool_calls for event in events[1]) and events[1][-1].finish_reason == "stop"


ADD = {"name": "add", "parameters": {"a": {"type": "int"}}}


@pytest.mark.parametrize(
    ("call", "names"),
    [
        ('{"name": "add", "arguments": {"a": 1}}', ["add"]),
        ('{"name": "add", "arguments": {"a": "x"}}', []),
        ('{"name": "rm_rf", "arguments": {"a": 1}}', []),
    ],
)
@pytest.mark.parametrize("dialect", ["functools[{}]", "<|tool_call|>[{}]<|/tool_call|>", "```json\n{}\n```"])
def test_calls_in_free_text_are_of_tools_on_offer_or_text(
    served_config: Phi4Config, served_tokenizer: Phi4Tokenizer, dialect: str, call: str, names: list[str]
) -> None:
    said = dialect.replace("{}", call)
    bench = Bench(served_config, served_tokenizer, said=served_tokenizer.encode_text(said))
    plan = plan_tools([ADD])
    bench.submit(1, blob=pack_row(PROMPT, tool_names=plan.names, grammar=plan.grammar), max_new_tokens=200)
    wait_for(lambda: len(bench.ready) == 1)
    finish(bench, 1)
    events, failed = bench.run()
    assert not failed
    assert [piece.name for event in events[1] for piece in event.tool_calls if piece.name] == names
    assert text(events[1]) == ("" if names else said)
    assert events[1][-1].finish_reason == ("tool_calls" if names else "stop")


def test_a_form_that_cannot_be_compiled_fails_its_answer(bench: Bench) -> None:
    bench.submit(1, blob=pack_row(PROMPT, grammar=GrammarSpec("regex", "(")))
    wait_for(lambda: len(bench.ready) == 1)
    (found,) = finish(bench, 1)
    assert isinstance(found, Failed) and found.failure.kind == "InvalidRequest"
    assert bench.is_empty


def test_an_answer_cancelled_while_its_form_is_compiled_never_begins(bench: Bench) -> None:
    bench.submit(1, blob=pack_row(PROMPT, grammar=GrammarSpec("regex", "a+")))
    bench.answers.cancel((1,))
    wait_for(lambda: len(bench.ready) == 1)
    assert finish(bench, 1) == [] and not bench.answers.busy and bench.is_empty


def test_statistics_are_plain_numbers(bench: Bench) -> None:
    bench.submit(1)
    bench.run()
    stats = bench.answers.stats()
    assert stats["generation_tokens"] >= 1 and stats["running"] == 0
    assert sum(value for name, value in stats.items() if name.startswith("finished_")) == 1
    assert all(type(value) is float for value in stats.values())


def test_the_largest_medium_under_way_is_reckoned_with(
    bench: Bench, served_config: Phi4Config, served_tokenizer: Phi4Tokenizer
) -> None:
    bench.pace.saw_encoding(10.0, 1)
    part = {"type": "image", "image": image_bytes("PNG", ramp_picture(60, 60))}
    inputs = Processor(served_config, served_tokenizer).prepare([{"role": "user", "content": [part]}])
    bench.submit(1, blob=pack_row(inputs), max_new_tokens=2)
    assert bench.pace.allowed_s > 40.0
    bench.run()
    assert bench.pace.allowed_s == 5.0
