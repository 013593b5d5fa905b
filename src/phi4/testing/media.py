"""Synthetic media for tests: small valid files of every readable format, and hostile ones.

Everything is made in memory from a seed, so no binary lies in the repository. `friendly_images` and
`friendly_audio` map a name to the bytes of a whole file; `hostile_images` and `hostile_audio` map a name to
bytes that must be refused. Containers come from `container_bytes`, which needs PyAV.
"""

from __future__ import annotations

import importlib
import io
import struct
import zlib
from fractions import Fraction

import numpy as np
import soundfile
from PIL import Image

from phi4.shapes import AnyArray, FloatArray


def ramp_picture(width_px: int, height_px: int) -> AnyArray:
    """Pixels `[height, width, 3]` uint8: two ramps that wrap around and a checkerboard."""
    x, y = np.meshgrid(np.arange(width_px), np.arange(height_px))
    planes = [(7 * x + 3 * y) % 256, (5 * x + 11 * y) % 256, 255 * ((x // 16 + y // 16) % 2)]
    return np.stack(planes, axis=-1).astype(np.uint8)


def chirp(duration_s: float = 1.0, rate: int = 16000) -> FloatArray:
    """Samples `[S]` of a sine that rises from 300 Hz by 800 Hz a second, amplitude 0.5."""
    seconds = np.arange(round(duration_s * rate)) / rate
    phase = 2 * np.pi * (300 * seconds + 400 * seconds**2)
    return (0.5 * np.sin(phase)).astype(np.float32)


def image_bytes(format_id: str, pixels: AnyArray | Image.Image, **options: object) -> bytes:
    """Encode pixels (or a Pillow picture of any mode) as a file of this format."""
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    stream = io.BytesIO()
    picture.save(stream, format_id, **options)
    return stream.getvalue()


def audio_bytes(samples: AnyArray, rate: int, format_id: str = "WAV", subtype: str = "PCM_16") -> bytes:
    """Encode `[S]` or `[S, channels]` samples as a file of this format."""
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format=format_id, subtype=subtype)
    return stream.getvalue()


def container_bytes(samples: FloatArray, rate: int, format_id: str = "ipod", codec: str = "aac") -> bytes:
    """Encode mono samples as the audio track of a container; needs PyAV.

    Args:
        samples: `[S]` in [-1, 1].
        rate: Samples a second; Opus knows 48000 and a few lower ones.
        format_id: As FFmpeg calls it: "ipod" (M4A), "mp4", "mov" or "webm".
        codec: "aac", or "libopus" in WebM.
    """
    av = importlib.import_module("av")
    stream = io.BytesIO()
    with av.open(stream, "w", format=format_id) as container:
        track = container.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None, :], format="fltp", layout="mono")
        frame.rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        for piece in (frame, None):
            for packet in track.encode(piece):
                container.mux(packet)
    return stream.getvalue()


def friendly_images() -> dict[str, bytes]:
    """Whole pictures, 40x24 pixels, one for each format and odd mode."""
    pixels = ramp_picture(40, 24)
    rgb = Image.fromarray(pixels)
    grey = (pixels[:, :, 0].astype(np.uint16) << 8) + 7
    return {
        "rgb.png": image_bytes("PNG", rgb),
        "grey16.png": image_bytes("PNG", Image.fromarray(grey)),
        "palette.png": image_bytes("PNG", rgb.quantize(16)),
        "one_bit.png": image_bytes("PNG", rgb.convert("1")),
        "alpha.png": image_bytes("PNG", rgb.convert("RGBA")),
        "photo.jpg": image_bytes("JPEG", rgb, quality=90),
        "cmyk.jpg": image_bytes("JPEG", rgb.convert("CMYK")),
        "lossless.webp": image_bytes("WEBP", rgb, lossless=True),
        "lossy.webp": image_bytes("WEBP", rgb),
        "still.gif": image_bytes("GIF", rgb.quantize(16)),
    }


def friendly_audio() -> dict[str, bytes]:
    """Whole recordings of half a second, one for each format, with different rates and channel counts."""
    mono = chirp(0.5, 22050)
    stereo = np.stack([chirp(0.5, 44100), 0.5 * chirp(0.5, 44100)], axis=1)
    return {
        "pcm16.wav": audio_bytes(mono, 22050),
        "float_stereo.wav": audio_bytes(stereo, 44100, subtype="FLOAT"),
        "phone.wav": audio_bytes(chirp(0.5, 8000), 8000, subtype="ULAW"),
        "stereo.flac": audio_bytes(stereo, 44100, "FLAC"),
        "vorbis.ogg": audio_bytes(stereo, 44100, "OGG", "VORBIS"),
        "opus.ogg": audio_bytes(chirp(0.5, 48000), 48000, "OGG", "OPUS"),
        "speech.mp3": audio_bytes(stereo, 44100, "MP3", "MPEG_LAYER_III"),
    }


def png_with_header(width_px: int, height_px: int) -> bytes:
    """A PNG whose header claims this size and whose content is a few bytes: a bomb of any size for free."""
    header = struct.pack(">IIBBBBB", width_px, height_px, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(64))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(kind, content) for kind, content in chunks)


