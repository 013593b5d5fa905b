"""What happens to a conversation that does not fit the context: an error, or its oldest turns are left out.

Nothing is ever cut inside a turn, system messages at the beginning stay, and so does the last turn: what is
left is a conversation a person could have had. A turn is a user message with all that follows it up to the
next one, so that calls are not separated from their results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from phi4.errors import ContextOverflow, InvalidRequest
from phi4.types import Message, ModelInputs

Overflow = Literal["error", "drop_oldest"]


@dataclass(frozen=True)
class Fitted:
    """A conversation that fits.

    Attributes:
        inputs: It as arrays.
        messages: What is left of it.
        num_dropped: Messages left out.
    """

    inputs: ModelInputs
    messages: tuple[Message, ...]
    num_dropped: int = 0


def fit_messages(
    messages: Sequence[Message],
    prepare: Callable[[Sequence[Message]], ModelInputs],
    room_tokens: int,
    overflow: Overflow = "error",
) -> Fitted:
    """Prepare a conversation so that it takes at most `room_tokens` positions.

    Args:
        messages: The conversation.
        prepare: Makes arrays of messages. Called once where all fits, and about log2(turns) times more where
            turns have to go: pictures and recordings that stay are prepared again; videos and files are to be
            read before (`Processor.plain`). It may raise `ContextOverflow` itself.
        room_tokens: Positions there are for the prompt.
        overflow: "error" refuses, "drop_oldest" leaves out as few of the oldest turns as it can.

    Raises:
        InvalidRequest: `overflow` is neither.
        ContextOverflow: It does not fit, or not even its last turn does.
    """
    if overflow not in get_args(Overflow):
        raise InvalidRequest(f"overflow is {overflow!r}; valid are 'error' and 'drop_oldest'")
    starts = _turn_starts(messages)

    def without(turns: int) -> Fitted:
        left = (*messages[: starts[0]], *messages[starts[turns] :]) if turns else tuple(messages)
        inputs = prepare(left)
        if len(inputs.token_ids) > room_tokens:
            raise ContextOverflow(
                f"the prompt has {len(inputs.token_ids)} tokens and there is room for {max(room_tokens, 0)}; "
                "shorten it or ask for fewer new tokens",
                bool(inputs.images),
            )
        return Fitted(inputs, left, len(messages) - len(left))

    try:
        return without(0)
    except ContextOverflow:
        if overflow == "error" or len(starts) < 2:
            raise
    low, high = 0, len(starts) - 1  # without `low` turns it does not fit, without `high` it does
    best = without(high)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            best, high = without(middle), middle
        except ContextOverflow:
            low = middle
    return best


def _turn_starts(messages: Sequence[Message]) -> list[int]:
    """Where turns begin: the first is what follows the leading system messages, whoever speaks in it."""
    head = next((at for at, message in enumerate(messages) if message.role != "system"), len(messages))
    later = [at for at in range(head + 1, len(messages)) if messages[at].role == "user"]
    return [head, *later] if head < len(messages) else []
