"""llama.cpp's own server on the same model: as GGUF, its matrices in 8 bits as ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from harness.environments import OURS as OUR_ENVIRONMENT
from harness.environments import NotHere
from harness.processes import last_words, run_watched

from load.bench import Bench
from load.cells import LLAMA
from load.models import Served
from load.servers import Server

FOLDER = "llamaserver"
SLOTS = 8
PRECISION = "q8_0"


def fixed_length(tokens: int) -> dict[str, Any]:
    """Fields of a body whose answer has just so many tokens."""
    return {
        "max_tokens": tokens,
        "ignore_eos": True,
        "temperature": 0.0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def server(bench: Bench, served: Served) -> Server:
    """Its server, ready.

    Raises:
        NotHere: It is not installed, or its file could not be made.
    """
    folder, sizes = bench.environments.folder / FOLDER, served.sizes
    programs = [folder / name for name in ("llama-server", "llama-quantize")]
    for program in programs:
        if not program.is_file():
            raise NotHere(f"not installed ({program} is missing): make bench-peers")
    model = gguf(bench, served, programs[1])
    threads = str(bench.environments.threads)
    room = SLOTS * 256 * -(-2 * (sizes.prompt + sizes.answer) // 256)
    command = [str(programs[0]), "--model", str(model), "--host", "127.0.0.1", "--port", "{port}"]
    command += ["--threads", threads, "--threads-batch", threads, "--parallel", str(SLOTS)]
    command += ["--ctx-size", str(room), "--jinja", "--alias", served.name]
    log = bench.scratch / "logs" / f"llama-server-{served.name}.log"
    found = Server(LLAMA, command, bench.environments.variables(LLAMA), log, "/health")
    found.facts["versions"] = {"llama.cpp": _version(programs[0])}
    return found


def gguf(bench: Bench, served: Served, quantise: Path) -> Path:
    """The model as a GGUF file, made when it is not there.

    Raises:
        NotHere: It cannot be made.
    """
    plain = bench.scratch / f"{served.name}-f16.gguf"
    found = bench.scratch / f"{served.name}-{PRECISION}.gguf"
    export = [sys.executable, "-P", "-m", "phi4", "export", served.path, "--format", "gguf"]
    steps = (
        (plain, [*export, "--dtype", "float16", "--out", str(plain)]),
        (found, [str(quantise), "--pure", str(plain), str(found), PRECISION]),
    )
    log = bench.scratch / "logs" / "gguf.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    for path, command in steps:
        if path.is_file():
            continue
        ended = run_watched(command, bench.environments.variables(OUR_ENVIRONMENT), log)
        if ended.code or not path.is_file():
            path.unlink(missing_ok=True)
            raise NotHere(f"{path.name} could not be made: {last_words(log)}")
    return found


def _version(program: Path) -> str:
    """What it says of itself."""
    done = subprocess.run([str(program), "--version"], capture_output=True, text=True, timeout=60)
    lines = (done.stdout + done.stderr).splitlines()
    return next((line for line in lines if line.startswith("version")), "unknown").partition(": ")[2]
