"""`phi4 ask`: one prompt, with pictures and recordings if wanted, one answer."""

from __future__ import annotations

import argparse
import sys

from phi4.cli import answers, options, pictures
from phi4.cli.console import print_json, printable, stderr
from phi4.errors import InvalidMedia, InvalidRequest

HELP = "answer one prompt, about pictures, recordings, videos and documents too"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this verb."""
    parser.add_argument("prompt", nargs="?", help='the question; "-" reads it from standard input')
    parser.add_argument(
        "--image", nargs="+", action="extend", default=[], metavar="FILE", help="pictures to look at"
    )
    parser.add_argument(
        "--audio", nargs="+", action="extend", default=[], metavar="FILE", help="recordings to hear"
    )
    parser.add_argument(
        "--video",
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="videos: frames and their sound (MP4, MOV, WebM; extra video)",
    )
    parser.add_argument(
        "--file",
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="documents: PDF (extra serve), web pages, text",
    )
    parser.add_argument("--system", metavar="TEXT", help="instructions for the whole conversation")
    parser.add_argument("--tools", metavar="FILE", help="JSON list of functions the model may call")
    parser.add_argument(
        "--json", action="store_true", help="one JSON object with text, calls, usage and timing"
    )
    parser.add_argument("--stats", action="store_true", help="adapter, tokens and times on standard error")
    parser.add_argument(
        "--cost",
        action="store_true",
        help="no answer: say what the pictures cost at each detail, and how long their encoder takes here",
    )
    options.add_sampling_options(parser)
    options.add_model_options(parser, pictures=True)


def run(args: argparse.Namespace) -> int:
    """Ask, and write the answer as it comes."""
    prompt = options.read_prompt(args.prompt)
    if not (prompt or args.image or args.audio or args.video or args.file):
        raise InvalidRequest(
            'nothing to answer: give a prompt, --image or --audio, such as phi4 ask "What is 2 + 3?"'
        )
    messages = [options.system_message(args.system)] if args.system else []
    messages.append(options.user_message(prompt, args.image, args.audio, args.video, args.file))
    tools = options.read_tools(args.tools)
    try:
        options.check_media(args.image, args.audio, args.video, args.file)
    except InvalidMedia as error:
        if prompt:
            raise
        raise InvalidMedia(
            f'{error}; a question stands before the options: phi4 ask "What is it?" --image FILE'
        ) from None
    if args.cost and not args.image:
        raise InvalidRequest("--cost says what pictures cost: give --image FILE")
    model = options.load_model(args)
    costs = [pictures.cost_of(model, file, args.detail) for file in args.image]
    if args.cost:
        pictures.show_costs(costs, model.seconds_per_crop(), as_json=args.json)
        return 0
    deltas = model.stream(messages, tools=tools, detail=args.detail, **options.sampling(args))
    if args.json:
        completion = next(delta.completion for delta in deltas if delta.completion)
        print_json(answers.as_json(completion) | {"pictures": costs})
    else:
        for cost in costs:
            print(printable(pictures.cost_line(cost)), file=sys.stderr, flush=True)
        completion = answers.stream_answer(deltas)
    if args.stats:
        stderr().print(answers.statistics(completion), style="dim", soft_wrap=True)
    elif not args.json:
        answers.note_if_cut(completion)
    return 0
