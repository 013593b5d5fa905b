"""The front door: `load` a model, then chat, stream, transcribe, translate, score.

    model = phi4.load("nano")
    print(model.chat("What does it say?", images="sign.png").text)

Messages are a plain string or OpenAI-style dictionaries; results are typed. Everything below goes
through one `Generator`, so what holds for it (sharing steps, cancelling, timing) holds here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np

from phi4.checkpoint import load_adapter, resolve_model
from phi4.configs import Phi4Config, RopePolicy, VisionConfig
from phi4.engine.adapters import check_user_adapter, warn_without_adapter
from phi4.engine.answering.stop import checked_stops
from phi4.engine.generator import Generator, TargetScores
from phi4.engine.longrope import check_rope_policy
from phi4.engine.preparing import LoadedProcessor, check_choices
from phi4.engine.request import Request
from phi4.engine.runner import ModelRunner, RunnerInfo
from phi4.errors import InvalidRequest
from phi4.processing.chat import Placement
from phi4.processing.detail import picture_costs, with_detail
from phi4.processing.images import picture_size
from phi4.processing.media import DEFAULT_LIMITS, MediaLimits
from phi4.processing.messages import parse_messages
from phi4.processing.processor import Processor
from phi4.processing.prompts import (
    HotWords,
    checked_hot_words,
    language_name,
    transcribe_message,
    translate_message,
)
from phi4.processing.speech_segments import SpeechSettings
from phi4.processing.stitching import Transcript, TranscriptSegment, stitch
from phi4.processing.tiles import TilePlan, tile_image
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.processing.tools import normalise_tools
from phi4.registry import (
    RUNNERS,
    asked_runner,
    check_runner,
    find_form,
    merged_adapter,
    open_judge,
    open_model,
    open_runner,
    with_provider,
)
from phi4.together import at_once
from phi4.types import (
    AudioSource,
    Completion,
    Delta,
    Detail,
    ImageArrays,
    ImageSource,
    Message,
    Modality,
    SamplingParams,
    ToolSpec,
)

_WAITED_FOR = ("cpu", "openvino")
"""Devices whose work is done when a call returns."""
Conversation = str | Sequence[Message | Mapping[str, Any]]
"""A question, or the turns so far as dictionaries with role and content."""


def load(
    name: str | Path = "nano",
    *,
    device: str | None = None,
    dtype: str | None = None,
    modalities: Sequence[Modality] | None = None,
    rope_policy: RopePolicy = "reference",
    attention: str | None = None,
    adapter: str | Path | None = None,
    runner: str | None = None,
    provider: str | None = None,
    allow_remote: bool = False,
    max_crops: int | None = None,
    placement: Placement = "inline",
    limits: MediaLimits = DEFAULT_LIMITS,
    speculate: bool = True,
    voice_activity: str | Path | None = None,
) -> Phi4:
    """Load a model.

    Args:
        name: "nano" (built in), a directory in any released layout, or a hub id, perhaps with `@revision`.
        device: As torch spells it; None = a GPU where there is one. Both runners have "cpu".
        dtype: "float32", "bfloat16" or "float16"; None = float32 for a small model, else bfloat16.
        modalities: Parts to load now, and no others; None = text now, encoders and adapters on first use.
        rope_policy: "reference" prefills a row again when it crosses the LongRoPE boundary, as the reference
            implementation does; "pin" decides once per request; "short" never changes.
        attention: "sdpa", "eager" or "flash"; None = the best the device supports.
        adapter: Directory of a LoRA of your own (PEFT layout), added to each request's modality adapter; its
            name is the folder's, anything but "vision" and "speech".
        runner: "onnx" or "torch"; None = ONNX Runtime where the model has a package and neither dtype,
            attention nor a device but "cpu" is asked for, else PyTorch.
        provider: Execution provider of ONNX Runtime, such as "openvino"; asks for the onnx runner. None = its
            CPU provider. Others come with other builds of ONNX Runtime, see docs/onnx.md.
        allow_remote: Fetch pictures and recordings given as http(s) URLs, from public addresses only.
        max_crops: Local crops a picture may use, fewer = less detail, fewer tokens; None = the model's limit.
        placement: "inline" leaves pictures where they are in a message and puts recordings before its text;
            "first" puts pictures, then recordings, then text.
        limits: What a picture or a recording may cost, see `phi4.processing.media.MediaLimits`.
        speculate: Guess tokens that stood before in the same order and check several in one step: answers
            that copy from the prompt come faster, and none changes beyond rounding.
        voice_activity: An ONNX file in the interface of Silero VAD 5 and 6, which then judges where in a
            recording somebody speaks; None = energy and spectrum do, without a model. See docs/media.md.

    Raises:
        ModelNotFound: Nothing of that name.
        InvalidArtifact: Its files are broken, hostile or do not fit each other.
        InvalidRequest: An option that cannot be had, before anything is fetched if no file is needed to know.
        MissingExtra: The backend is not installed.
    """
    parts = _parts(modalities)
    check_rope_policy(rope_policy)
    check_choices(max_crops, placement, limits)
    check_user_adapter(None if adapter is None else Path(adapter).resolve().name)
    runner, device = with_provider(runner, device, provider)
    options = {"device": device, "dtype": dtype, "attention": attention}
    asked = asked_runner(runner, **options)
    if asked is not None:
        check_runner(asked, **options)
    judge = open_judge(voice_activity)
    chosen, found = find_form(name, runner, **options)
    if asked is None:
        check_runner(chosen, **options)
    files = open_model(chosen, found if isinstance(found, Path) else resolve_model(name, parts), parts)
    config = files.config

    def read_processor() -> LoadedProcessor:
        tokenizer = Phi4Tokenizer.load(files.path, config.decoder.vocab_size)
        processor = Processor(config, tokenizer, limits=limits, allow_remote=allow_remote)
        return LoadedProcessor(processor, max_crops, placement, judge)

    def open_backend() -> tuple[ModelRunner, str | None]:
        own = None if adapter is None else load_adapter(adapter, config)
        if merged_adapter(files) is None:
            warn_without_adapter(config, parts)
        backend = open_runner(chosen, files, modalities=parts, **options, adapter=own, batch_invariant=False)
        return backend, None if own is None else own.config.name

    if RUNNERS[chosen].beside:
        prepares, (backend, own) = at_once(read_processor, open_backend)
    else:
        prepares, (backend, own) = read_processor(), open_backend()
    tokenizer = prepares.processor.tokenizer
    generator = Generator(
        backend, prepares, tokenizer, rope_policy=rope_policy, user_adapter=own, speculate=speculate
    )
    return Phi4(generator, files.path, max_crops)


def _parts(modalities: Sequence[Modality] | None) -> tuple[Modality, ...] | None:
    if modalities is None:
        return None
    valid = get_args(Modality)
    wrong = [part for part in modalities if part not in valid]
    if wrong or isinstance(modalities, str):
        raise InvalidRequest(f"modalities = {modalities!r}: give a list of {', '.join(valid)}")
    return tuple(part for part in valid if part == "text" or part in modalities)


class Phi4:
    """A loaded model. Used by one thread at a time.

    Args:
        generator: Runner, processor and tokenizer put together.
        path: Where the weights came from.
        max_crops: Limit of local crops its processor keeps to; None = the config's.
    """

    def __init__(self, generator: Generator, path: Path | None = None, max_crops: int | None = None) -> None:
        self.generator = generator
        self.path = path
        self._max_crops = max_crops

    @property
    def config(self) -> Phi4Config:
        """What the model is."""
        return self.generator.processor.config

    @property
    def tokenizer(self) -> Phi4Tokenizer:
        """Its tokenizer."""
        return self.generator.tokenizer

    @property
    def info(self) -> RunnerInfo:
        """Device, arithmetic, attention, limits."""
        return self.generator.runner.info

    def chat(
        self,
        messages: Conversation,
        images: ImageSource | Sequence[ImageSource] | None = (),
        audio: AudioSource | Sequence[AudioSource] | None = (),
        tools: Sequence[ToolSpec | Mapping[str, Any]] | None = (),
        *,
        detail: Detail | None = None,
        sampling: SamplingParams | None = None,
        **options: Any,
    ) -> Completion:
        """Answer a conversation.

        Args:
            messages: A question, or the turns so far.
            images: Pictures (one or several) to put before the last user message; None = none.
            audio: Recordings (one or several) to put there, after the pictures.
            tools: Functions the model may call, in JSON-schema form or the model card's short form. A call in
                the answer may name another one, and its arguments are not checked.
            detail: How closely those pictures are looked at that do not say so themselves: "high" or "auto" =
                as the reference does, "low" = as few crops as can be; see `picture_costs`. None = "auto".
            sampling: How to draw; None = greedy, up to 512 tokens (more after long recordings).
            options: Single fields of `SamplingParams`, such as `temperature=0.7`; they win over `sampling`.
                `stop` may also be one string, or None.

        Raises:
            InvalidRequest: The conversation or an option is malformed.
            InvalidMedia: A picture or a recording cannot be used.
            ContextOverflow: The prompt with its answer is too long.
            OutOfMemory: No room for the sequence.
        """
        request = self._request(messages, images, audio, tools, sampling, options, detail)
        return self.generator.generate([request])[0]

    def stream(
        self,
        messages: Conversation,
        images: ImageSource | Sequence[ImageSource] | None = (),
        audio: AudioSource | Sequence[AudioSource] | None = (),
        tools: Sequence[ToolSpec | Mapping[str, Any]] | None = (),
        *,
        detail: Detail | None = None,
        sampling: SamplingParams | None = None,
        **options: Any,
    ) -> Iterator[Delta]:
        """As `chat`, piece by piece; the last piece carries the `Completion`. Closing the iterator cancels.

        Raises:
            InvalidRequest: As `chat`, at once and not when the first piece is asked for.
        """
        return self.generator.stream(self._request(messages, images, audio, tools, sampling, options, detail))

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Answer many requests together; see `Generator.generate`."""
        return self.generator.generate(requests)

    def transcribe(
        self,
        audio: AudioSource,
        *,
        timestamps: bool = False,
        hot_words: HotWords = (),
        skip_silence: bool = True,
        max_segment_s: float | None = None,
        sampling: SamplingParams | None = None,
        **options: Any,
    ) -> Transcript:
        """Write down what a recording says.

        Up to 40 s are heard in one piece; what is longer is cut at pauses into parts of at most 30 s, which
        share steps, and their texts are put side by side. A model trained on shorter clips says so in its
        config and is given shorter parts; nano's are 4 s. Where nobody speaks no model is asked, and the
        transcript is empty.

        Args:
            audio: The recording.
            timestamps: Cut at pauses whatever the length, for times; see `Transcript.segments`. All times
                come from the sound, the model states none.
            hot_words: Names and words to expect, at most 100: a list, or one text with commas. They are added
                to the instruction as text; the released model was not trained on that, see docs/media.md.
            skip_silence: False = hear everything, for song and for sound that is no speech.
            max_segment_s: Longest part of what is cut, 1 to 40; what is a third longer is still heard whole.
                None = the config's.
            sampling: As in `chat`; a length limit is that of each part.
            options: As in `chat`.

        Raises:
            InvalidRequest: As `chat`; or the hot words are too many, too long or no text, or `max_segment_s`
                is out of range; or features were given to a model loaded with `voice_activity`.
            InvalidMedia: As `chat`.
        """
        settings = None if max_segment_s is None else SpeechSettings(max_segment_s=max_segment_s)
        ask = partial(transcribe_message, hot_words=checked_hot_words(hot_words))
        return self._heard(audio, ask, timestamps, skip_silence, settings, sampling, options)

    def translate(
        self,
        audio: AudioSource,
        to: str,
        *,
        with_transcript: bool = False,
        timestamps: bool = False,
        hot_words: HotWords = (),
        skip_silence: bool = True,
        max_segment_s: float | None = None,
        sampling: SamplingParams | None = None,
        **options: Any,
    ) -> Transcript:
        """Translate what a recording says; long ones as in `transcribe`.

        Args:
            audio: The recording.
            to: Target language, by English name or ISO 639-1 code.
            with_transcript: Let the model write the transcript first; take the answer apart with
                `phi4.processing.prompts.split_translation`.
            timestamps: As in `transcribe`.
            hot_words: As in `transcribe`.
            skip_silence: As in `transcribe`.
            max_segment_s: As in `transcribe`.
            sampling: As in `chat`; a length limit is that of each part.
            options: As in `chat`.

        Raises:
            InvalidRequest: Unknown language, or as `transcribe`.
            InvalidMedia: As `chat`.
        """
        settings = None if max_segment_s is None else SpeechSettings(max_segment_s=max_segment_s)
        words, language = checked_hot_words(hot_words), language_name(to)

        def ask(part: AudioSource) -> Message:
            return translate_message(part, language, with_transcript, words)

        return self._heard(audio, ask, timestamps, skip_silence, settings, sampling, options)

    def _heard(
        self,
        audio: AudioSource,
        ask: Callable[[AudioSource], Message],
        timestamps: bool,
        skip_silence: bool,
        settings: SpeechSettings | None,
        sampling: SamplingParams | None,
        options: Mapping[str, Any],
    ) -> Transcript:
        """Ask about each part of a recording, all together."""
        _sampling(sampling, options)  # a wrong option is told before an hour of sound is decoded
        parts, duration_s = self.generator.processor.hear(
            audio, timestamps=timestamps, skip_silence=skip_silence, settings=settings
        )
        requests = [self._request([ask(part.audio)], (), (), (), sampling, options) for part in parts]
        spans = [TranscriptSegment(part.start_s, part.end_s, "", voiced=part.voiced) for part in parts]
        return stitch(spans, self.generator.generate(requests), duration_s)

    def score(
        self,
        prompt: Conversation,
        target: str,
        images: ImageSource | Sequence[ImageSource] | None = (),
        audio: AudioSource | Sequence[AudioSource] | None = (),
        *,
        with_end: bool = False,
    ) -> TargetScores:
        """Log-probabilities of `target` as the answer to `prompt`, computed in chunks.

        The target is judged whole under the LongRoPE factors of prompt and target together; see
        `Generator.score_batch` for what that means where they cross the boundary.

        Args:
            prompt: As `messages` in `chat`.
            target: The answer to judge.
            images: As in `chat`.
            audio: As in `chat`.
            with_end: Also judge the end-of-turn token.

        Raises:
            InvalidRequest: As `chat`; or the target is empty.
        """
        request = Request(_messages(prompt, images, audio))
        return self.generator.score(request, target, with_end=with_end)

    def picture_costs(self, picture: ImageSource | tuple[int, int]) -> dict[Detail, TilePlan]:
        """What a picture costs at each detail, `num_crops` and `num_tokens`, before anything is computed.

        Args:
            picture: The picture, or its (width, height) in pixels. Of a file only the header is read.

        Raises:
            InvalidRequest: The model takes no pictures, or the picture is cut into crops already.
            InvalidMedia: It cannot be opened, or is so long and thin that nothing of it would be left.
        """
        vision = self._vision()
        if isinstance(picture, ImageArrays):
            raise InvalidRequest("the picture is cut into crops already; give the picture itself or its size")
        size = picture if isinstance(picture, tuple) else picture_size(picture)
        return picture_costs(*size, vision, self._max_crops)

    def seconds_per_crop(self) -> float | None:
        """How long the vision encoder takes for one crop here and now, measured on a blank picture.

        The picture is encoded twice, two crops each time: the first time the encoder may have to be loaded.
        What a picture will take is this times its `num_crops`. None on a GPU, which computes while Python
        goes on.

        Raises:
            InvalidRequest: The model takes no pictures.
            OutOfMemory: The encoder does not fit.
        """
        vision, runner = self._vision(), self.generator.runner
        if runner.info.device not in _WAITED_FOR:
            return None
        blank = tile_image(np.full((vision.crop_size, vision.crop_size, 3), 255, np.uint8), vision)
        start = 0.0
        for _ in range(2):
            start = time.perf_counter()
            runner.release(runner.encode(blank))
        return (time.perf_counter() - start) / len(blank.pixels)

    def _vision(self) -> VisionConfig:
        if self.config.vision is None:
            raise InvalidRequest("this model takes no pictures; use a multimodal one")
        return self.config.vision

    def _request(
        self,
        messages: Conversation,
        images: ImageSource | Sequence[ImageSource] | None,
        audio: AudioSource | Sequence[AudioSource] | None,
        tools: Sequence[ToolSpec | Mapping[str, Any]] | None,
        sampling: SamplingParams | None,
        options: Mapping[str, Any],
        detail: Detail | None = None,
    ) -> Request:
        specs = normalise_tools(() if tools is None else tools)
        params = _sampling(sampling, options)
        parsed = with_detail(_messages(messages, images, audio), detail)
        inputs = self.generator.processor.prepare(parsed, tools=specs)
        if sampling is None and "max_new_tokens" not in options:
            # The default limit grows with recordings, whose words never take more tokens than their sound,
            # and gives way to a long prompt; one the caller chose does neither.
            wanted = max(params.max_new_tokens, sum(audio.num_tokens for audio in inputs.audios))
            room = self.info.max_context_tokens - len(inputs.token_ids)
            params = replace(params, max_new_tokens=max(1, min(wanted, room)))
        return Request(parsed, specs, params, inputs)


def _messages(
    messages: Conversation,
    images: ImageSource | Sequence[ImageSource] | None,
    audio: AudioSource | Sequence[AudioSource] | None,
) -> tuple[Message, ...]:
    turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    return parse_messages(turns, () if images is None else images, () if audio is None else audio)


def _sampling(sampling: SamplingParams | None, options: Mapping[str, Any]) -> SamplingParams:
    known = [field.name for field in fields(SamplingParams)]
    unknown = [name for name in options if name not in known]
    if unknown:
        raise InvalidRequest(f"no option named {unknown[0]!r}; sampling options are {', '.join(known)}")
    changes = dict(options)
    if "stop" in changes:
        stop = () if changes["stop"] is None else changes["stop"]
        changes["stop"] = checked_stops((stop,) if isinstance(stop, str) else stop)
    return replace(sampling or SamplingParams(), **changes)
