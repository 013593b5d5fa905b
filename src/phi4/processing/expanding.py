"""Videos and documents inside a conversation become the text, pictures and recordings a model takes.

    plain = expand_messages(messages, opening, sees=True, hears=True)

A video becomes its frames in order and its sound track, a PDF its pages (name and number, picture, text), any
other document its text under its name. What models are shown is bounded for a whole conversation, not for
each part, so that many small files cost no more than one large one. The renderer only ever meets plain parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from phi4.errors import InvalidMedia, InvalidRequest
from phi4.processing.documents import Document, load_document
from phi4.processing.media import MediaLimits
from phi4.processing.video import load_video
from phi4.types import AudioPart, FilePart, ImagePart, Message, Part, TextPart, VideoPart

_MAX_NAME_CHARS = 100


def expand_messages(
    messages: Sequence[Message], opening: Mapping[str, Any], *, sees: bool, hears: bool
) -> tuple[Message, ...]:
    """The conversation with plain parts only.

    Args:
        messages: The turns.
        opening: `allow_remote`, `allow_files` and `limits` for every file, see `open_media`.
        sees: Whether the model takes pictures. Without, a document is its text alone and a video is refused.
        hears: Whether it takes recordings. Without, a video is its frames alone.

    Raises:
        InvalidMedia: A file cannot be used, or all together are over a limit.
        InvalidRequest: One is in a turn that cannot hold media, or the model takes none of what it holds.
        MissingExtra: PyAV or pypdfium2 is needed and not installed.
    """
    if not any(isinstance(part, VideoPart | FilePart) for message in messages for part in message.parts):
        return tuple(messages)
    expander = _Expander(opening, sees, hears)
    return tuple(replace(message, parts=expander.parts(message)) for message in messages)


@dataclass
class _Expander:
    """Expands parts and counts what they come to."""

    opening: Mapping[str, Any]
    sees: bool
    hears: bool
    num_frames: int = 0
    num_pages: int = 0
    num_chars: int = 0

    @property
    def limits(self) -> MediaLimits:
        limits: MediaLimits = self.opening["limits"]
        return limits

    def parts(self, message: Message) -> tuple[Part, ...]:
        plain: list[Part] = []
        for part in message.parts:
            if isinstance(part, VideoPart | FilePart) and message.role not in ("user", "tool"):
                raise InvalidRequest(
                    f"a {message.role} message holds a video or a file; put it into a user message"
                )
            try:
                if isinstance(part, VideoPart):
                    plain += self._video(part)
                elif isinstance(part, FilePart):
                    plain += self._file(part)
                else:
                    plain.append(part)
            except InvalidMedia as error:
                error.part = part
                raise
        return tuple(plain)

    def _video(self, part: VideoPart) -> list[Part]:
        if not self.sees:
            raise InvalidRequest(
                "this model takes no videos, since it takes no pictures; use a multimodal one"
            )
        video = load_video(
            part.source, num_frames=part.num_frames, with_sound=part.sound and self.hears, **self.opening
        )
        self.num_frames += len(video.frames)
        self._check(
            "frames of videos", self.num_frames, self.limits.max_frames, "give fewer or shorter videos"
        )
        parts: list[Part] = [ImagePart(frame, part.detail or "low") for frame in video.frames]
        return parts if video.samples is None else [*parts, AudioPart(video.samples)]

    def _file(self, part: FilePart) -> list[Part]:
        document = load_document(part.source, pages=part.pages, with_pictures=self.sees, **self.opening)
        self.num_pages += len(document.pages)
        self.num_chars += len(document.text)
        limits = self.limits
        self._check("pages of documents", self.num_pages, limits.max_pages, "choose fewer pages")
        self._check(
            "characters of documents", self.num_chars, limits.max_document_chars, "give parts of them"
        )
        name = _name(part)
        if document.kind != "pdf":
            return [TextPart(f"{name}:\n{document.text}\n")]
        return [
            piece
            for number in range(len(document.pages))
            for piece in self._page(part, document, name, number)
        ]

    def _page(self, part: FilePart, document: Document, name: str, index: int) -> list[Part]:
        """Which page it is, how it looks, and what it says."""
        page = document.pages[index]
        title = f"{name}, page {page.number} of {document.num_pages}"
        if page.picture is not None:
            picture: Part = ImagePart(page.picture, part.detail)
            return [TextPart(f"{title}:\n"), picture, TextPart(f"\n{page.text}\n" if page.text else "\n")]
        if not page.text:
            raise InvalidMedia(
                f"page {page.number} of {document.name} is a picture without text, and this model sees no "
                "pictures; use a multimodal one"
            )
        return [TextPart(f"{title}:\n{page.text}\n")]

    def _check(self, what: str, count: int, limit: int, advice: str) -> None:
        if count > limit:
            raise InvalidMedia(
                f"the conversation holds {count:,} {what}, over the limit of {limit:,}: {advice}"
            )


def _name(part: FilePart) -> str:
    """What the model is told the file is called: one short line, whatever the caller wrote."""
    source = part.source
    own = ""
    if isinstance(source, Path) or (
        isinstance(source, str) and "://" not in source and source[:5].lower() != "data:"
    ):
        own = Path(source).name
    given = part.name if part.name.strip() else own
    line = "".join(c if c.isprintable() else " " for c in " ".join((given or "document").split()))
    return line if len(line) <= _MAX_NAME_CHARS else f"{line[: _MAX_NAME_CHARS - 3]}..."
