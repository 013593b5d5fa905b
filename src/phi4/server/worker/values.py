"""What routes and the processes behind them say to each other, as plain values.

A route turns a body into a `PrepareRequest`; a preparer process turns that into a `Prepared`; the engine
process turns it, with `GenerateOptions`, into `ServerEvent`s. Everything here crosses process borders as
msgpack (`frames`), so it holds numbers, text, bytes, and containers of these, and no behaviour.

Left out on purpose: names of OpenAI's bodies; those belong to the routes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from phi4.types import Detail, FinishReason, Modality, SamplingParams, Timing, Usage

Task = Literal["chat", "completion", "transcribe", "tokenize"]
Overflow = Literal["error", "drop_oldest"]
State = Literal["starting", "ready", "restarting", "failed", "draining", "stopped"]


@dataclass(frozen=True)
class PrepareRequest:
    """What a client sent, after its shape is checked and before anything of it is decoded.

    JSON values are what `json.loads` gives; a medium may also be `bytes` (a part `{"type": "image", "image":
    b"..."}` or `{"type": "audio", "audio": b"..."}`), as the API process puts in place of a URL it fetched.
    Paths and URLs that are still there are refused by the preparer.

    Attributes:
        task: "chat" renders `messages` with the model's template; "completion" continues `prompts` as
            they stand; "transcribe" writes down or translates `audio`; "tokenize" only counts: of `messages`
            when there are any, else of `prompts`.
        messages: The conversation, OpenAI-style dictionaries.
        prompts: Each text or token ids: the rows of a "completion"; "tokenize" counts the first. Text never
            becomes control tokens; ids are taken as they are when they are in the vocabulary.
        tools: Functions the model may call, OpenAI-style (`{"type": "function", "function": {...}}`) or bare.
        tool_choice: "none", "auto", "required", or OpenAI's object that names one function.
        parallel_tool_calls: False = at most one call in an answer.
        response_format: None, or `{"type": "text" | "json_object"}`, `{"type": "json_schema", "json_schema":
            {"schema": ...}}`, `{"type": "regex", "regex": ...}`, `{"type": "grammar", "grammar": ...}`
            (Lark), `{"type": "choice", "choice": [...]}`.
        detail: How closely pictures are looked at that do not say so themselves; None = "auto".
        audio: File of a recording, for "transcribe".
        translate_to: Language to translate `audio` to, English name or ISO 639-1 code; empty = transcribe.
        hot_words: Words the recording is likely to hold, as the client wrote them.
        timestamps: Cut a recording at its pauses even when it is short enough to be heard at once, so that
            its parts have times of their own (srt, vtt, verbose_json).
        adapter: Registered name of a user's adapter; empty = none. Decided by the route from the model name.
        overflow: What to do with a conversation that does not fit: refuse, or leave out its oldest turns.
        max_new_tokens: Room to keep for the answer when `overflow` is "drop_oldest"; None = the default.
    """

    task: Task
    messages: tuple[dict[str, Any], ...] = ()
    prompts: tuple[str | tuple[int, ...], ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    tool_choice: str | dict[str, Any] = "auto"
    parallel_tool_calls: bool = True
    response_format: dict[str, Any] | None = None
    detail: Detail | None = None
    audio: bytes = b""
    translate_to: str = ""
    hot_words: str = ""
    timestamps: bool = False
    adapter: str = ""
    overflow: Overflow = "error"
    max_new_tokens: int | None = None


@dataclass(frozen=True)
class PreparedRow:
    """One prompt, ready for the engine.

    Attributes:
        blob: The prompt as arrays, its grammar and tools; opaque to everybody but the engine process.
        num_prompt_tokens: Positions it takes, media included.
        num_image_tokens: Of those, positions of pictures.
        num_audio_tokens: Of those, positions of recordings.
        default_new_tokens: Longest answer when the client sets no limit: as the operator says, more after
            long recordings, fewer where the context ends.
        room_tokens: Longest answer that fits the context at all.
        start_s: "transcribe": where this part of the recording begins, in seconds.
        end_s: The same, where it ends.
    """

    blob: bytes
    num_prompt_tokens: int
    num_image_tokens: int = 0
    num_audio_tokens: int = 0
    default_new_tokens: int = 0
    room_tokens: int = 0
    start_s: float = 0.0
    end_s: float = 0.0


@dataclass(frozen=True)
class Prepared:
    """A request that can be answered.

    Attributes:
        rows: One for "chat", one per prompt for "completion"; one per part with speech in it for
            "transcribe", in order, none when all is silence; none for "tokenize".
        token_ids: "tokenize" only: the tokens, placeholders of media expanded.
        duration_s: "transcribe": length of the whole recording.
        dropped_messages: Messages left out because of `overflow`.
    """

    rows: tuple[PreparedRow, ...] = ()
    token_ids: tuple[int, ...] = ()
    duration_s: float = 0.0
    dropped_messages: int = 0

    @property
    def num_prompt_tokens(self) -> int:
        """Positions of all rows, or tokens counted."""
        return sum(row.num_prompt_tokens for row in self.rows) or len(self.token_ids)

    @property
    def num_bytes(self) -> int:
        """Memory the rows take until they are answered."""
        return sum(len(row.blob) for row in self.rows)


@dataclass(frozen=True)
class GenerateOptions:
    """How a prepared request is answered.

    Attributes:
        sampling: How tokens are drawn; its `max_new_tokens` is NOT read, see below. `sampling.logprobs` asks
            for log-probabilities (None = none, 0..20 = that many best candidates with each token).
        max_new_tokens: Longest answer; None = each row's `default_new_tokens`. More than the room there is,
            is refused (`ContextOverflow`).
        n: Answers to each row, 1 to `ServerSettings.max_choices`. Answer k of a request with a seed draws
            with seed + k.
        salt: Tenant, for caches: requests with different salts never share one. Routes give the key's name.
        loop_guard: End an answer that repeats itself, with the finish reason "repetition".
        timeout_s: Shorter deadline than the server's, if the client asked for one.
    """

    sampling: SamplingParams = field(default_factory=SamplingParams)
    max_new_tokens: int | None = None
    n: int = 1
    salt: str = ""
    loop_guard: bool = True
    timeout_s: float | None = None


@dataclass(frozen=True)
class ToolCallDelta:
    """A piece of a tool call.

    Attributes:
        index: Number of the call in this answer, from 0.
        id: "call_..." with the first piece of a call, else empty.
        name: The function, with the first piece of a call, else empty.
        arguments: Next characters of the arguments' JSON; all pieces of a call joined are one JSON object.
    """

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(frozen=True)
class Candidate:
    """A token that could have come.

    Attributes:
        token_id: Its id.
        text: What it says; bytes that are no whole character show as U+FFFD.
        token_bytes: Its bytes.
        logprob: Natural log-probability, of the model's own distribution.
    """

    token_id: int
    text: str
    token_bytes: bytes
    logprob: float


@dataclass(frozen=True)
class ScoredToken:
    """A drawn token and the best candidates at its place, best first."""

    token: Candidate
    top: tuple[Candidate, ...] = ()


@dataclass(frozen=True)
class ServerEvent:
    """One piece of one answer.

    Attributes:
        index: Which answer: number of the row times `n`, plus the number of the choice.
        text: Characters that are certain now.
        tool_calls: Pieces of calls.
        logprobs: Of the tokens drawn since the last event; only when asked for. Text of a token may come an
            event later (stop strings, half characters).
        finish_reason: Why this answer ended; set in its last event and only there.
        usage: Token counts of this answer; with `finish_reason`.
        timing: Wall times of this answer inside the engine; with `finish_reason`.
        cached_tokens: Positions of the prompt that were not computed again; with `finish_reason`.
        adapters: Adapter tuple that was active; with `finish_reason`.
        waited_s: How long it waited for its turn, before it came to the engine; with `finish_reason`.
    """

    index: int = 0
    text: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    logprobs: tuple[ScoredToken, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    timing: Timing | None = None
    cached_tokens: int = 0
    adapters: tuple[str, ...] = ()
    waited_s: float = 0.0


@dataclass(frozen=True)
class ModelCard:
    """What the engine process serves; the same from the first start on.

    Attributes:
        name: As `ServerSettings.model` names it, without a path: the last part of one.
        runner: Registry name of the backend.
        device: Where it computes.
        dtype: Type of the arithmetic.
        max_context_tokens: Longest sequence, answer included.
        vocab_size: Entries of a logit row; token ids are below it.
        modalities: Media it takes; "text" always.
        user_adapters: Registered adapters that are loaded, by name.
    """

    name: str
    runner: str
    device: str
    dtype: str
    max_context_tokens: int
    vocab_size: int
    modalities: tuple[Modality, ...] = ("text",)
    user_adapters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Health:
    """How things stand, after asking the engine process itself.

    Attributes:
        state: "ready" is the only one in which requests are taken. "failed" = the engine died at start so
            often that restarting has slowed to once a minute.
        restarts: Times the engine process was started again.
        engine_pid: Its process id; 0 = there is none at the moment.
        answered_ms: How long the engine process took to answer; None = it did not within a second.
        turn_s: How long its loop has been in the turn it is in, 0 = it waits for work; one that lasts longer
            than it honestly can makes the process be killed and the state "restarting".
        running: Answers in the engine.
        waiting: Answers that wait for their turn.
    """

    state: State
    restarts: int = 0
    engine_pid: int = 0
    answered_ms: float | None = None
    turn_s: float = 0.0
    running: int = 0
    waiting: int = 0

    @property
    def ready(self) -> bool:
        """Whether a request sent now would be taken."""
        return self.state == "ready" and self.answered_ms is not None


@dataclass(frozen=True)
class ServerStats:
    """Counters and gauges, at most a second old.

    Attributes:
        engine: Fields of the engine's own statistics (`phi4.engine`), by name; empty before the first answer.
        under_way: Requests that have a ticket.
        running: Answers in the engine.
        waiting: Answers that wait for their turn.
        preparing: Requests that are being prepared, or wait for that.
        held_bytes: Bodies and prepared prompts of all requests under way.
        held_tokens: Prompt tokens and asked-for answer tokens of the same.
        accepted_total: Tickets given.
        rejected_total: Tickets refused, and requests refused later because they did not fit beside others.
        prepared_total: Requests prepared.
        preparer_deaths_total: Preparers that died or were killed.
        engine_restarts_total: Times the engine process was started again.
    """

    engine: dict[str, float] = field(default_factory=dict)
    under_way: int = 0
    running: int = 0
    waiting: int = 0
    preparing: int = 0
    held_bytes: int = 0
    held_tokens: int = 0
    accepted_total: int = 0
    rejected_total: int = 0
    prepared_total: int = 0
    preparer_deaths_total: int = 0
    engine_restarts_total: int = 0
