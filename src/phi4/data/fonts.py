"""The typefaces of the small world, found on the system by file name, and which are held out.

A picture must be the same on every machine, so the list is fixed: 18 faces of the DejaVu and Liberation
families. A missing one is an error that names the system packages, never a silent change of font.
Pillow's own built-in face is in the training list as well, so that a machine without any font can still
draw a picture that looks familiar. PHI4_FONTS_DIR names one more folder to look in, before the others.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

from phi4.data.records import Split
from phi4.errors import MissingExtra

APT_LINE = "apt install fonts-dejavu-core fonts-liberation"
BUILT_IN = "built-in"
TRAIN_FACES = (
    BUILT_IN,
    "DejaVuSans",
    "DejaVuSansMono",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "LiberationSans-Bold",
    "LiberationSans-Italic",
    "LiberationSans-BoldItalic",
    "LiberationSerif-Regular",
    "LiberationSerif-Italic",
    "LiberationSerif-BoldItalic",
    "LiberationMono-Regular",
    "LiberationMono-Bold",
    "LiberationMono-BoldItalic",
)
HELD_OUT_FACES = (
    "DejaVuSans-Bold",
    "DejaVuSansMono-Bold",
    "LiberationSans-Regular",
    "LiberationSerif-Bold",
    "LiberationMono-Italic",
)


def faces(split: Split) -> tuple[str, ...]:
    """Returns the faces a split may use; "examples" uses held-out ones as "test" does."""
    return TRAIN_FACES if split == "train" else HELD_OUT_FACES


@lru_cache(maxsize=4)
def _index(extra: str) -> dict[str, Path]:
    roots = [Path(extra)] if extra else []
    home = Path.home()
    roots += [
        home / ".fonts",
        home / ".local/share/fonts",
        Path("/usr/local/share/fonts"),
        Path("/usr/share/fonts"),
    ]
    roots += [Path("/Library/Fonts"), Path("/opt/homebrew/share/fonts"), Path("C:/Windows/Fonts")]
    found: dict[str, Path] = {}
    for root in roots:
        if root.is_dir():
            for path in sorted(root.rglob("*.ttf")):
                found.setdefault(path.stem, path)
    return found


def available_faces() -> tuple[str, ...]:
    """Returns those of our faces that this machine has; the built-in one always."""
    found = _index(os.environ.get("PHI4_FONTS_DIR", ""))
    return tuple(f for f in TRAIN_FACES + HELD_OUT_FACES if f == BUILT_IN or f in found)


@lru_cache(maxsize=1024)
def load_face(face: str, size_px: int) -> ImageFont.FreeTypeFont:
    """Returns a face at a size (height of the em square in pixels).

    Raises:
        MissingExtra: The face is not installed; the message holds the apt line.
    """
    if face == BUILT_IN:
        built_in = ImageFont.load_default(size_px)
        if not isinstance(built_in, ImageFont.FreeTypeFont):
            raise MissingExtra(
                "this Pillow was built without FreeType and cannot draw text; pip install pillow"
            )
        return built_in
    path = _index(os.environ.get("PHI4_FONTS_DIR", "")).get(face)
    if path is None:
        raise MissingExtra(f"the font {face}.ttf was not found on this machine: {APT_LINE}")
    return ImageFont.truetype(str(path), size_px, layout_engine=ImageFont.Layout.BASIC)
