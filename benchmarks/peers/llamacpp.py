"""llama.cpp through the C functions of llama-cpp-python; nothing of a step is Python but the greedy choice.

A context is allocated for what an operation needs, at most 4,096 tokens a sequence: llama.cpp picks the
LongRoPE factors by the allocation, and a larger one would only cost it memory.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

CHUNK_TOKENS = 512
PADDED_TOKENS = 256
"""llama.cpp rounds contexts up to these."""


class Peer:
    """A GGUF file."""

    packages = ("llama_cpp_python", "numpy")

    def load(self, path: str, threads: int) -> dict[str, Any]:
        """Map the file, as llama.cpp does by default."""
        self._threads, self._made_for = threads, (0, 0)
        self._context: Any = None
        start = time.perf_counter()
        llama_cpp.llama_backend_init()
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = 0
        self._model = llama_cpp.llama_model_load_from_file(path.encode(), params)
        if not self._model:
            raise RuntimeError(f"llama.cpp cannot load {path}; its log says why")
        seconds = time.perf_counter() - start
        self._vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self._batch = llama_cpp.llama_batch_init(CHUNK_TOKENS, 0, 1)
        system = llama_cpp.llama_print_system_info().decode().strip()
        facts = f"{Path(path).name}, {threads} threads, chunks of {CHUNK_TOKENS}; {system}"
        return {"seconds": seconds, "facts": facts, "weight_bytes": Path(path).stat().st_size}

    def warm_up(self, ids: Sequence[int]) -> dict[str, Any]:
        """Run everything once."""
        self.decode(ids, 2)
        return {}

    def prefill(self, ids: Sequence[int]) -> dict[str, Any]:
        """From an empty context to the first chosen token."""
        self._empty(1, len(ids) + 1)
        start = time.perf_counter()
        self._read(ids)
        return {"seconds": time.perf_counter() - start, "tokens": len(ids)}

    def decode(self, ids: Sequence[int], steps: int, rows: int = 1) -> dict[str, Any]:
        """Greedy steps after a prompt that all rows hold; one step before the clock starts."""
        self._empty(rows, len(ids) + steps + 2)
        memory = llama_cpp.llama_get_memory(self._context)
        tokens = [self._read(ids)] * rows
        for row in range(1, rows):
            llama_cpp.llama_memory_seq_cp(memory, 0, row, -1, -1)
        tokens = self._step(tokens, len(ids))
        start = time.perf_counter()
        for step in range(steps):
            tokens = self._step(tokens, len(ids) + 1 + step)
        return {"seconds": time.perf_counter() - start, "tokens": rows * steps}

    def _empty(self, rows: int, tokens: int) -> None:
        """Have an empty context for so many sequences of so many tokens, the last one if it fits."""
        each = -(-tokens // PADDED_TOKENS) * PADDED_TOKENS
        if self._made_for != (rows, each):
            if self._context:
                llama_cpp.llama_free(self._context)
            params = llama_cpp.llama_context_default_params()
            params.n_ctx, params.n_seq_max = rows * each, rows
            params.n_batch = params.n_ubatch = CHUNK_TOKENS
            params.n_threads = params.n_threads_batch = self._threads
            self._context = llama_cpp.llama_init_from_model(self._model, params)
            if not self._context:
                self._made_for = (0, 0)
                raise RuntimeError("llama.cpp cannot allocate the context; its log says why")
            self._made_for = (rows, each)
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)

    def _read(self, ids: Sequence[int]) -> int:
        """Append a prompt to sequence 0 in chunks; returns the best next token."""
        for first in range(0, len(ids), CHUNK_TOKENS):
            chunk = ids[first : first + CHUNK_TOKENS]
            last = first + CHUNK_TOKENS >= len(ids)
            for place, token in enumerate(chunk):
                self._put(place, token, first + place, 0, last and place == len(chunk) - 1)
            self._run(len(chunk))
        return self._best((len(ids) - 1) % CHUNK_TOKENS)

    def _step(self, tokens: Sequence[int], position: int) -> list[int]:
        """Append one token to every sequence; returns the best next ones."""
        for row, token in enumerate(tokens):
            self._put(row, token, position, row, True)
        self._run(len(tokens))
        return [self._best(row) for row in range(len(tokens))]

    def _put(self, place: int, token: int, position: int, sequence: int, wanted: bool) -> None:
        batch = self._batch
        batch.token[place], batch.pos[place] = token, position
        batch.n_seq_id[place], batch.seq_id[place][0] = 1, sequence
        batch.logits[place] = wanted

    def _run(self, count: int) -> None:
        self._batch.n_tokens = count
        code = llama_cpp.llama_decode(self._context, self._batch)
        if code:
            raise RuntimeError(f"llama_decode gave {code}")

    def _best(self, place: int) -> int:
        pointer = llama_cpp.llama_get_logits_ith(self._context, place)
        return int(np.ctypeslib.as_array(pointer, shape=(self._vocabulary,)).argmax())
