"""`phi4 transcribe`: recordings to text, one after the other."""

from __future__ import annotations

import argparse

from phi4.cli import answers, options
from phi4.cli.console import print_error, print_json, print_text, stderr, working
from phi4.errors import Phi4Error

HELP = "write down what is said in recordings"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this verb."""
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="WAV, FLAC, OGG or MP3 (M4A, MP4, WebM: extra video)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a file, one a line")
    parser.add_argument("--stats", action="store_true", help="adapter, tokens and times on standard error")
    options.add_sampling_options(parser)
    options.add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Transcribe each file; one that fails is reported, the others still run, the first exit code stays."""
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
                completion = model.transcribe(file, **options.sampling(args))
        except Phi4Error as error:
            print_error(error, as_json=args.json)
            code = code or error.exit_code
            continue
        if args.json:
            print_json({"file": file} | answers.as_json(completion))
        else:
            print_text(f"{file}: {completion.text}" if len(args.files) > 1 else completion.text)
        if args.stats:
            stderr().print(answers.statistics(completion), style="dim", soft_wrap=True)
        elif not args.json:
            answers.note_if_cut(completion)
    return code
