"""Videos and PDF documents for tests, made in memory: every frame tells its number, every page its text.

`video_bytes` needs PyAV; `pdf_bytes` writes a PDF by hand and needs nothing.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from phi4.shapes import FloatArray


def video_bytes(
    num_frames: int,
    *,
    rate: int = 10,
    size: tuple[int, int] = (64, 48),
    format_id: str = "mp4",
    codec: str = "libx264",
    samples: FloatArray | None = None,
    rotation: int = 0,
    distance: int = 12,
) -> bytes:
    """A video whose frame k is grey, level 16 + 7 k modulo 224, its left half 16 darker; needs PyAV.

    Args:
        num_frames: How many.
        rate: Frames a second.
        size: (width, height), even numbers.
        format_id: As FFmpeg calls it: "mp4", "mov" or "webm".
        codec: "libx264" or "mpeg4", or "libvpx-vp9" in WebM.
        samples: `[S]` sound at 16 kHz; None = no sound track.
        rotation: Degrees counter-clockwise that players are to turn it by.
        distance: Frames from one that stands for itself to the next.
    """
    av = importlib.import_module("av")
    stream = io.BytesIO()
    with av.open(stream, "w", format=format_id) as container:
        track = container.add_stream(codec, rate=rate)
        track.width, track.height = size
        track.pix_fmt, track.gop_size = "yuv420p", distance
        if rotation:
            track.set_display_rotation(rotation)
        sound = None if samples is None else container.add_stream("aac", rate=16000, layout="mono")
        for number in range(num_frames):
            pixels = np.full((size[1], size[0], 3), frame_level(number), np.uint8)
            pixels[:, : size[0] // 2] -= 16
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            container.mux(track.encode(frame))
        container.mux(track.encode(None))
        if sound is not None and samples is not None:
            heard = av.AudioFrame.from_ndarray(samples[None, :], format="fltp", layout="mono")
            heard.rate, heard.pts, heard.time_base = 16000, 0, Fraction(1, 16000)
            container.mux(sound.encode(heard))
            container.mux(sound.encode(None))
    return stream.getvalue()


def frame_level(number: int) -> int:
    """How light the right half of a frame of `video_bytes` is."""
    return 16 + 7 * number % 224


def pdf_bytes(
    pages: Sequence[str],
    size_pt: tuple[float, float] = (595, 842),
    *,
    trailer: str = "",
    filled_in: bool = False,
) -> bytes:
    """A PDF with a line of text in Helvetica for each line of each page.

    Args:
        pages: Text of each page, ASCII.
        size_pt: Width and height of the pages; 1 is a 72nd of an inch.
        trailer: More entries of the trailer, such as `/Encrypt`.
        filled_in: Whether a form field at the bottom left of each page, 100 by 50, is filled with black.
    """
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    box = f"[0 0 {size_pt[0]:g} {size_pt[1]:g}]"
    field = f"[{4 + 2 * len(pages)} 0 R]"
    objects = [
        f"<< /Type /Catalog /Pages 2 0 R {f'/AcroForm << /Fields {field} >>' if filled_in else ''} >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} /MediaBox {box} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, text in enumerate(pages):
        lines = " ".join(f"({_pdf_escaped(line)}) Tj T*" for line in text.split("\n"))
        content = f"BT /F1 24 Tf 30 TL 40 {size_pt[1] - 60:g} Td {lines} ET"
        fonts = "<< /Font << /F1 3 0 R >> >>"
        notes = f"/Annots {field}" if filled_in else ""
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /Resources {fonts} /Contents {5 + 2 * number} 0 R {notes} >>"
        )
        objects.append(f"<< /Length {len(content)} >>\nstream\n{content}\nendstream")
    if filled_in:
        objects.append(
            "<< /Type /Annot /Subtype /Widget /FT /Tx /T (name) /V (x) /F 4 /Rect [0 0 100 50] "
            f"/AP << /N {5 + 2 * len(pages)} 0 R >> >>"
        )
        black = "0 g 0 0 100 50 re f"
        form = f"<< /Type /XObject /Subtype /Form /BBox [0 0 100 50] /Length {len(black)} >>"
        objects.append(f"{form}\nstream\n{black}\nendstream")
    file = b"%PDF-1.4\n"
    places = []
    for number, body in enumerate(objects, 1):
        places.append(len(file))
        file += f"{number} 0 obj\n{body}\nendobj\n".encode("ascii")
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    start = len(file)
    file += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}".encode("ascii")
    end = f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R {trailer} >>\nstartxref\n{start}\n%%EOF\n"
    return file + end.encode("ascii")


def _pdf_escaped(line: str) -> str:
    return line.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")
