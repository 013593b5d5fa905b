"""`phi4 transcribe`: recordings to text or subtitles, one after the other."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi4.cli import answers, options
from phi4.cli.console import json_text, print_error, print_text, printable, stderr, working
from phi4.errors import InvalidRequest, Phi4Error

if TYPE_CHECKING:
    from phi4.api import Phi4
    from phi4.processing.stitching import Transcript

HELP = "write down what is said in recordings, as text or subtitles"
FORMATS = {"text": ".txt", "json": ".json", "srt": ".srt", "vtt": ".vtt", "verbose_json": ".json"}
"""Formats, and what their files are called."""
_TIMED = ("srt", "vtt", "verbose_json")
_WHOLE_FILES = ("srt", "vtt")
"""Formats of which several in a row are no file."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this verb."""
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="WAV, FLAC, OGG or MP3 (M4A, MP4, WebM: extra video)"
    )
    parser.add_argument(
        "--format",
        choices=tuple(FORMATS),
        help="text, json (one object a line), subtitles (srt, vtt) or OpenAI's verbose_json; times are "
        "derived from the sound (default: text)",
    )
    parser.add_argument("--json", action="store_true", help="the same as --format json")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write a file for each recording there, named like it"
    )
    parser.add_argument(
        "--hot-words",
        action="append",
        default=[],
        metavar="WORDS",
        help="names and words to expect, with commas; added to the prompt, may be repeated",
    )
    heard = parser.add_mutually_exclusive_group()
    heard.add_argument(
        "--hear-all", action="store_true", help="hear silence, noise and song too (default: speech alone)"
    )
    options.add_voice_activity_option(heard)
    parser.add_argument(
        "--max-segment-s",
        type=float,
        metavar="S",
        help="longest piece a long recording is cut into (default: as the model was trained, 30; nano 4)",
    )
    parser.add_argument("--stats", action="store_true", help="adapter, tokens and times on standard error")
    options.add_sampling_options(parser)
    options.add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Transcribe each file; one that fails is reported, the others still run, the first exit code stays."""
    form = _format(args)
    args.json = form in ("json", "verbose_json")  # errors too, for the program that reads
    targets = _targets(args.files, args.out, form)
    code = 0
    files = []
    for file in args.files:
        try:
            options.check_media((), [file])
            files.append(file)
        except Phi4Error as error:
            print_error(error, as_json=args.json)
            code = code or error.exit_code
    if not files:
        return code
    model = options.load_model(args)
    for file in files:
        try:
            with working(f"listening to {file}"):
                transcript = _hear(model, file, form, args)
            _deliver(file, transcript, form, targets.get(file), args)
        except Phi4Error as error:
            print_error(error, as_json=args.json)
            code = code or error.exit_code
    return code


def _format(args: argparse.Namespace) -> str:
    """The format that was asked for.

    Raises:
        InvalidRequest: `--json` and another format were.
    """
    if args.json and args.format not in (None, "json"):
        raise InvalidRequest(f"--json is --format json: leave it out with --format {args.format}")
    return "json" if args.json else args.format or "text"


def _targets(files: Sequence[str], folder: Path | None, form: str) -> dict[str, Path]:
    """Where each recording's file goes; empty = all go to standard output.

    Raises:
        InvalidRequest: Two would be one file, or files of several recordings would follow each other.
    """
    if folder is None:
        if len(files) > 1 and form in _WHOLE_FILES:
            raise InvalidRequest(f"--format {form} of several recordings: give --out DIR, a file for each")
        return {}
    found = {file: folder / f"{Path(file).stem}{FORMATS[form]}" for file in files}
    if len(set(found.values())) < len(files):
        raise InvalidRequest(
            f"--out {folder}: two recordings would have one file; transcribe them one by one"
        )
    options.make_folder(folder)
    return found


def _hear(model: Phi4, file: str, form: str, args: argparse.Namespace) -> Transcript:
    return model.transcribe(
        file,
        timestamps=form in _TIMED,
        hot_words=",".join(args.hot_words),
        skip_silence=not args.hear_all,
        max_segment_s=args.max_segment_s,
        **options.sampling(args),
    )


def _deliver(
    file: str, transcript: Transcript, form: str, target: Path | None, args: argparse.Namespace
) -> None:
    """Write a transcript to its file, or to standard output under its name where there are several."""
    content = _rendered(file, transcript, form, args.temperature)
    if target is not None:
        try:
            target.write_text(content, encoding="utf-8")
        except OSError as error:
            raise InvalidRequest(f"--out: {target} cannot be written: {error.strerror}") from None
        print(printable(f"{file} -> {target}"), file=sys.stderr)
    else:
        print_text(f"{file}: {content}" if form == "text" and len(args.files) > 1 else content, end="")
    if args.stats:
        stderr().print(answers.statistics(transcript), style="dim", soft_wrap=True)
    elif not args.json:
        answers.note_if_cut(transcript)


def _rendered(file: str, transcript: Transcript, form: str, temperature: float) -> str:
    """A transcript in one of the formats, with its last line break."""
    from phi4.processing.subtitles import to_srt, to_vtt, verbose_json

    if form == "text":
        return f"{transcript.text}\n"
    if form == "srt":
        return to_srt(transcript.segments)
    if form == "vtt":
        return to_vtt(transcript.segments)
    if form == "verbose_json":
        told = verbose_json(transcript.segments, transcript.duration_s, temperature=temperature)
        return json_text({"file": file} | told)
    return json_text({"file": file} | answers.as_json(transcript) | _segments(transcript))


def _segments(transcript: Transcript) -> dict[str, Any]:
    from phi4.processing.stitching import DERIVED

    segments = [
        {"start_s": s.start_s, "end_s": s.end_s, "text": s.text, "finish_reason": s.finish_reason}
        for s in transcript.segments
    ]
    return {"duration_s": transcript.duration_s, "segments": segments, "segment_times": DERIVED}
