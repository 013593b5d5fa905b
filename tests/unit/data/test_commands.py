"""Commands: the expected call can be run, says what was asked, and is refused when no tool fits."""

from __future__ import annotations

import json

from phi4.data import generate
from phi4.data.world.commands import REFUSAL, REFUSAL_SHARE, SYSTEM, speakable
from phi4.data.world.tools import TOOLS
from phi4.processing.tools import normalise_tools, render_tools
from phi4.types import TextPart
from phi4.verify import check_call

RECORDS = [generate("command", split, i) for split in ("train", "test") for i in range(400)]


def said(record: object) -> str:
    return "".join(p.text for p in record.messages[-1].parts if isinstance(p, TextPart))


def test_calls_fit_the_schema_of_an_offered_tool() -> None:
    for record in RECORDS:
        for call in record.reply.tool_calls:
            assert check_call(call, record.tools) == ()


def test_two_to_four_tools_of_different_names_are_offered() -> None:
    for record in RECORDS:
        names = [tool.name for tool in record.tools]
        assert 2 <= len(names) <= 4 and len(set(names)) == len(names)


def test_numbers_and_words_of_the_call_were_said() -> None:
    for record in RECORDS:
        for call in record.reply.tool_calls:
            for value in call.arguments.values():
                spoken = {True: "Lock", False: "Unlock"}.get(value) if isinstance(value, bool) else str(value)
                spoken = {"open": ("Open", "Raise"), "close": ("Close", "Lower")}.get(spoken, (spoken,))
                assert any(word in said(record) for word in spoken), (said(record), call)


def test_refusals_come_when_and_only_when_no_tool_fits() -> None:
    purposes = {tool.description: set(tool.names) for tool in TOOLS}
    refused = 0
    for record in RECORDS:
        offered = {tool.description for tool in record.tools}
        assert offered <= set(purposes)
        if not record.reply.tool_calls:
            refused += 1
            assert record.answers == (REFUSAL,)
    assert abs(refused / len(RECORDS) - REFUSAL_SHARE) < 0.04


def test_tools_go_by_several_names_and_never_share_one() -> None:
    names = [name for tool in TOOLS for name in tool.names]
    assert len(set(names)) == len(names)
    used = {tool.name for record in RECORDS for tool in record.tools}
    assert used == set(names)


def test_every_slot_of_a_template_is_an_argument() -> None:
    for tool in TOOLS:
        for template in tool.templates:
            assert all(f"{{{slot}}}" in template for slot in tool.arguments), template


def test_definitions_are_short_and_survive_the_parser() -> None:
    for record in RECORDS[:50]:
        text = render_tools(record.tools)
        assert len(text) < 600
        again = normalise_tools(json.loads(text))
        assert [tool.name for tool in again] == [tool.name for tool in record.tools]


def test_answers_are_the_call_as_json() -> None:
    for record in RECORDS:
        if record.reply.tool_calls:
            (call,) = json.loads(record.answers[0])
            assert call == {
                "name": record.reply.tool_calls[0].name,
                "arguments": dict(record.reply.tool_calls[0].arguments),
            }


def test_the_system_message_stands_first() -> None:
    assert all(r.messages[0].role == "system" and r.messages[0].parts[0].text == SYSTEM for r in RECORDS)


def test_commands_are_spoken_without_digits_or_marks() -> None:
    assert speakable("Wake me on Monday at 7, please.") == "wake me on monday at seven please"
    spoken = generate("spoken_command", "test", 0)
    words = spoken.metadata["spoken"]
    assert words.replace(" ", "").isalpha() and words == words.lower()
