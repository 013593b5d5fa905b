"""Grammars in the engine: every answer of a shared batch keeps its own form, and no neighbour changes it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import numpy as np
import pytest

from phi4.configs import Phi4Config
from phi4.engine.generator import Generator
from phi4.engine.request import Request
from phi4.engine.structured.compiler import GrammarCompiler
from phi4.engine.structured.spec import GrammarSpec
from phi4.engine.structured.tool_choice import plan_tools
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.testing.scripted import Logits, ScriptedRunner, babbling, saying
from phi4.testing.tiny import tiny_config, write_tiny_tokenizer
from phi4.types import Message, ModelInputs, SamplingParams, ToolSpec
from phi4.verify.toolcalls import check_arguments, check_call

VOCAB = 352
TOOLS = [
    {
        "name": "set_light",
        "parameters": {"room": {"type": "str", "enum": ["kitchen", "hall"]}, "on": {"type": "bool"}},
    },
    {"name": "stop", "parameters": {}},
]
SCHEMA = {
    "type": "object",
    "properties": {"on": {"type": "boolean"}, "room": {"enum": ["kitchen", "hall"]}},
    "required": ["on", "room"],
    "additionalProperties": False,
}
SPECS: tuple[GrammarSpec | None, ...] = (
    GrammarSpec("json_schema", json.dumps(SCHEMA)),
    GrammarSpec("regex", "[a-z]{3}-[0-9]{2}"),
    None,
    GrammarSpec("choice", '["yes", "no", "maybe"]'),
    plan_tools(TOOLS, "required", parallel=False).grammar,
)


class Arrays:
    """Prompts of these tests are arrays already."""

    config: Phi4Config = tiny_config(vocab_size=VOCAB)

    def prepare(self, messages: Sequence[Message], tools: Sequence[ToolSpec] = ()) -> ModelInputs:
        raise AssertionError("these requests carry arrays")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Phi4Tokenizer:
    return write_tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"), vocab_size=320)


@pytest.fixture(scope="module")
def compiler(tokenizer: Phi4Tokenizer) -> GrammarCompiler:
    return GrammarCompiler(tokenizer, VOCAB)


def make(tokenizer: Phi4Tokenizer, logits: Logits, **abilities: object) -> Generator:
    runner = ScriptedRunner(logits, VOCAB, **abilities)  # type: ignore[arg-type]
    return Generator(runner, Arrays(), tokenizer)


def prompt(length: int, seed: int) -> ModelInputs:
    return ModelInputs(np.random.default_rng(seed).integers(0, 256, length))


def request(compiler: GrammarCompiler, spec: GrammarSpec | None, seed: int) -> Request:
    calls = spec is not None and spec.kind == "tool_calls"
    return Request(
        inputs=prompt(3 + seed, seed),
        tools=plan_tools(TOOLS).shown if calls else (),
        sampling=SamplingParams(temperature=1.0, seed=seed, max_new_tokens=700),
        grammar=None if spec is None else compiler.compile(spec),
    )


@pytest.mark.parametrize("mixes", [True, False])
def test_every_answer_of_a_batch_has_its_own_form(
    tokenizer: Phi4Tokenizer, compiler: GrammarCompiler, mixes: bool
) -> None:
    generator = make(tokenizer, babbling(VOCAB), mixes_prefill_decode=mixes, verifies_drafts_in_batch=mixes)
    schema, regex, _, choice, call = generator.generate(
        [request(compiler, spec, seed) for seed, spec in enumerate(SPECS)]
    )
    assert {answer.finish_reason for answer in (schema, regex, choice)} == {"stop"}
    assert check_arguments(SCHEMA, json.loads(schema.text)) == ()
    assert re.fullmatch("[a-z]{3}-[0-9]{2}", regex.text)
    assert choice.text in ("yes", "no", "maybe")
    assert call.finish_reason == "tool_calls" and call.text == ""
    assert [check_call(one, plan_tools(TOOLS).shown) for one in call.tool_calls] == [()]


def test_an_answer_with_a_form_is_the_same_alone_and_beside_others(
    tokenizer: Phi4Tokenizer, compiler: GrammarCompiler
) -> None:
    together = make(tokenizer, babbling(VOCAB)).generate(
        [request(compiler, spec, seed) for seed, spec in enumerate(SPECS)]
    )
    for seed, spec in enumerate(SPECS):
        (alone,) = make(tokenizer, babbling(VOCAB)).generate([request(compiler, spec, seed)])
        assert alone.token_ids == together[seed].token_ids


def test_a_call_of_a_tool_that_was_not_offered_becomes_one_that_was(
    tokenizer: Phi4Tokenizer, compiler: GrammarCompiler
) -> None:
    tokens = tokenizer.tokens
    assert tokens.tool_call is not None and tokens.tool_call_end is not None
    wish = '[{"name": "stop_everything", "arguments": {"now": true}}]'
    ids = [*tokenizer.encode_text("Sure."), tokens.tool_call, *tokenizer.encode_text(wish)]
    generator = make(tokenizer, saying([*ids, tokens.tool_call_end, tokens.end], 3, VOCAB))
    plan = plan_tools(TOOLS, parallel=False)
    assert plan.grammar is not None
    done = generator.generate(
        [Request(inputs=prompt(3, 0), tools=plan.shown, grammar=compiler.compile(plan.grammar))]
    )[0]
    assert done.text == "Sure." and done.finish_reason == "tool_calls"
    assert [(call.name, dict(call.arguments)) for call in done.tool_calls] == [("stop", {})]


def test_free_text_under_a_tool_grammar_is_what_it_is_without(
    tokenizer: Phi4Tokenizer, compiler: GrammarCompiler
) -> None:
    """Text repeated from the prompt is guessed ahead, too."""
    said = tokenizer.encode_text("the red house stands on the hill, the blue house stands by the river")
    row = ModelInputs(np.array(said * 2, np.int64))
    plan = plan_tools(TOOLS)
    assert plan.grammar is not None
    answers = [
        make(tokenizer, saying([*said, tokenizer.tokens.end], len(said) * 2, VOCAB)).generate(
            [Request(inputs=row, tools=plan.shown, grammar=grammar)]
        )[0]
        for grammar in (None, compiler.compile(plan.grammar))
    ]
    assert answers[0].token_ids == answers[1].token_ids
    assert answers[1].timing.accepted == answers[0].timing.accepted > 0
