"""From drawn tokens to what the caller sees: text without control tokens, tool calls, the reason for the end.

One `Answer` per request strings small parts together, in this order: the rules that end it (grammar, loop
guard, stop tokens, length limit), incremental detokenizer, stop strings, tool-call parser. Streaming and
non-streaming callers get the same text because both read it from here. Stop strings are looked for in text,
not in a native call: an argument may say anything.
"""

from __future__ import annotations

from collections.abc import Sequence

from phi4.engine.answering.stop import EndRule, StopStrings, StopTokens
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.processing.tool_json import CALL_BEGIN, CALL_END
from phi4.processing.tool_parser import ToolCallParser, join_events
from phi4.types import Completion, FinishReason, Timing, TokenLogprob, ToolCall, Usage


class Answer:
    """Text, calls and end of one answer.

    Args:
        tokenizer: Turns ids into text and names the stop ids.
        stop: The caller's stop strings.
        max_new_tokens: Length limit, stop token included.
        tool_names: Functions the prompt offered. Without any the answer is not searched: JSON stays text.
            Control tokens give no text; with tools the parser is told of the two around a call.
        rules: More rules that may end it, asked before stop tokens and the length limit.
        keep_markup: Leave calls in the text, between `CALL_BEGIN` and `CALL_END`, for a caller that has a
            parser of its own.
    """

    def __init__(
        self,
        tokenizer: Phi4Tokenizer,
        stop: tuple[str, ...],
        max_new_tokens: int,
        tool_names: tuple[str, ...] = (),
        *,
        rules: Sequence[EndRule] = (),
        keep_markup: bool = False,
    ) -> None:
        self._rules = (*rules, StopTokens(tokenizer.tokens.stop_ids, max_new_tokens))
        self._strings = StopStrings(stop)
        self._detokenizer = tokenizer.detokenizer()
        self._silent = tokenizer.control_ids  # stop ids among them
        marks = {tokenizer.tokens.tool_call: CALL_BEGIN, tokenizer.tokens.tool_call_end: CALL_END}
        self._marks = marks if tool_names else {}
        self._in_call = False
        self._parser = ToolCallParser(tool_names) if tool_names and not keep_markup else None
        self._text: list[str] = []
        self._calls: list[ToolCall] = []
        self._reason: FinishReason | None = None
        self._num_tokens = 0

    @property
    def finished(self) -> bool:
        """Whether the answer has ended."""
        return self._reason is not None

    def push(self, token_id: int) -> tuple[str, tuple[ToolCall, ...]]:
        """Add one drawn token; returns the text and the calls that are certain now."""
        assert self._reason is None, "the answer has ended"
        self._num_tokens += 1
        reasons = (rule.check(token_id, self._num_tokens) for rule in self._rules)
        self._reason = next((reason for reason in reasons if reason is not None), None)
        text = ""
        if token_id in self._marks:
            text = self._marked(self._marks[token_id])
        elif token_id not in self._silent:
            text = self._said(self._detokenizer.push([token_id]))
        if self.finished and not self._strings.stopped:
            text += self._all_said()
        if self._strings.stopped:
            self._reason = "stop"
        return self._show(text)

    def _said(self, text: str) -> str:
        """What of new text can be shown."""
        return text if self._in_call else self._strings.push(text)

    def _all_said(self) -> str:
        """What can be shown of what was held back, when nothing follows that could belong to it."""
        return self._said(self._detokenizer.flush()) + self._strings.flush()

    def _marked(self, mark: str) -> str:
        text = self._all_said()
        self._in_call = mark == CALL_BEGIN
        return text if self._strings.stopped else text + mark

    def _show(self, text: str) -> tuple[str, tuple[ToolCall, ...]]:
        calls: tuple[ToolCall, ...] = ()
        if self._parser is not None:
            events = self._parser.push(text)
            found = join_events([*events, *(self._parser.flush() if self.finished else ())])
            text, calls = found.text, found.calls
        self._text.append(text)
        self._calls += calls
        return text, calls

    def completion(
        self,
        token_ids: tuple[int, ...],
        usage: Usage,
        timing: Timing,
        adapters: tuple[str, ...],
        logprobs: tuple[TokenLogprob, ...] = (),
    ) -> Completion:
        """The answer as it stands; one that has not ended counts as cancelled."""
        reason: FinishReason = self._reason or "cancelled"
        if reason == "stop" and self._calls:
            reason = "tool_calls"
        text, calls = "".join(self._text), tuple(self._calls)
        return Completion(text, token_ids, calls, reason, usage, timing, adapters, logprobs)
