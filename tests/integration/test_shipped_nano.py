"""The built-in model as a base install has it: both forms, small, up to date, answering without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile

import phi4
from phi4.checkpoint import open_checkpoint, resolve_model
from phi4.onnx.building import ExportOptions, export_package

NANO = Path(phi4.__file__).parent / "assets" / "nano"
BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "safetensors", "transformers", "onnx_ir"):
            raise ImportError(f"{name} is blocked in this test")
sys.meta_path.insert(0, Blocker())
from phi4.cli.main import main
raise SystemExit(main(sys.argv[1:]))
"""


def without_torch(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def digests(folder: Path) -> dict[str, str]:
    files = json.loads((folder / "manifest.json").read_text())["files"]
    return {name: entry["sha256"] for name, entry in files.items()}


def test_shipped_package_is_what_exporting_the_shipped_weights_writes(tmp_path: Path) -> None:
    fresh = export_package(
        open_checkpoint(resolve_model("nano")), tmp_path / "nano", ExportOptions(precision="int8")
    )
    assert digests(fresh) == digests(NANO / "onnx")


def test_shipped_package_holds_the_files_of_its_manifest_alone() -> None:
    assert {path.name for path in (NANO / "onnx").iterdir()} == {*digests(NANO / "onnx"), "manifest.json"}


def test_both_forms_of_nano_together_stay_under_45_mb() -> None:
    sizes = [file.stat().st_size for file in NANO.rglob("*") if file.is_file()]
    assert (NANO / "model.safetensors").exists() and sum(sizes) < 45_000_000


def test_nano_answers_about_text_pictures_and_sound_where_torch_does_not_exist(repository: Path) -> None:
    media = repository / "examples" / "media"
    picture, spoken = str(media / "spoken-chart-qa-1.png"), str(media / "spoken-chart-qa-1.wav")
    for arguments in (
        ("What is 2 + 3?",),
        ("What is 2 + 3?", "--device", "cpu"),
        ("What does it say?", "--image", str(media / "read-text-1.png")),
        ("--audio", spoken),
        ("--audio", spoken, "--image", picture),
    ):
        answer = json.loads(without_torch("ask", *arguments, "--json", "--max-new-tokens", "8"))
        assert answer["text"] and answer["usage"]["completion_tokens"] >= 1, arguments


def test_nano_reads_the_first_example_and_hears_the_second(repository: Path) -> None:
    media = repository / "examples" / "media"
    seen = without_torch("ask", "What does it say?", "--image", str(media / "read-text-1.png"))
    heard = without_torch("transcribe", str(media / "speech-transcribe-2.wav"))
    assert seen.strip() == "Page 15"
    assert heard.strip().lower().rstrip(".") == "the water in the desert is shallow"


def test_nano_hears_a_long_recording_in_parts_of_the_length_it_was_trained_on(repository: Path) -> None:
    file = repository / "examples" / "media" / "speech-transcribe-2.wav"
    samples, rate_hz = soundfile.read(file, dtype="float32")
    pause = np.zeros(round(0.75 * rate_hz), np.float32)
    heard = phi4.load("nano").transcribe(np.concatenate([samples, pause] * 5))
    assert [part.text for part in heard.segments] == ["the water in the desert is shallow"] * 5
