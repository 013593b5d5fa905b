"""`phi4 serve`: an OpenAI-compatible server for a model."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi4.cli import options
from phi4.cli.console import print_text
from phi4.errors import InvalidRequest, MissingExtra

if TYPE_CHECKING:
    from phi4.server.settings import ServerSettings
    from phi4.server.worker.client import EngineClient

HELP = "answer many users at once over HTTP, as OpenAI's API does"
NEEDED = ("fastapi", "llguidance", "msgspec", "prometheus_client", "pypdfium2", "python_multipart", "uvicorn")
_SHORTEST_KEY = 16

# Option, type, what it means; `ServerSettings` has the defaults and judges the values.
LIMITS: tuple[tuple[str, type[int] | type[float], str], ...] = (
    ("max_requests", int, "requests under way, waiting ones included"),
    ("max_requests_per_key", int, "of those, of one key"),
    ("max_running", int, "answers computed at a time"),
    ("max_wait_s", float, "longest wait for a turn that is to be expected"),
    ("max_prompt_tokens", int, "longest prompt"),
    ("max_new_tokens", int, "longest answer"),
    ("default_new_tokens", int, "longest answer when a request does not say"),
    ("max_waiting_tokens", int, "tokens of all requests under way"),
    ("max_body_bytes", int, "largest body"),
    ("max_held_bytes", int, "bodies and prepared prompts of all requests under way"),
    ("max_media", int, "pictures, recordings and files in a request"),
    ("max_rows", int, "prompts, or parts of a recording, in a request"),
    ("max_choices", int, "largest n"),
    ("max_connections", int, "connections open at a time"),
    ("prefix_cache_bytes", int, "cache memory kept for beginnings of prompts"),
    ("encoder_cache_bytes", int, "memory kept for pictures and recordings that come again"),
    ("cache_bytes", int, "cache memory of everything together"),
    ("preparers", int, "processes that decode what clients send"),
    ("preparer_memory_bytes", int, "memory one of them may take for a request"),
    ("prepare_timeout_s", float, "longest preparation"),
    ("body_timeout_s", float, "longest time for a body to arrive"),
    ("fetch_timeout_s", float, "longest time for all that the URLs of a request name"),
    ("queue_timeout_s", float, "longest wait for a turn"),
    ("first_token_timeout_s", float, "longest time to the first token"),
    ("request_timeout_s", float, "longest life of a request"),
    ("drain_timeout_s", float, "time to finish after SIGTERM"),
    ("stream_interval_s", float, "least time between two pieces of an answer"),
    ("hang_s", float, "silence after which the engine is started again"),
    ("start_timeout_s", float, "longest start of the engine"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this verb."""
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (default: this machine only)"
    )
    parser.add_argument("--port", type=int, default=8000, help="0 = any that is free (default: 8000)")
    _add_access(parser.add_argument_group("who may ask"))
    _add_model(parser.add_argument_group("model"))
    limits = parser.add_argument_group("limits (see docs/serving.md for the defaults)")
    for name, kind, meaning in LIMITS:
        unit = "N" if kind is int else "SECONDS"
        limits.add_argument("--" + name.replace("_", "-"), type=kind, metavar=unit, help=meaning)


def _add_access(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--api-key",
        action="append",
        default=[],
        metavar="KEY",
        help="a key clients must give; may be repeated",
    )
    group.add_argument("--api-key-file", metavar="FILE", help="the same from a file, one key a line")
    group.add_argument(
        "--allowed-host",
        action="append",
        default=[],
        metavar="NAME",
        help='value of the Host header to answer beside this machine\'s own, "*" = any; may be repeated',
    )
    group.add_argument(
        "--allowed-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="site whose pages may ask through a browser, e.g. https://chat.example; may be repeated",
    )
    group.add_argument("--open-to-all", action="store_true", help="serve other machines without keys")
    group.add_argument("--allow-remote", action="store_true", help="fetch media given as http(s) URLs")
    group.add_argument("--no-page", action="store_true", help="no chat page at /")
    group.add_argument("--log-prompts", action="store_true", help="write prompts and answers to the log")


