#!/usr/bin/env python3
"""Writes examples/media: pictures, recordings and a manifest with the expected answers.

Everything comes from the "examples" split of the small world, which training never sees: its first
records of each task, not a choice. The same versions of espeak-ng, fonts and libraries write the same bytes.

    python scripts/make_examples.py [FOLDER]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import soundfile
from PIL import Image

from phi4.data import Record, generate
from phi4.types import AudioPart, ImagePart, TextPart

CHOSEN = (
    ("read_text", 3),
    ("speech_transcribe", 2),
    ("chart_qa", 2),
    ("spoken_chart_qa", 2),
    ("command", 2),
    ("sums", 2),
)
LIMIT_BYTES = 1_000_000


def write_media(record: Record, stem: str, folder: Path) -> dict[str, list[str]]:
    """Writes the pictures (PNG) and recordings (16-bit WAV) of a record; returns their names by kind."""
    names: dict[str, list[str]] = {"images": [], "audio": []}
    for part in record.media:
        if isinstance(part, ImagePart):
            names["images"].append(f"{stem}.png")
            Image.fromarray(part.source).save(folder / f"{stem}.png", optimize=True)
        elif isinstance(part, AudioPart):
            names["audio"].append(f"{stem}.wav")
            soundfile.write(folder / f"{stem}.wav", part.source, 16000, subtype="PCM_16")
    return {kind: found for kind, found in names.items() if found}


def item(record: Record, stem: str, folder: Path) -> dict[str, Any]:
    """Writes one record's media and returns its entry of the manifest."""
    texts = {m.role: "".join(p.text for p in m.parts if isinstance(p, TextPart)) for m in record.messages}
    entry: dict[str, Any] = {"task": record.task}
    if texts.get("system"):
        entry["system"] = texts["system"]
    entry |= {"prompt": texts["user"], **write_media(record, stem, folder), "answers": list(record.answers)}
    if record.tools:
        entry["tools"] = [tool.definition for tool in record.tools]
    if record.reply.tool_calls:
        entry["tool_calls"] = [
            {"name": c.name, "arguments": dict(c.arguments)} for c in record.reply.tool_calls
        ]
    if "spoken" in record.metadata:
        entry["spoken"] = record.metadata["spoken"]
    return entry


def main(folder: Path) -> None:
    """Replaces the folder's examples."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in (*folder.glob("*.png"), *folder.glob("*.wav")):
        old.unlink()
    items = [
        item(generate(task, "examples", index), f"{task.replace('_', '-')}-{index + 1}", folder)
        for task, count in CHOSEN
        for index in range(count)
    ]
    (folder / "manifest.json").write_text(json.dumps({"items": items}, indent=2) + "\n", encoding="utf-8")
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{len(items)} examples, {size} bytes, in {folder}")
    if size > LIMIT_BYTES:
        raise SystemExit(f"{size} bytes are more than the {LIMIT_BYTES} that the repository should carry")


if __name__ == "__main__":
    root = Path(__file__).resolve().parent.parent
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else root / "examples" / "media")
