"""Answers on their way to the terminal: streamed text, tool calls, statistics, JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from phi4.cli.console import print_json, print_text

if TYPE_CHECKING:
    from phi4.types import Completion, Delta


def stream_answer(deltas: Iterator[Delta]) -> Completion:
    """Write an answer to standard output as it comes, each tool call as a line of JSON; returns the whole."""
    completion = None
    at_line_start = True
    for delta in deltas:
        if delta.text:
            print_text(delta.text, end="")
            at_line_start = delta.text.endswith("\n")
        completion = delta.completion or completion
    if not at_line_start:
        print_text("")
    assert completion is not None, "a stream ends with the completion"
    for call in completion.tool_calls:
        print_json({"name": call.name, "arguments": call.arguments})
    return completion


def note_if_cut(completion: Completion) -> None:
    """Say on standard error that an answer is not whole, and what makes it longer."""
    if completion.finish_reason == "length":
        tokens = completion.usage.completion_tokens
        print(f"(cut at {tokens} tokens; --max-new-tokens N allows more)", file=sys.stderr)


def as_json(completion: Completion) -> dict[str, Any]:
    """A completion for programs; token ids are left out."""
    return {
        "text": completion.text,
        "tool_calls": [{"id": c.id, "name": c.name, "arguments": c.arguments} for c in completion.tool_calls],
        "finish_reason": completion.finish_reason,
        "adapters": list(completion.adapters),
        "usage": completion.usage,
        "timing": completion.timing,
        "tokens_per_s": tokens_per_second(completion),
    }


def tokens_per_second(completion: Completion) -> float | None:
    """Decoding rate after the first token; None when there was no second one."""
    seconds = completion.timing.total_s - completion.timing.first_token_s
    tokens = completion.usage.completion_tokens - 1
    return tokens / seconds if tokens > 0 and seconds > 0 else None


def statistics(completion: Completion) -> str:
    """One line: adapter, tokens, times."""
    usage, timing = completion.usage, completion.timing
    parts = [f"adapter: {'+'.join(completion.adapters) or 'none'}"]
    media = [f"{n} {kind}" for n, kind in ((usage.image_tokens, "image"), (usage.audio_tokens, "audio")) if n]
    prompt = f"prompt: {usage.prompt_tokens} tokens"
    parts.append(prompt + (f" ({', '.join(media)})" if media else ""))
    parts.append(f"answer: {usage.completion_tokens} tokens ({completion.finish_reason})")
    parts.append(f"first token: {1000 * timing.first_token_s:.0f} ms")
    rate = tokens_per_second(completion)
    parts += [f"{rate:.0f} tokens/s"] if rate else []
    parts += [f"LongRoPE crossings: {timing.rope_crossings}"] if timing.rope_crossings else []
    return ", ".join(parts)
