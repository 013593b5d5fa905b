"""The processor: a conversation becomes one `ModelInputs` row.

It renders the chat, opens and prepares media, and replaces each placeholder by as many as its medium
takes positions. The row is built from slices in one pass, so work is linear in tokens and media, and
the number of placeholders always has to equal the number of media.

Left out on purpose: padding and batches (the runner's), and room for the answer (the engine's).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL.Image import Image

from phi4.configs import Phi4Config
from phi4.errors import ContextOverflow, InvalidArtifact, InvalidMedia, InvalidRequest
from phi4.processing.audio import decode_audio
from phi4.processing.chat import ChatRenderer, Placement, RenderedChat
from phi4.processing.detail import crop_limit
from phi4.processing.expanding import expand_messages
from phi4.processing.images import decode_image, upright_rgb
from phi4.processing.media import DEFAULT_LIMITS, MediaLimits, open_media
from phi4.processing.mel import audio_arrays
from phi4.processing.messages import parse_messages
from phi4.processing.tiles import as_rgb, tile_image
from phi4.processing.tokenizer import ModelTokens, Phi4Tokenizer
from phi4.shapes import AnyArray, BoolArray, FloatArray, IntArray
from phi4.types import (
    AudioArrays,
    AudioSource,
    ImageArrays,
    ImagePart,
    MediaSpan,
    Message,
    ModelInputs,
    ToolSpec,
)


class Processor:
    """Turns conversations into rows for one model.

    Attributes:
        config: The model's config.
        tokenizer: Its tokenizer.
        renderer: The chat renderer.
    """

    def __init__(
        self,
        config: Phi4Config,
        tokenizer: Phi4Tokenizer,
        *,
        limits: MediaLimits = DEFAULT_LIMITS,
        allow_remote: bool = False,
        allow_files: bool = True,
    ) -> None:
        """Combine a config and a tokenizer.

        Args:
            config: The model's config.
            tokenizer: Its tokenizer.
            limits: What a medium may cost.
            allow_remote: See `open_media`.
            allow_files: False where messages come from a stranger; see `open_media`.

        Raises:
            InvalidArtifact: The tokenizer has ids beyond the model's vocabulary.
        """
        if tokenizer.vocab_size > config.decoder.vocab_size:
            raise InvalidArtifact(
                f"the tokenizer has ids up to {tokenizer.vocab_size - 1} but the model's vocab_size is "
                f"{config.decoder.vocab_size}; check that config.json and tokenizer.json belong together"
            )
        self.config = config
        self.tokenizer = tokenizer
        self.renderer = ChatRenderer(tokenizer)
        self._limits = limits
        self._opening: dict[str, Any] = {
            "allow_remote": allow_remote,
            "allow_files": allow_files,
            "limits": limits,
        }

    def prepare(
        self,
        messages: Sequence[Message | Mapping[str, Any]],
        tools: Sequence[ToolSpec | Mapping[str, Any]] = (),
        max_crops: int | None = None,
        placement: Placement = "inline",
    ) -> ModelInputs:
        """Prepare a prompt that ends where the assistant begins to speak.

        Args:
            messages: The conversation.
            tools: Functions the model may call.
            max_crops: Local crops a picture may use, fewer = fewer tokens; None = the config's.
            placement: Where media stand in their message, see `ChatRenderer.render`.

        Raises:
            InvalidRequest: The conversation is malformed, or the model has no such modality.
            InvalidMedia: A medium is missing, broken, of an unknown format or over a limit.
            MissingExtra: A video or a recording in a container (M4A, MP4, WebM) needs PyAV, a PDF pypdfium2.
            ContextOverflow: The row is longer than the model's context; media behind that are not opened.
        """
        chat = self.renderer.render(self.plain(messages), tools, True, placement)
        return self._fill(chat, max_crops)

    def prepare_training(
        self,
        messages: Sequence[Message | Mapping[str, Any]],
        tools: Sequence[ToolSpec | Mapping[str, Any]] = (),
        max_crops: int | None = None,
        placement: Placement = "inline",
    ) -> ModelInputs:
        """Prepare a finished conversation for training; `loss_mask` marks what assistants say.

        True at position t means token t is a target (predicted from the tokens before it). Arguments and
        errors are those of `prepare`.

        Raises:
            InvalidRequest: Also when no assistant turn is there to learn from.
        """
        chat = self.renderer.render(self.plain(messages), tools, False, placement)
        if not chat.loss_spans:
            raise InvalidRequest("no assistant message to learn from; end the conversation with one")
        inputs = self._fill(chat, max_crops)
        return replace(inputs, loss_mask=_loss_mask(chat, inputs.spans, len(inputs.token_ids)))

    def hear(self, source: AudioSource, name: str = "the recording") -> tuple[AudioArrays, FloatArray | None]:
        """The features of a recording, for callers that take it apart before they ask about it.

        Also `[S]`, the samples they are computed of; None = the recording was given as features.

        Args:
            source: The recording.
            name: What errors call one that has no name of its own.

        Raises:
            InvalidRequest: The model takes no recordings.
            InvalidMedia: It is missing, broken, of an unknown format or over a limit.
            MissingExtra: It lies in a container (M4A, MP4, WebM), and PyAV is not installed.
        """
        if self.config.speech is None:
            raise InvalidRequest("this model takes no recordings; use a multimodal one")
        if isinstance(source, AudioArrays):
            return source, None
        if isinstance(source, np.ndarray):
            samples = _samples(source, name)
        else:
            with open_media(source, "audio", **self._opening) as media:
                name, samples = media.name, decode_audio(media, limits=self._limits)
        return audio_arrays(samples, self.config.speech, name=name), samples

    def plain(self, messages: Sequence[Message | Mapping[str, Any]]) -> tuple[Message, ...]:
        """The conversation, its videos and files expanded to what the renderer knows.

        `prepare` does this by itself; who prepares parts of one conversation several times does it once
        before.

        Raises:
            InvalidRequest: As `prepare`.
            InvalidMedia: The same.
            MissingExtra: The same.
        """
        sees, hears = self.config.vision is not None, self.config.speech is not None
        return expand_messages(parse_messages(messages), self._opening, sees=sees, hears=hears)

    def _fill(self, chat: RenderedChat, max_crops: int | None) -> ModelInputs:
        images: list[ImageArrays] = []
        audios: list[AudioArrays] = []
        num_tokens = len(chat.token_ids)  # each medium counts once here, by its placeholder
        self._check_length(num_tokens, chat)
        for slot in chat.media:
            try:
                if isinstance(slot.part, ImagePart):
                    images.append(self._image(slot.part, max_crops, f"picture {len(images) + 1}"))
                    num_tokens += images[-1].num_tokens - 1
                else:
                    audios.append(self.hear(slot.part.source, f"recording {len(audios) + 1}")[0])
                    num_tokens += audios[-1].num_tokens - 1
            except InvalidMedia as error:
                error.part = slot.part
                raise
            # After each, so that no more media are opened and held than the context has room for.
            self._check_length(num_tokens, chat)
        return expand_placeholders(chat.token_ids, images, audios, self.tokenizer.tokens)

    def _check_length(self, num_tokens: int, chat: RenderedChat) -> None:
        limit = self.config.decoder.max_position_embeddings
        if num_tokens <= limit:
            return
        has_pictures = any(slot.kind == "image" for slot in chat.media)
        ways = "shorten the conversation"
        if chat.media:
            ways += ", or give fewer or smaller media"
        if has_pictures:
            ways += ", or look at pictures less closely"
        error = ContextOverflow(
            f"the prompt takes at least {num_tokens} tokens but the model's context is {limit}; {ways}",
            has_pictures,
        )
        if has_pictures:
            error.add_note("less closely: chat(..., detail='low'), or phi4.load(..., max_crops=4)")
        raise error

    def _image(self, part: ImagePart, max_crops: int | None, name: str) -> ImageArrays:
        """Tile a picture; `name` is what errors call one that the opener has no name for."""
        source = part.source
        if self.config.vision is None:
            raise InvalidRequest("this model takes no pictures; use a multimodal one")
        if isinstance(source, ImageArrays):
            if part.detail is not None:
                raise InvalidRequest(
                    f"{name} is cut into crops already, so its detail cannot be {part.detail!r}; give the "
                    "picture itself, or leave detail out"
                )
            return source
        if isinstance(source, str | bytes | Path):
            with open_media(source, "image", **self._opening) as media:
                return self._tiled(decode_image(media, self._limits), part, max_crops, media.name)
        picture: Image | AnyArray = source if isinstance(source, np.ndarray) else upright_rgb(source, name)
        return self._tiled(picture, part, max_crops, name)

    def _tiled(
        self, picture: Image | AnyArray, part: ImagePart, max_crops: int | None, name: str
    ) -> ImageArrays:
        """Cut a picture as closely as its part asks for, with at most `max_crops` local crops."""
        vision = self.config.vision
        assert vision is not None, "pictures are refused before they are opened"
        rgb = as_rgb(picture, name)
        if part.detail is not None:
            max_crops = crop_limit(part.detail, rgb.width, rgb.height, vision, max_crops)
        return tile_image(rgb, vision, max_crops, name=name)


def _samples(samples: AnyArray, name: str) -> FloatArray:
    if samples.ndim != 1 or samples.dtype.kind != "f":
        raise InvalidMedia(
            f"{name} has shape {list(samples.shape)} and type {samples.dtype}; give [samples] float32 in "
            "[-1, 1], mono, 16 kHz"
        )
    return np.asarray(samples, dtype=np.float32)


def expand_placeholders(
    token_ids: Sequence[int],
    images: Sequence[ImageArrays],
    audios: Sequence[AudioArrays],
    tokens: ModelTokens,
) -> ModelInputs:
    """Replace each placeholder by as many as its medium takes positions; the k-th pairs with the k-th.

    Args:
        token_ids: Ids with one placeholder for each medium.
        images: Pictures in order of appearance.
        audios: Recordings in order of appearance.
        tokens: Gives the placeholder ids.

    Raises:
        InvalidRequest: The number of placeholders differs from the number of media.
    """
    row = np.asarray(token_ids, dtype=np.int64)  # [T before expansion]
    counts = np.ones(len(row), dtype=np.int64)
    found = [
        *_pair(row, "image", tokens.image, [image.num_tokens for image in images]),
        *_pair(row, "audio", tokens.audio, [audio.num_tokens for audio in audios]),
    ]
    for position, span in found:
        counts[position] = span.length
    starts = np.cumsum(counts) - counts
    spans = tuple(
        replace(span, start=int(starts[at])) for at, span in sorted(found, key=lambda item: item[0])
    )
    return ModelInputs(np.repeat(row, counts), tuple(images), tuple(audios), spans)


def _pair(
    row: IntArray, kind: Literal["image", "audio"], placeholder: int | None, lengths: Sequence[int]
) -> list[tuple[int, MediaSpan]]:
    """Placeholder positions of one kind with the media they stand for, in order."""
    # Ids are never negative, so without a placeholder token nothing is found.
    positions = np.flatnonzero(row == (-1 if placeholder is None else placeholder)).tolist()
    if len(positions) != len(lengths):
        raise InvalidRequest(
            f"the prompt has {len(positions)} {kind} placeholders but {len(lengths)} media of that kind were "
            "given; give exactly one medium for each placeholder"
        )
    spans = [MediaSpan(kind, index, 0, length) for index, length in enumerate(lengths)]
    return list(zip(positions, spans, strict=True))


def _loss_mask(chat: RenderedChat, spans: Sequence[MediaSpan], num_tokens: int) -> BoolArray:
    """Mark the loss spans, moved by what the media before them have grown."""
    positions = np.array([slot.position for slot in chat.media], dtype=np.int64)
    growth = np.cumsum([0, *(span.length - 1 for span in spans)])
    mask = np.zeros(num_tokens, dtype=np.bool_)
    for start, end in chat.loss_spans:  # assistant turns hold no media, so start and end move alike
        shift = int(growth[np.searchsorted(positions, start)])
        mask[start + shift : end + shift] = True
    return mask
