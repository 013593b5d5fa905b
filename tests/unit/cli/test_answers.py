"""Answers are written as they come and measured honestly."""

from __future__ import annotations

import json

import pytest

from phi4.cli.answers import as_json, statistics, stream_answer, tokens_per_second
from phi4.types import Completion, Delta, Timing, ToolCall, Usage


def completion(text: str = "", tokens: int = 11, calls: tuple[ToolCall, ...] = ()) -> Completion:
    usage, timing = Usage(40, tokens, image_tokens=30), Timing(0.1, 0.1, 0.2, 0.7)
    return Completion(text, (1,) * tokens, calls, "stop", usage, timing, ("vision", "mine"))


def test_rate_leaves_the_first_token_out() -> None:
    assert tokens_per_second(completion(tokens=11)) == pytest.approx(10 / 0.5)
    assert tokens_per_second(completion(tokens=1)) is None


def test_statistics_name_adapters_media_and_times() -> None:
    line = statistics(completion())
    assert line == (
        "adapter: vision+mine, prompt: 40 tokens (30 image), answer: 11 tokens (stop), "
        "first token: 200 ms, 20 tokens/s"
    )


def test_stream_ends_with_exactly_one_line_break(capsys: pytest.CaptureFixture[str]) -> None:
    for pieces in (["Hel", "lo"], ["Hello\n"]):
        deltas = [*(Delta(piece) for piece in pieces), Delta(completion=completion("".join(pieces)))]
        assert stream_answer(iter(deltas)).text == "".join(pieces)
        assert capsys.readouterr().out == "Hello\n"


def test_tool_calls_follow_as_lines_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    call = ToolCall("lamp", {"on": True}, id="call_1")
    stream_answer(iter([Delta(completion=completion(calls=(call,)))]))
    assert json.loads(capsys.readouterr().out) == {"name": "lamp", "arguments": {"on": True}}


def test_json_answer_leaves_token_ids_out_and_keeps_call_ids() -> None:
    call = ToolCall("lamp", {"on": True}, id="call_1")
    answer = as_json(completion("ok", calls=(call,)))
    assert "token_ids" not in answer
    assert answer["tool_calls"] == [{"id": "call_1", "name": "lamp", "arguments": {"on": True}}]
    assert answer["tokens_per_s"] == pytest.approx(20)
