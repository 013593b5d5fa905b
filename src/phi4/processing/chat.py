"""The one chat renderer: a conversation becomes text, token ids, loss spans and places for media.

Every turn is `<|ROLE|>` content `<|end|>`, without newlines and without BOS; tools stand in the
system turn. Control ids are placed by the renderer alone and content is encoded apart from them, so
content can never become a control token. White space that the tokenizer file says a control token
swallows is dropped, which makes the ids equal to encoding the whole rendered string.

Choices where the release documents nothing: a `tool` turn is `<|tool_response|>` content `<|end|>`;
calls of an assistant turn are replayed as `<|tool_call|>[...]<|/tool_call|>`; tools without a system
message get a system turn of their own. Templates shipped with a checkpoint are never executed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from phi4.errors import InvalidRequest
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.processing.tools import render_tool_calls, render_tools
from phi4.types import AudioPart, ImagePart, Message, Part, TextPart, ToolSpec

Placement = Literal["inline", "first"]

# What the native library calls white space (the Unicode property White_Space). Python's own
# str.isspace also counts U+001C to U+001F, which would give other ids.
WHITE_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
)


@dataclass(frozen=True)
class MediaSlot:
    """A medium of the prompt: its part, and the index of its one placeholder in `token_ids`."""

    part: ImagePart | AudioPart
    position: int

    @property
    def kind(self) -> Literal["image", "audio"]:
        """Which sort of medium this is."""
        return "image" if isinstance(self.part, ImagePart) else "audio"


@dataclass(frozen=True)
class RenderedChat:
    """A rendered conversation.

    Attributes:
        text: What the model sees, control tokens spelt out; for people and logs, the ids are the truth.
        token_ids: Ids with one placeholder for each medium.
        loss_spans: Half-open ranges of `token_ids` that an assistant has to produce, `<|end|>` included;
            the last one takes in the closing `<|endoftext|>` of the training form.
        media: Media in order of position.
    """

    text: str
    token_ids: tuple[int, ...]
    loss_spans: tuple[tuple[int, int], ...]
    media: tuple[MediaSlot, ...]


class ChatRenderer:
    """Renders conversations for one tokenizer; holds no state of its own."""

    def __init__(self, tokenizer: Phi4Tokenizer) -> None:
        """Use the control ids of this tokenizer."""
        self._tokenizer = tokenizer

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec | Mapping[str, Any]] = (),
        add_generation_prompt: bool = True,
        placement: Placement = "inline",
    ) -> RenderedChat:
        """Render a conversation.

        Args:
            messages: Turns in order.
            tools: Functions the model may call, shown in the first system turn.
            add_generation_prompt: True = end with `<|assistant|>` for the model to go on; False = the
                training form, which ends with `<|endoftext|>`.
            placement: "inline" leaves pictures where they are and puts recordings before the first text of
                their message; "first" puts pictures, then recordings, then text.

        Raises:
            InvalidRequest: No messages, an unknown placement, media in a turn that cannot hold them, or
                content this model has no control token for.
        """
        if not messages:
            raise InvalidRequest("the conversation is empty; give at least one message")
        if placement not in ("inline", "first"):
            raise InvalidRequest(f"placement is {placement!r}; valid are 'inline' and 'first'")
        rows = _Rows(self._tokenizer)
        tools_text = render_tools(tools) if tools else ""
        if tools_text and messages[0].role != "system":
            self._turn(rows, Message("system"), tools_text, placement)
            tools_text = ""
        for message in messages:
            self._turn(rows, message, tools_text, placement)
            tools_text = ""
        tokens = self._tokenizer.tokens
        if add_generation_prompt:
            rows.control(tokens.assistant)
        else:
            rows.control(tokens.endoftext)
            if messages[-1].role == "assistant":
                rows.widen_last_span()
        return rows.finish()

    def _turn(self, rows: _Rows, message: Message, tools_text: str, placement: Placement) -> None:
        tokens = self._tokenizer.tokens
        role = "tool_response" if message.role == "tool" else message.role
        rows.control(tokens.require(role))
        start = rows.length
        for part in _ordered_parts(message, placement):
            if isinstance(part, TextPart):
                rows.text(part.text)
            else:
                assert isinstance(part, ImagePart | AudioPart), "the processor expands videos and files first"
                rows.medium(part)
        if tools_text:
            rows.control(tokens.require("tool"))
            rows.text(tools_text)
            rows.control(tokens.require("tool_end"))
        if message.tool_calls:
            rows.control(tokens.require("tool_call"))
            rows.text(render_tool_calls(message.tool_calls))
            rows.control(tokens.require("tool_call_end"))
        rows.control(tokens.end)
        if message.role == "assistant":
            rows.loss_spans.append((start, rows.length))


def _ordered_parts(message: Message, placement: Placement) -> list[Part]:
    """Order the parts as the model was trained: recordings before the text of their message."""
    parts = [part for part in message.parts if not (isinstance(part, TextPart) and not part.text)]
    audios: list[Part] = [part for part in parts if isinstance(part, AudioPart)]
    others = [part for part in parts if not isinstance(part, AudioPart)]
    if len(parts) > sum(isinstance(part, TextPart) for part in parts) and message.role not in (
        "user",
        "tool",
    ):
        raise InvalidRequest(
            f"a {message.role} message holds a picture or a recording; put it into a user message"
        )
    if placement == "first":
        others.sort(key=lambda part: isinstance(part, TextPart))
    first_text = next((i for i, part in enumerate(others) if isinstance(part, TextPart)), len(others))
    return others[:first_text] + audios + others[first_text:]


@dataclass
class _Rows:
    """Collects pieces; neighbouring text is encoded as one string, between two control tokens."""

    tokenizer: Phi4Tokenizer
    ids: list[int] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    loss_spans: list[tuple[int, int]] = field(default_factory=list)
    media: list[MediaSlot] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)
    swallows_next: bool = False

    @property
    def length(self) -> int:
        """Ids so far; only asked for directly after a control token, when no text is pending."""
        return len(self.ids)

    def text(self, text: str) -> None:
        self.pending.append(text)

    def control(self, token_id: int) -> None:
        token = self.tokenizer.control(token_id)
        self._encode_pending(swallowed_by_next=token.lstrip)
        self.ids.append(token_id)
        self.pieces.append(token.content)
        self.swallows_next = token.rstrip

    def medium(self, part: ImagePart | AudioPart) -> None:
        self.control(self.tokenizer.tokens.require("image" if isinstance(part, ImagePart) else "audio"))
        self.media.append(MediaSlot(part, len(self.ids) - 1))

    def widen_last_span(self) -> None:
        self.loss_spans[-1] = (self.loss_spans[-1][0], len(self.ids))

    def finish(self) -> RenderedChat:
        return RenderedChat("".join(self.pieces), tuple(self.ids), tuple(self.loss_spans), tuple(self.media))

    def _encode_pending(self, swallowed_by_next: bool) -> None:
        text = "".join(self.pending)
        self.pending.clear()
        self.pieces.append(text)
        if self.swallows_next:
            text = text.lstrip(WHITE_SPACE)
        if swallowed_by_next:
            text = text.rstrip(WHITE_SPACE)
        if text:
            self.ids.extend(self.tokenizer.encode_text(text))
