"""The values that travel between rooms: messages in, arrays to the model, results out.

Everything here is a frozen dataclass without behaviour beyond simple properties. A conversation is
a tuple of `Message`; processing turns it into one `ModelInputs` (a row); the engine turns a row
into a `Completion`. Nothing here opens files or knows a backend.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from phi4.shapes import AnyArray, BoolArray, FloatArray, IntArray

if TYPE_CHECKING:
    from PIL.Image import Image

Role = Literal["system", "user", "assistant", "tool"]
Modality = Literal["text", "vision", "speech"]
Mode = Literal["text", "vision", "speech", "vision_speech"]
FinishReason = Literal["stop", "length", "tool_calls", "cancelled", "repetition"]
Detail = Literal["low", "auto", "high"]
"""How closely a picture is looked at, in OpenAI's words; see `phi4.processing.detail`."""
MediaSource = str | Path | bytes
"""A path, the bytes of a file, a `data:` URL, or (only when allowed) an http(s) URL."""
ImageSource: TypeAlias = "MediaSource | AnyArray | Image | ImageArrays"
"""Also a decoded picture (`[H, W, 3]` uint8 or a Pillow image) or one that is already tiled."""
AudioSource: TypeAlias = "MediaSource | AnyArray | AudioArrays"
"""Also decoded samples (`[S]` float32, mono, 16 kHz) or features that are already computed."""


@dataclass(frozen=True)
class TextPart:
    """Plain text of a message; never parsed for control tokens."""

    text: str


@dataclass(frozen=True)
class ImagePart:
    """A picture at this place of the message.

    Attributes:
        source: The picture.
        detail: How closely it is looked at; None = as the request says, else "auto".
    """

    source: ImageSource
    detail: Detail | None = None


@dataclass(frozen=True)
class AudioPart:
    """A recording that belongs to this message."""

    source: AudioSource


@dataclass(frozen=True)
class VideoPart:
    """A film: shown to the model as frames and heard as its sound track.

    Attributes:
        source: An MP4, MOV or WebM file.
        detail: How closely each frame is looked at; None = as the request says, else "low".
        num_frames: Frames to show, evenly spread; None = one a second, at most 16.
        sound: Whether the sound track is heard too, where there is one and the model hears.
    """

    source: MediaSource
    detail: Detail | None = None
    num_frames: int | None = None
    sound: bool = True


@dataclass(frozen=True)
class FilePart:
    """A document: PDF pages as pictures with their text, a web page or a text file as text.

    Attributes:
        source: The file.
        name: What the model and errors call it; empty = the name of a path, else "document".
        pages: First and last page to read of a PDF, from 1; None = all.
        detail: How closely pages are looked at; None = as the request says, else "auto".
    """

    source: MediaSource
    name: str = ""
    pages: tuple[int, int] | None = None
    detail: Detail | None = None


Part = TextPart | ImagePart | AudioPart | VideoPart | FilePart


@dataclass(frozen=True)
class ToolCall:
    """One call the model asked for: function name and parsed JSON arguments."""

    name: str
    arguments: Mapping[str, Any]
    id: str = ""


@dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: Who speaks.
        parts: Content in the order the caller gave it.
        tool_calls: Calls an assistant turn made (replayed in multi-turn prompts).
        tool_call_id: On a `tool` turn, the call it answers.
    """

    role: Role
    parts: tuple[Part, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""


@dataclass(frozen=True)
class ImageArrays:
    """One picture after tiling.

    Attributes:
        pixels: `[C, 3, crop, crop]` float32 in [-1, 1]; index 0 is the global view, then crops row-major.
        patch_mask: `[C, g, g]`, True = patch shows picture, False = padding; g = crop / patch.
        size_px: (height, width) of the padded target, multiples of the crop size.
        num_tokens: Positions the picture takes in the prompt.
        digest: SHA-256 of pixels, mask and shape; the identity for caches.
    """

    pixels: FloatArray
    patch_mask: BoolArray
    size_px: tuple[int, int]
    num_tokens: int
    digest: str


@dataclass(frozen=True)
class AudioArrays:
    """One recording after the log-mel front end.

    Attributes:
        features: `[A, M]` float32 log-mel, 10 ms a frame.
        num_tokens: Positions the recording takes in the prompt, ceil(A / 8).
        duration_s: Length of the recording in seconds.
        digest: SHA-256 of features and shape; the identity for caches.
    """

    features: FloatArray
    num_tokens: int
    duration_s: float
    digest: str


@dataclass(frozen=True)
class MediaSpan:
    """Where one medium sits in a row: `token_ids[start : start + length]` are its placeholders."""

    kind: Literal["image", "audio"]
    index: int
    start: int
    length: int


@dataclass(frozen=True)
class ModelInputs:
    """One row for a runner: token ids with placeholders already expanded, and its media.

    Attributes:
        token_ids: `[T]` int64.
        images: Pictures in order of appearance.
        audios: Recordings in order of appearance.
        spans: One entry per medium, in order of position.
        loss_mask: `[T]`, True = this token is a training target; None when only prompting.
    """

    token_ids: IntArray
    images: tuple[ImageArrays, ...] = ()
    audios: tuple[AudioArrays, ...] = ()
    spans: tuple[MediaSpan, ...] = ()
    loss_mask: BoolArray | None = None

    @property
    def mode(self) -> Mode:
        """Which media the row holds; decides adapter and audio projector."""
        if self.images:
            return "vision_speech" if self.audios else "vision"
        return "speech" if self.audios else "text"


@dataclass(frozen=True)
class SamplingParams:
    """How tokens are drawn.

    Attributes:
        temperature: 0 = greedy (the released default); otherwise logits are divided by it, up to 2.
        top_k: Keep the k largest logits; 0 = all.
        top_p: Keep the smallest set of tokens with this probability mass; in (0, 1].
        seed: Start of the counter-based random stream; None = chosen at random once per request.
        max_new_tokens: Upper limit of the answer, in tokens.
        stop: Strings that end the answer; they are not part of it.
        min_p: Drop what is less likely than this share of the likeliest token, after `top_k` and `top_p`.
        presence_penalty: Taken off the logit of every token that stands in the answer already; -2 to 2.
        frequency_penalty: Taken off it once for each time it stands there; -2 to 2.
        repetition_penalty: Positive logits of tokens in prompt or answer are divided by it, negative ones
            multiplied; 0.01 to 2, 1 = none.
        logit_bias: Token id -> number added to its logit, -100 to 100; at most 1,024 of them.
        logprobs: Report the log-probability of each token with so many of the best candidates, up to 20;
            None = report nothing.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None
    max_new_tokens: int = 512
    stop: tuple[str, ...] = ()
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    logprobs: int | None = None


@dataclass(frozen=True)
class TokenLogprob:
    """How likely a drawn token was, by the model itself: before temperature, bias, penalties and masks.

    Attributes:
        token_id: The token.
        logprob: Its natural log-probability.
        top: The likeliest candidates at its place and their log-probabilities, best first.
    """

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Usage:
    """Token counts of one answer; all but `completion_tokens` are parts of `prompt_tokens`.

    `cached_tokens` were not computed for this answer: another request had begun with the same ones.
    """

    prompt_tokens: int
    completion_tokens: int
    image_tokens: int = 0
    audio_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True)
class Timing:
    """Wall times of one answer, in seconds, measured inside the engine.

    Attributes:
        encode_s: Vision and speech encoders.
        prefill_s: From the end of encoding to the first token.
        first_token_s: From the request to the first token (encode + prefill + queue).
        total_s: From the request to the last token.
        rope_crossings: Times the row was prefilled again because it crossed the LongRoPE boundary.
        drafted: Tokens guessed from what stood before (prompt lookup); they change no answer.
        accepted: Of those the ones that were right, each a step saved.
    """

    encode_s: float = 0.0
    prefill_s: float = 0.0
    first_token_s: float = 0.0
    total_s: float = 0.0
    rope_crossings: int = 0
    drafted: int = 0
    accepted: int = 0


@dataclass(frozen=True)
class Completion:
    """A finished answer.

    Attributes:
        text: What the model said, without control tokens and without tool-call markup.
        token_ids: Every generated id, stop token included.
        tool_calls: Parsed calls, in order; empty for plain text.
        finish_reason: Why generation ended.
        usage: Token counts.
        timing: Wall times.
        adapters: Adapter tuple that was active, modality adapter first; empty for text.
        logprobs: One entry per token of `token_ids`, when `SamplingParams.logprobs` asked for them.
    """

    text: str
    token_ids: tuple[int, ...]
    tool_calls: tuple[ToolCall, ...]
    finish_reason: FinishReason
    usage: Usage
    timing: Timing
    adapters: tuple[str, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class Delta:
    """One piece of a streamed answer; the last one carries the whole `completion`.

    `logprobs` are those of the tokens drawn for it, whose text may come later: half a character, or the
    beginning of a stop string, is held back.
    """

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    completion: Completion | None = None
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class ToolSpec:
    """A function the model may call.

    Attributes:
        name: What a call refers to.
        description: What it does, in words for the model.
        parameters: JSON schema of the arguments object.
        definition: The object shown to the model, in the form and key order the caller gave;
            None = made from the three fields above.
    """

    name: str
    description: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    definition: Mapping[str, Any] | None = None
