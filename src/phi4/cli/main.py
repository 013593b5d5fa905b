"""`phi4`: finds the verb, runs it, turns errors into one line and an exit code.

Exit codes: 0 done, 130 stopped by Ctrl-C, otherwise the `exit_code` of the error's class
(`phi4.errors`): 2 wrong request, 3 media, 4 context, 5 model files, 6 model not found, 7 extra
missing, 8 training, 9 memory, 1 anything else we refuse, a full or closed disk too. Other exceptions
are faults of ours and keep their traceback.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence

from phi4.cli import (
    ask,
    bench,
    chat,
    demo,
    doctor,
    evaluate,
    export,
    listing,
    prepare,
    pull,
    remove,
    serve,
    show,
    train,
    transcribe,
    version,
)
from phi4.cli.console import print_error
from phi4.cli.options import use_threads
from phi4.errors import Phi4Error
from phi4.version import __version__

VERBS = {
    "ask": ask,
    "chat": chat,
    "transcribe": transcribe,
    "serve": serve,
    "list": listing,
    "pull": pull,
    "rm": remove,
    "show": show,
    "export": export,
    "prepare": prepare,
    "doctor": doctor,
    "bench": bench,
    "eval": evaluate,
    "train": train,
    "demo": demo,
    "version": version,
}
_INTERRUPTED = 130
_SURROUNDINGS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
"""Failures of the machine around us: disk full, read-only, not allowed."""

_EPILOG = """\
`phi4 VERB --help` lists the options of a verb.

exit codes:
  0  done                      5    broken or misfitting model files
  1  refused for other causes  6    model not found
  2  wrong request             7    an extra is not installed
  3  picture or recording      8    training
  4  prompt too long           9    out of memory
                               130  stopped by Ctrl-C
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser with all verbs."""
    parser = argparse.ArgumentParser(
        prog="phi4",
        description="Ask Phi-4 models, or the built-in nano, about text, pictures and recordings.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"phi4 {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, module in VERBS.items():
        verb = verbs.add_parser(name, help=module.HELP, description=_sentence(module.HELP))
        module.add_arguments(verb)
        verb.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    args = build_parser().parse_args(argv)
    use_threads(getattr(args, "threads", None))
    try:
        code: int = args.run(args)
        sys.stdout.flush()  # so that a closed pipe shows here and not at exit
        return code
    except Phi4Error as error:
        print_error(error, as_json=getattr(args, "json", False))
        return error.exit_code
    except KeyboardInterrupt:
        print("", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader has gone (`phi4 ... | head`). What is still buffered must not raise again at exit.
        _discard_output()
        return 0
    except OSError as error:
        if error.errno not in _SURROUNDINGS:
            raise
        print_error(error, as_json=getattr(args, "json", False))
        _discard_output()
        return 1


def _discard_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."