def _add_model(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "-m",
        "--model",
        default="nano",
        metavar="MODEL",
        help="nano (built in), a directory, or a hub id (default: nano)",
    )
    group.add_argument(
        "--served-model-name",
        action="append",
        default=[],
        metavar="NAME",
        help="what requests may call it; may be repeated (default: its own name)",
    )
    group.add_argument(
        "--adapter",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="a LoRA (PEFT layout) that requests choose as a model of this name; may be repeated",
    )
    group.add_argument("--modalities", type=options.modalities, metavar="LIST", help="e.g. text,speech")
    group.add_argument("--runner", choices=options.RUNNERS, help="onnx for packages, torch for safetensors")
    group.add_argument("--provider", metavar="NAME", help="execution provider of ONNX Runtime")
    group.add_argument("--device", help="cpu, cuda, cuda:1 (default: the best there is)")
    group.add_argument("--dtype", choices=options.DTYPES, help="arithmetic (default: fits the model)")
    group.add_argument("--attention", choices=options.ATTENTION_NAMES, help="attention kernel")
    group.add_argument("--rope-policy", choices=options.ROPE_POLICIES, help="LongRoPE (default: reference)")
    options.add_threads_option(group)
    group.add_argument("--max-crops", type=int, metavar="N", help="local crops a picture may use")
    options.add_voice_activity_option(group)
    group.add_argument("--no-speculation", action="store_true", help="draw every token by itself")
    group.add_argument(
        "--no-batch-invariance",
        action="store_true",
        help="let last bits depend on how many answers share a step; a lone one comes up to a tenth sooner",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until stopped."""
    for package in NEEDED:
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(
                f"serving needs {package}, which is not installed; from the checkout: pip install '.[serve]'"
            )
    from phi4.server.serving import run as serve

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s server: %(message)s")
    return serve(settings_of(args), _announce)


def settings_of(args: argparse.Namespace) -> ServerSettings:
    """The settings that the options make.

    Raises:
        InvalidRequest: One of them cannot be.
    """
    from phi4.server.registry import adapter_option, check_names
    from phi4.server.settings import ServerSettings

    adapters = [adapter_option(text) for text in args.adapter]
    check_names([*args.served_model_name, *(name for name, _ in adapters)])
    given: dict[str, Any] = {name: getattr(args, name) for name, _, _ in LIMITS}
    for name in (
        "modalities",
        "runner",
        "provider",
        "device",
        "dtype",
        "attention",
        "rope_policy",
        "max_crops",
        "voice_activity",
    ):
        given[name] = getattr(args, name)
    chosen = {name: value for name, value in given.items() if value is not None}
    return ServerSettings(
        model=args.model,
        host=args.host,
        port=args.port,
        served_names=tuple(args.served_model_name),
        adapters=tuple(adapters),
        allowed_hosts=tuple(args.allowed_host),
        allowed_origins=tuple(args.allowed_origin),
        key_digests=tuple(hashlib.sha256(key.encode()).hexdigest() for key in _keys(args)),
        open_to_all=args.open_to_all,
        allow_remote=args.allow_remote,
        page=not args.no_page,
        log_prompts=args.log_prompts,
        speculate=not args.no_speculation,
        batch_invariant=not args.no_batch_invariance,
        **chosen,
    )


def _keys(args: argparse.Namespace) -> list[str]:
    keys = list(args.api_key)
    if args.api_key_file is not None:
        try:
            lines = Path(args.api_key_file).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            raise InvalidRequest(
                f"--api-key-file {args.api_key_file} cannot be read; give a text file"
            ) from None
        keys += [line.strip() for line in lines if line.strip()]
        if not keys:
            raise InvalidRequest(f"--api-key-file {args.api_key_file} holds no key; put one on each line")
    for key in keys:
        if len(key) < _SHORTEST_KEY or not key.isascii() or not key.isprintable() or " " in key:
            raise InvalidRequest(
                f"an API key is shorter than {_SHORTEST_KEY} characters, or has others than ASCII "
                "without spaces; make one, for instance with: openssl rand -hex 24"
            )
    return keys


def _announce(url: str, client: EngineClient) -> None:
    card = client.card
    print_text(f"{card.name} ({card.runner}, {card.device}, {card.dtype}) answers at {url}/v1")
    if not client.settings.key_digests:
        print("phi4: no key is asked for", file=sys.stderr)
