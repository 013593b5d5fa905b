"""Options that several verbs share, and what they turn into: a loaded model, sampling, messages, tools."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from phi4.cli.console import working
from phi4.errors import InvalidRequest

if TYPE_CHECKING:
    from phi4.api import Phi4
    from phi4.types import Message

# Spelt out for `--help`, which must not wait for numpy or torch; a test holds them equal to the lists in use.
DTYPES = ("float32", "bfloat16", "float16")
ATTENTION_NAMES = ("eager", "sdpa", "flash")
ROPE_POLICIES = ("reference", "pin", "short")
RUNNERS = ("onnx", "torch")
DETAILS = ("low", "auto", "high")
THREADS_VARIABLE = "PHI4_THREADS"
MAX_THREADS = 1024


def add_model_options(
    parser: argparse.ArgumentParser,
    *,
    pictures: bool = False,
    one_runner: bool = True,
    answers: bool = True,
) -> None:
    """Which model, and how it runs; with `pictures` also how closely it looks at them.

    A verb that compares runners has an option of its own for them, and leaves `one_runner` out; one that does
    not let the model answer for its user leaves `answers` out.
    """
    group = parser.add_argument_group("model")
    group.add_argument(
        "-m",
        "--model",
        default="nano",
        metavar="MODEL",
        help="nano (built in), a directory, or a hub id (default: nano)",
    )
    group.add_argument(
        "--modalities",
        type=modalities,
        metavar="LIST",
        help="load these parts only, e.g. text,speech (default: what the model has, on first use)",
    )
    group.add_argument(
        "--adapter", metavar="DIR", help="a LoRA of yours (PEFT layout), added to the modality's"
    )
    if one_runner:
        group.add_argument(
            "--runner",
            choices=RUNNERS,
            help="onnx for packages, torch for safetensors (default: onnx where the model has a package)",
        )
    group.add_argument(
        "--provider",
        metavar="NAME",
        help="execution provider of ONNX Runtime, such as openvino (default: cpu)",
    )
    group.add_argument("--device", help="cpu, cuda, cuda:1 (default: the best there is)")
    group.add_argument("--dtype", choices=DTYPES, help="arithmetic (default: fits the model)")
    group.add_argument("--attention", choices=ATTENTION_NAMES, help="attention kernel (default: chosen)")
    add_threads_option(group)
    if answers:
        _add_answer_options(group)
    if pictures:
        _add_picture_options(group)


def _add_answer_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--rope-policy",
        choices=ROPE_POLICIES,
        default="reference",
        help="LongRoPE: switch at the boundary, decide once a request, or short only (default: reference)",
    )
    group.add_argument(
        "--no-speculation",
        action="store_true",
        help="draw every token by itself, guess none that stood before",
    )


def _add_picture_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--detail",
        choices=DETAILS,
        help="how closely pictures are looked at; low = as few crops as can be, high = the model's limit "
        "(default: auto, which is high)",
    )
    group.add_argument(
        "--max-crops",
        type=int,
        metavar="N",
        help="local crops a picture may use; fewer = less detail, fewer tokens (default: the model's)",
    )


def add_threads_option(group: argparse._ActionsContainer, what: str = "CPU threads") -> None:
    """How many threads compute; `use_threads` sees to it."""
    group.add_argument(
        "--threads", type=threads, metavar="N", help=f"{what} (default: as many as there are CPUs for us)"
    )


def add_voice_activity_option(group: argparse._ActionsContainer) -> None:
    """Which model judges where somebody speaks."""
    group.add_argument(
        "--voice-activity",
        metavar="FILE",
        help="ONNX file (Silero VAD 5 or 6) that judges where somebody speaks (default: energy and spectrum)",
    )


def threads(text: str) -> int:
    """Type of an option that is a number of threads."""
    if not (text.isdecimal() and 1 <= int(text) <= MAX_THREADS):
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number from 1 to {MAX_THREADS}")
    return int(text)


def use_threads(count: int | None) -> None:
    """Compute with so many threads; called before torch and numpy are imported, which read theirs then."""
    if count is not None:
        for variable in (THREADS_VARIABLE, "OMP_NUM_THREADS"):
            os.environ[variable] = str(count)


def add_sampling_options(parser: argparse.ArgumentParser) -> None:
    """How tokens are drawn."""
    group = parser.add_argument_group("answer")
    group.add_argument(
        "--max-new-tokens",
        type=int,
        metavar="N",
        help="length limit (default: 512, more after long recordings)",
    )
    group.add_argument("--temperature", type=float, default=0.0, metavar="T", help="0 = greedy (default)")
    group.add_argument(
        "--top-k", type=int, default=0, metavar="K", help="keep the K likeliest tokens; 0 = all"
    )
    group.add_argument("--top-p", type=float, default=1.0, metavar="P", help="keep this probability mass")
    group.add_argument("--seed", type=int, metavar="S", help="makes a drawn answer repeatable")
    group.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="ends the answer; may be repeated"
    )


def load_model(args: argparse.Namespace) -> Phi4:
    """Load the model the options name, with a spinner on a terminal."""
    with working(f"loading {args.model}"):
        import phi4

        return phi4.load(
            args.model,
            device=args.device,
            dtype=args.dtype,
            modalities=args.modalities,
            rope_policy=args.rope_policy,
            attention=args.attention,
            adapter=args.adapter,
            runner=args.runner,
            provider=args.provider,
            speculate=not args.no_speculation,
            max_crops=getattr(args, "max_crops", None),
            voice_activity=getattr(args, "voice_activity", None),
        )


def sampling(args: argparse.Namespace) -> dict[str, Any]:
    """Sampling options for `Phi4.chat` and `Phi4.stream`, which judge their values.

    A length limit is passed on only when it was asked for: the default one gives way to a long prompt.
    """
    names = ("temperature", "top_k", "top_p", "seed", "stop")
    chosen = {name: getattr(args, name) for name in names}
    return chosen if args.max_new_tokens is None else chosen | {"max_new_tokens": args.max_new_tokens}


def system_message(text: str) -> Message:
    """The system turn."""
    from phi4.types import Message, TextPart

    return Message("system", (TextPart(text),))


def user_message(
    text: str,
    images: Sequence[str],
    audio: Sequence[str],
    videos: Sequence[str] = (),
    files: Sequence[str] = (),
) -> Message:
    """A user turn: pictures, then recordings, then text, which is the order the model was trained with."""
    from phi4.types import AudioPart, FilePart, ImagePart, Message, Part, TextPart, VideoPart

    parts: list[Part] = [ImagePart(Path(path)) for path in images]
    parts += [VideoPart(Path(path)) for path in videos]
    parts += [AudioPart(Path(path)) for path in audio]
    parts += [FilePart(Path(path)) for path in files]
    parts += [TextPart(text)] if text else []
    return Message("user", tuple(parts))


def check_media(
    images: Sequence[str], audio: Sequence[str], videos: Sequence[str] = (), files: Sequence[str] = ()
) -> None:
    """Look at files before a model is loaded for them: a wrong path should not cost a minute.

    Raises:
        InvalidMedia: One is missing, empty, too big or of the wrong kind.
        MissingExtra: One needs PyAV.
    """
    from phi4.processing.media import MediaKind, open_media

    kinds: dict[MediaKind, Sequence[str]] = {
        "image": images,
        "audio": audio,
        "video": videos,
        "document": files,
    }
    for kind, paths in kinds.items():
        for path in paths:
            open_media(Path(path), kind).stream.close()


def make_folder(folder: Path) -> None:
    """Make the folder of `--out` before the work: afterwards is too late to learn that it cannot be.

    Raises:
        InvalidRequest: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidRequest(f"--out {folder}: {error.strerror}; give a folder that can be written") from None


