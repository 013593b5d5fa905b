"""Pictures: from any source to an upright 8-bit RGB picture.

`load_image` reads PNG, JPEG, WebP and the first frame of a GIF through Pillow, with the size limits applied
to the header before anything is decoded; `picture_size` reads no more than that. Orientation tags are
followed, transparency is laid on white, palettes and 16-bit greys become 8-bit. A cut or damaged file is
refused, never half shown.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image

from phi4.errors import InvalidMedia
from phi4.processing.media import DEFAULT_LIMITS, MediaLimits, OpenedMedia, decoding_failed, open_media
from phi4.processing.sniff import image_size, png_tells_more_behind_its_pixels
from phi4.processing.tiles import as_rgb
from phi4.shapes import AnyArray
from phi4.types import MediaSource

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
)
_warning_filters = threading.Lock()


def load_image(
    source: MediaSource,
    *,
    allow_remote: bool = False,
    allow_files: bool = True,
    limits: MediaLimits = DEFAULT_LIMITS,
) -> Image.Image:
    """Load a picture as upright RGB.

    Args:
        source: A path, the bytes of a file, or a `data:` URL.
        allow_remote: See `open_media`.
        allow_files: See `open_media`.
        limits: See `MediaLimits`.

    Raises:
        InvalidMedia: Missing, empty, of another format, over a limit, cut short or damaged.
    """
    with open_media(
        source, "image", allow_remote=allow_remote, allow_files=allow_files, limits=limits
    ) as media:
        return decode_image(media, limits)


def decode_image(media: OpenedMedia, limits: MediaLimits = DEFAULT_LIMITS) -> Image.Image:
    """Decode an opened picture, see `load_image`.

    Raises:
        InvalidMedia: Over a limit, cut short or damaged.
    """
    _check_size(media.name, _header_size(media), limits)
    try:
        return _decode(media, limits)
    except InvalidMedia:
        raise
    except Exception as error:
        # Pillow's plugins let a dozen exception types escape on damaged files; this is their one exit.
        raise decoding_failed(media.name, f"{media.format.id} picture", error) from None


def picture_size(
    source: MediaSource | AnyArray | Image.Image,
    *,
    allow_remote: bool = False,
    allow_files: bool = True,
    limits: MediaLimits = DEFAULT_LIMITS,
) -> tuple[int, int]:
    """Width and height, in pixels, of what `load_image` would give; read from the header.

    Nothing is decoded, except for a PNG with metadata behind its pixels: which way is up may stand there.

    Args:
        source: As `load_image`, or a decoded picture.
        allow_remote: See `open_media`.
        allow_files: See `open_media`.
        limits: See `MediaLimits`.

    Raises:
        InvalidMedia: Missing, empty, of another format, over a limit, or without a readable header.
    """
    if isinstance(source, Image.Image):
        return upright_rgb(source).size
    if isinstance(source, np.ndarray):
        return as_rgb(source).size
    with open_media(
        source, "image", allow_remote=allow_remote, allow_files=allow_files, limits=limits
    ) as media:
        _check_size(media.name, _header_size(media), limits)
        try:
            return _upright_size(media, limits)
        except InvalidMedia:
            raise
        except Exception as error:
            raise decoding_failed(media.name, f"{media.format.id} picture", error) from None


def _upright_size(media: OpenedMedia, limits: MediaLimits) -> tuple[int, int]:
    behind = media.format.id == "PNG" and png_tells_more_behind_its_pixels(media.stream)
    image = _opened(media, limits)
    if behind:
        image.load()
    with _warnings_are_errors():
        # Not PngImageFile's own, which decodes the picture to look for what is not there.
        turn = _UPRIGHT.get(Image.Image.getexif(image).get(_ORIENTATION_TAG, 1))
    width, height = image.size
    return (height, width) if turn in _SIDEWAYS else (width, height)


def upright_rgb(image: Image.Image, name: str = "the given Pillow image") -> Image.Image:
    """A picture the caller opened with Pillow, seen as `load_image` would see its file.

    Args:
        image: Of any mode; given back as it is where nothing has to change.
        name: What errors call it.

    Raises:
        InvalidMedia: Its pixels cannot be read, as of a file that was cut short.
    """
    try:
        return _upright_rgb(image)
    except Exception as error:
        raise decoding_failed(name, "picture", error) from None


def _header_size(media: OpenedMedia) -> tuple[int, int]:
    size = image_size(media.format.id, media.stream)
    if size is None:
        raise InvalidMedia(f"{media.name} has no readable {media.format.id} header: save it again")
    return size


def _check_size(name: str, size: tuple[int, int], limits: MediaLimits) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise InvalidMedia(f"{name} is {width} x {height} pixels: it has no content")
    if max(size) > limits.max_image_side_px:
        raise InvalidMedia(
            f"{name} is {width} x {height} pixels, over the limit of {limits.max_image_side_px} a side: "
            "scale it down"
        )
    if width * height > limits.max_image_px:
        raise InvalidMedia(
            f"{name} is {width} x {height} pixels, over the limit of {limits.max_image_px:,} pixels: "
            "scale it down"
        )


def _decode(media: OpenedMedia, limits: MediaLimits) -> Image.Image:
    return _upright_rgb(_opened(media, limits))


def _opened(media: OpenedMedia, limits: MediaLimits) -> Image.Image:
    """The picture, not decoded yet."""
    media.stream.seek(0)
    with _warnings_are_errors():
        image: Image.Image = Image.open(media.stream, formats=(media.format.id,))
    # The plugin may see another size than the header we read: a GIF frame can exceed its screen.
    _check_size(media.name, image.size, limits)
    return image


def _upright_rgb(image: Image.Image) -> Image.Image:
    # First: some formats keep the tag behind the pixels, and some plugins turn the picture while loading it.
    image.load()
    with _warnings_are_errors():
        turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION_TAG, 1))
    rgb = _to_rgb(image)
    return rgb if turn is None else rgb.transpose(turn)


@contextmanager
def _warnings_are_errors() -> Iterator[None]:
    """Turn Pillow's warnings (bombs, damaged metadata) into errors.

    Warning filters belong to the whole process, so this holds a lock, covers header parsing only (well under
    a millisecond) and touches no other package's warnings.
    """
    with _warning_filters, warnings.catch_warnings():
        warnings.filterwarnings("error", module=r"PIL\.")
        yield


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode Pillow gives for our formats to RGB."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        # 16-bit grey: keep the upper byte. Pillow's own conversion would clip everything above 255 to white.
        # Shifted in the array's own type: a wider one would take a gigabyte at the size limit.
        grey = np.asarray(image) >> 8
        return Image.fromarray(np.clip(grey, 0, 255, out=grey).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layers = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(layers, mask=layers.getchannel("A"))
        return white
    return image.convert("RGB")
