"""Conversations that do not fit: refused by default, or without their oldest turns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from phi4.engine.overflow import fit_messages
from phi4.errors import ContextOverflow, InvalidRequest
from phi4.types import Message, ModelInputs, Role, TextPart


def said(role: Role, text: str) -> Message:
    return Message(role, (TextPart(text),))


TALK = (
    said("system", "be kind"),
    said("user", "one"),
    said("assistant", "first"),
    said("user", "two"),
    said("assistant", "calls"),
    said("tool", "result"),
    said("assistant", "second"),
    said("user", "three"),
)


class Counting:
    """Ten positions a message; refuses more than a context, as a processor does."""

    def __init__(self, context: int = 1000) -> None:
        self.context = context
        self.calls = 0

    def __call__(self, messages: Sequence[Message]) -> ModelInputs:
        self.calls += 1
        if 10 * len(messages) > self.context:
            raise ContextOverflow("over the context")
        return ModelInputs(np.zeros(10 * len(messages), np.int64))


def kept(room: int, context: int = 1000) -> list[str]:
    fitted = fit_messages(TALK, Counting(context), room, "drop_oldest")
    assert len(fitted.inputs.token_ids) == 10 * len(fitted.messages) <= room
    assert fitted.num_dropped == len(TALK) - len(fitted.messages)
    return [part.text for message in fitted.messages for part in message.parts if isinstance(part, TextPart)]


def test_what_fits_is_prepared_once_and_left_alone() -> None:
    prepare = Counting()
    fitted = fit_messages(TALK, prepare, 80, "drop_oldest")
    assert (prepare.calls, fitted.messages, fitted.num_dropped) == (1, TALK, 0)


def test_as_few_turns_go_as_can_and_calls_stay_with_their_results() -> None:
    assert kept(79) == ["be kind", "two", "calls", "result", "second", "three"]
    assert kept(60) == ["be kind", "two", "calls", "result", "second", "three"]
    assert kept(59) == ["be kind", "three"]


def test_a_processor_that_refuses_the_whole_is_no_obstacle() -> None:
    assert kept(60, context=65) == ["be kind", "two", "calls", "result", "second", "three"]


def test_by_default_nothing_is_left_out() -> None:
    with pytest.raises(ContextOverflow, match="80 tokens and there is room for 79; shorten"):
        fit_messages(TALK, Counting(), 79)


def test_the_last_turn_and_the_system_message_are_never_left_out() -> None:
    with pytest.raises(ContextOverflow, match="20 tokens and there is room for 19"):
        fit_messages(TALK, Counting(), 19, "drop_oldest")
    with pytest.raises(ContextOverflow, match="room for 0"):
        fit_messages(TALK[:2], Counting(), -5, "drop_oldest")


def test_many_turns_cost_few_preparations() -> None:
    talk = [message for n in range(500) for message in (said("user", f"{n}"), said("assistant", "yes"))]
    prepare = Counting(100_000)
    fitted = fit_messages(talk, prepare, 1234, "drop_oldest")
    assert len(fitted.messages) == 122
    assert prepare.calls <= 12


def test_a_conversation_without_a_user_is_one_turn() -> None:
    with pytest.raises(ContextOverflow):
        fit_messages([said("assistant", "a"), said("assistant", "b")], Counting(), 10, "drop_oldest")
    with pytest.raises(ContextOverflow):
        fit_messages([said("system", "a")], Counting(), 5, "drop_oldest")


def test_other_policies_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="overflow is 'cut'; valid are 'error' and 'drop_oldest'"):
        fit_messages(TALK, Counting(), 80, "cut")  # type: ignore[arg-type]
