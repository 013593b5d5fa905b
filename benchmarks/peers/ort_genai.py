"""onnxruntime-genai on the CPU with files of its own model builder; `genai_config.json` tells the threads."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime_genai

CONFIG = "genai_config.json"


class Peer:
    """A folder written by `onnxruntime_genai.models.builder`."""

    packages = ("onnxruntime-genai", "onnxruntime")

    def load(self, path: str, threads: int) -> dict[str, Any]:
        """Set the threads in the folder's config, by default the cores of the machine, and open it."""
        set_threads(Path(path), threads)
        start = time.perf_counter()
        self._model = onnxruntime_genai.Model(path)
        seconds = time.perf_counter() - start
        nbytes = sum(file.stat().st_size for file in Path(path).glob("*.data"))
        return {"seconds": seconds, "facts": f"int4, {threads} threads", "weight_bytes": nbytes}

    def warm_up(self, ids: Sequence[int]) -> dict[str, Any]:
        """Run everything once."""
        self.decode(ids, 2)
        return {}

    def prefill(self, ids: Sequence[int]) -> dict[str, Any]:
        """From a new generator to the first token."""
        start = time.perf_counter()
        self._begun(ids, 2)
        return {"seconds": time.perf_counter() - start, "tokens": len(ids)}

    def decode(self, ids: Sequence[int], steps: int) -> dict[str, Any]:
        """Greedy steps after a prompt; one step before the clock starts."""
        generator = self._begun(ids, steps + 3)
        generator.generate_next_token()
        start = time.perf_counter()
        for _ in range(steps):
            generator.generate_next_token()
        return {"seconds": time.perf_counter() - start, "tokens": steps}

    def _begun(self, ids: Sequence[int], room: int) -> Any:
        """A generator that has read a prompt and chosen its first token; no token ends the answer early."""
        params = onnxruntime_genai.GeneratorParams(self._model)
        length = len(ids) + room
        params.set_search_options(max_length=length, min_length=length, do_sample=False)
        generator = onnxruntime_genai.Generator(self._model, params)
        generator.append_tokens(np.array([ids], np.int32))
        generator.generate_next_token()
        return generator


def set_threads(folder: Path, threads: int) -> None:
    """Write the number of threads into the options of every session."""
    where = folder / CONFIG
    config = json.loads(where.read_text(encoding="utf-8"))
    for part in config["model"].values():
        if isinstance(part, dict) and "session_options" in part:
            part["session_options"]["intra_op_num_threads"] = threads
    where.write_text(json.dumps(config, indent=4) + "\n", encoding="utf-8")