def hostile_images() -> dict[str, bytes]:
    """Pictures that must be refused: bombs, wrong types, empty and damaged files."""
    whole = friendly_images()
    jpeg = whole["photo.jpg"]
    frame, scan = jpeg.index(b"\xff\xc0") + 5, jpeg.index(b"\xff\xda")
    text = _png_chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(50_000_000), 9))
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03\0\xff\xff\xff\xff\x08\0\0\0" * 4
    return {
        "empty.png": b"",
        "text.png": b"this is only a note about a picture\n" * 10,
        "200_megapixel.png": png_with_header(20_000, 10_000),
        "huge.png": png_with_header(30_000, 30_000),
        "needle.png": png_with_header(2**31 - 1, 1),
        "long.png": png_with_header(1, 100_000),
        "no_width.png": png_with_header(0, 16),
        "few_bytes.png": png_with_header(4000, 4000),
        "text_bomb.png": whole["rgb.png"][:33] + text + whole["rgb.png"][33:],
        "huge.jpg": jpeg[:frame] + b"\xff\xff\xff\xff" + jpeg[frame + 4 :],
        "no_frame.jpg": jpeg[: frame - 5] + b"\xff\xd9",
        "fill_bytes.jpg": jpeg[:2] + b"\xff" * 8_000_000 + jpeg[2:],
        "segments.jpg": jpeg[:2] + b"\xff\xe0\0\x02" * 2_000_000 + jpeg[2:],
        "bare_markers.jpg": jpeg[:2] + b"\xff\xd0" * 4_000_000 + jpeg[2:],
        "junk.jpg": jpeg[:scan] + bytes(8_000_000) + jpeg[scan:],
        "broken_exif.jpg": image_bytes("JPEG", ramp_picture(40, 24), exif=exif),
        "huge.gif": b"GIF89a\xff\xff\xff\xff" + whole["still.gif"][10:],
        "huge.webp": b"RIFF\x40\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff\x3f\0" * 2 + bytes(40),
        "document.png": b"%PDF-1.7\n" + bytes(100),
        "scan.png": b"II*\0" + bytes(100),
        "postscript.png": b"%!PS-Adobe-3.0 EPSF-3.0\n" + bytes(100),
        "sky.png": b"SIMPLE  =                    T" + bytes(100),
        "noise.png": np.random.default_rng(0).bytes(500),
        "half.png": whole["rgb.png"][: len(whole["rgb.png"]) // 2],
        "half.jpg": jpeg[: len(jpeg) // 2],
        "half.webp": whole["lossy.webp"][: len(whole["lossy.webp"]) // 2],
        "half.gif": whole["still.gif"][: len(whole["still.gif"]) // 2],
    }


def wav_with_header(
    content: bytes,
    rate: int = 16000,
    channels: int = 1,
    *,
    bits: int = 16,
    kind: int = 1,
    claim: int | None = None,
) -> bytes:
    """A WAV file whose header says what the caller likes; `claim` is the stated size of the content."""
    size = len(content) if claim is None else claim
    block = channels * bits // 8
    fields = struct.pack("<HHIIHH", kind, channels, rate, rate * block & 0xFFFFFFFF, block & 0xFFFF, bits)
    riff = (size + 36) & 0xFFFFFFFF
    head = b"RIFF" + struct.pack("<I", riff) + b"WAVEfmt " + struct.pack("<I", 16) + fields
    return head + b"data" + struct.pack("<I", size & 0xFFFFFFFF) + content


def hostile_audio() -> dict[str, bytes]:
    """Recordings that must be refused: empty, lying, over a limit, with samples that are no numbers."""
    whole = friendly_audio()
    silence = bytes(32000)
    flac = whole["stereo.flac"]
    # Total samples are 36 bits that end at byte 26: claim 2^36 - 1 of them.
    lying_flac = flac[:21] + bytes([flac[21] | 0x0F]) + b"\xff" * 4 + flac[26:]
    bad_samples = np.array([0.1, np.nan, 0.2] * 1000, np.float32)
    return {
        "empty.wav": b"",
        "text.wav": b"this is only a note about a talk\n" * 10,
        "header_only.wav": wav_with_header(b""),
        "no_channels.wav": wav_with_header(silence, channels=0),
        "many_channels.wav": wav_with_header(silence, channels=256),
        "rate_0.wav": wav_with_header(silence, rate=0),
        "rate_1.wav": wav_with_header(silence, rate=1),
        "rate_max.wav": wav_with_header(silence, rate=2**31 - 1),
        "nan.wav": wav_with_header(bad_samples.tobytes(), bits=32, kind=3),
        "infinity.wav": wav_with_header(np.full(4000, np.inf, np.float32).tobytes(), bits=32, kind=3),
        "unscaled.wav": wav_with_header(np.full(4000, 20000, np.float32).tobytes(), bits=32, kind=3),
        "lying.flac": lying_flac,
        "cut.wav": whole["pcm16.wav"][:30],
        "cut.flac": flac[:60],
        "cut.ogg": whole["vorbis.ogg"][:60],
        "bare_tag.mp3": b"ID3\x04\0\0\0\0\0\0",
        "aiff.wav": b"FORM" + bytes(100),
        "noise.wav": np.random.default_rng(1).bytes(500),
    }


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