def read_prompt(prompt: str | None) -> str:
    """The prompt; "-" reads standard input.

    Raises:
        InvalidRequest: Standard input is not text.
    """
    if prompt != "-":
        return prompt or ""
    try:
        return sys.stdin.read().strip()
    except UnicodeDecodeError as error:
        raise not_text(error) from None


def not_text(error: UnicodeDecodeError) -> InvalidRequest:
    """The error for standard input that cannot be decoded."""
    return InvalidRequest(
        f"standard input is not {error.encoding} text (byte 0x{error.object[error.start]:02x} at "
        f"{error.start}); convert it first, for instance with iconv"
    )


def read_tools(path: str | None) -> list[dict[str, Any]]:
    """Tool definitions from a JSON file: a list, or one object.

    Raises:
        InvalidRequest: The file cannot be read or is not such JSON.
    """
    if path is None:
        return []
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidRequest(
            f"cannot read the tools file {path}: {error.strerror}; give an existing file"
        ) from None
    except ValueError as error:
        raise InvalidRequest(
            f"the tools file {path} is not JSON ({error}); give a list of functions"
        ) from None
    except RecursionError:
        raise InvalidRequest(f"the tools file {path} is nested too deeply; make it flatter") from None
    found = [found] if isinstance(found, dict) else found
    if not isinstance(found, list) or not all(isinstance(tool, dict) for tool in found):
        raise InvalidRequest(
            f"the tools file {path} must hold a list of objects, each a function the model may call"
        )
    return found


def modalities(text: str) -> tuple[str, ...]:
    """Type of an option that lists modalities, with commas."""
    from phi4.types import Modality

    valid = get_args(Modality)
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    wrong = [name for name in names if name not in valid]
    if wrong or not names:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of {', '.join(valid)}")
    return names
