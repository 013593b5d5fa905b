"""What a preparer does: a client's messages, prompt or recording become rows the engine can take.

    preparing = Preparing(processor, compiler, settings, max_context_tokens)
    preparing.prepare(PrepareRequest("chat", messages=(...)))

Everything that costs time or memory because of what a client sent happens here, under a deadline and a limit
of memory: decoding media, tokenising, cutting recordings, compiling the form of an answer. No weights are
loaded.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from phi4.engine.overflow import fit_messages
from phi4.engine.preparing import LoadedProcessor
from phi4.engine.structured.compiler import GrammarCompiler
from phi4.engine.structured.response_format import response_grammar
from phi4.engine.structured.spec import GrammarSpec
from phi4.engine.structured.tool_choice import ToolPlan, plan_tools
from phi4.errors import ContextOverflow, InvalidMedia, InvalidRequest
from phi4.processing.detail import with_detail
from phi4.processing.messages import parse_messages
from phi4.processing.processor import Processor
from phi4.processing.prompts import transcribe_message, translate_message
from phi4.processing.speech_signs import DEFAULT_JUDGE, SpeechJudge
from phi4.server.settings import ServerSettings
from phi4.server.worker.pointing import pointed
from phi4.server.worker.rows import pack_row
from phi4.server.worker.values import Prepared, PreparedRow, PrepareRequest
from phi4.types import Message, ModelInputs, TextPart


class Preparing:
    """Prepares requests for one model.

    Args:
        processor: Opens neither files nor URLs.
        compiler: Tries the forms of answers.
        settings: The limits.
        max_context_tokens: Longest sequence the runner takes.
        judge: Says which frames of a recording sound like speech.
    """

    def __init__(
        self,
        processor: Processor,
        compiler: GrammarCompiler,
        settings: ServerSettings,
        max_context_tokens: int,
        judge: SpeechJudge = DEFAULT_JUDGE,
    ) -> None:
        self._processor = processor
        self._loaded = LoadedProcessor(processor, settings.max_crops, settings.placement, judge)
        self._compiler = compiler
        self._settings = settings
        self._context = max_context_tokens

    def prepare(self, request: PrepareRequest) -> Prepared:
        """Prepare one request.

        Raises:
            InvalidRequest: It cannot be answered as it stands; says what to change.
            ContextOverflow: It does not fit the context.
            MissingExtra: It needs a library that is not installed here.
        """
        if request.task == "chat":
            return self._chat(request)
        if request.task == "completion":
            return self._completion(request)
        if request.task == "transcribe":
            return self._transcribe(request)
        return self._tokenize(request)

    def _chat(self, request: PrepareRequest) -> Prepared:
        plan = plan_tools(
            request.tools,
            request.tool_choice,
            parallel=request.parallel_tool_calls,
            answer=response_grammar(request.response_format),
        )
        self._try(plan.grammar)
        messages = self._messages(request)
        with pointed(request, messages):
            fitted = fit_messages(
                self._loaded.plain(messages),
                lambda messages: self._loaded.prepare(messages, tools=plan.shown),
                self._prompt_room(request),
                request.overflow,
            )
            row = self._row(fitted.inputs, plan, request.adapter)
            return Prepared(tuple(self._checked([row])), dropped_messages=fitted.num_dropped)

    def _completion(self, request: PrepareRequest) -> Prepared:
        if not request.prompts:
            raise InvalidRequest("there is no prompt; give text, or token ids")
        if len(request.prompts) > self._settings.max_rows:
            raise InvalidRequest(
                f"{len(request.prompts)} prompts are more than the {self._settings.max_rows} possible at once"
            )
        plan = ToolPlan(grammar=response_grammar(request.response_format))
        self._try(plan.grammar)
        rows = [
            self._row(_text_inputs(self._token_ids(prompt)), plan, request.adapter)
            for prompt in request.prompts
        ]
        return Prepared(tuple(self._checked(rows)))

    def _transcribe(self, request: PrepareRequest) -> Prepared:
        try:
            parts, duration_s = self._loaded.hear(request.audio, timestamps=request.timestamps)
        except InvalidMedia as error:
            raise InvalidMedia(f"file: {error}") from None
        rows = []
        for part in parts:
            if request.translate_to:
                message = translate_message(part.audio, request.translate_to, hot_words=request.hot_words)
            else:
                message = transcribe_message(part.audio, request.hot_words)
            inputs = self._loaded.prepare([message])
            rows.append(self._row(inputs, ToolPlan(), request.adapter, (part.start_s, part.end_s)))
            if len(rows) > self._settings.max_rows:
                raise InvalidRequest(
                    f"the recording has over {self._settings.max_rows} parts with speech; send it in pieces"
                )
        return Prepared(tuple(self._checked(rows)), duration_s=duration_s)

    def _tokenize(self, request: PrepareRequest) -> Prepared:
        if request.messages:
            plan = plan_tools(request.tools, request.tool_choice)
            messages = self._messages(request)
            with pointed(request, messages):
                inputs = self._loaded.prepare(messages, tools=plan.shown)
            return Prepared(token_ids=tuple(inputs.token_ids.tolist()))
        if not request.prompts:
            raise InvalidRequest("there is nothing to count; give messages, or a prompt")
        return Prepared(token_ids=tuple(self._token_ids(request.prompts[0], may_be_empty=True)))

    def _messages(self, request: PrepareRequest) -> Sequence[Message]:
        messages = with_detail(parse_messages(request.messages), request.detail)
        num_media = sum(not isinstance(part, TextPart) for message in messages for part in message.parts)
        if num_media > self._settings.max_media:
            raise InvalidRequest(
                f"{num_media} pictures, recordings and files are more than the {self._settings.max_media} "
                "possible in one request; send fewer"
            )
        return messages

    def _token_ids(self, prompt: str | tuple[int, ...], may_be_empty: bool = False) -> list[int]:
        tokenizer = self._processor.tokenizer
        ids = tokenizer.encode_text(prompt) if isinstance(prompt, str) else list(prompt)
        media = (tokenizer.tokens.image, tokenizer.tokens.audio)
        for token_id in ids:
            if not 0 <= token_id < tokenizer.vocab_size or token_id in media:
                raise InvalidRequest(
                    f"the prompt has the token id {token_id}; give ids below {tokenizer.vocab_size} that "
                    "stand for text"
                )
        if not ids and not may_be_empty:
            raise InvalidRequest("the prompt is empty; give at least one token")
        return ids

    def _try(self, grammar: GrammarSpec | None) -> None:
        """Compile a form of an answer here, where it may fail; the engine then does it again."""
        if grammar is not None:
            self._compiler.compile(grammar)

    def _prompt_room(self, request: PrepareRequest) -> int:
        """Tokens a conversation may take: when turns are left out, the answer has the room it may need."""
        if request.overflow == "error":
            return self._context - 1
        kept = min(request.max_new_tokens or self._settings.default_new_tokens, self._context - 1)
        return min(self._context - kept, self._settings.max_prompt_tokens or self._context)

    def _row(
        self,
        inputs: ModelInputs,
        plan: ToolPlan,
        adapter: str,
        times_s: tuple[float, float] = (0.0, 0.0),
    ) -> PreparedRow:
        length = len(inputs.token_ids)
        room = self._context - length
        if room < 1:
            raise ContextOverflow(
                f"the prompt has {length} tokens, and the context of {self._context} has no room left "
                "for an answer; shorten the prompt",
                bool(inputs.images),
            )
        images, audios = (
            sum(span.length for span in inputs.spans if span.kind == kind) for kind in ("image", "audio")
        )
        # Words never take more tokens than their sound.
        wanted = max(self._settings.default_new_tokens, audios)
        blob = pack_row(inputs, tool_names=plan.names, grammar=plan.grammar, adapter=adapter)
        return PreparedRow(blob, length, images, audios, min(wanted, room), room, *times_s)

    def _checked(self, rows: list[PreparedRow]) -> list[PreparedRow]:
        most = self._settings.max_prompt_tokens
        total = sum(row.num_prompt_tokens for row in rows)
        if most is not None and total > most:
            raise ContextOverflow(
                f"the prompt has {total} tokens; this server takes at most {most} in one request",
                any(row.num_image_tokens for row in rows),
            )
        return rows


def _text_inputs(token_ids: Sequence[int]) -> ModelInputs:
    return ModelInputs(np.asarray(token_ids, np.int64))
