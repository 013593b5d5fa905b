"""OpenVINO GenAI: its `LLMPipeline` on the CPU, as it comes, with the number of threads set.

The pipeline keeps prefixes of earlier prompts by default, so no prompt may be measured twice: the driver
sends others in every turn.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai


class Peer:
    """A folder written by optimum-intel."""

    packages = ("openvino", "openvino_genai", "optimum-intel", "nncf", "transformers")

    def load(self, path: str, threads: int) -> dict[str, Any]:
        """Compile the model."""
        start = time.perf_counter()
        self._pipeline = openvino_genai.LLMPipeline(path, "CPU", INFERENCE_NUM_THREADS=threads)
        seconds = time.perf_counter() - start
        nbytes = (Path(path) / "openvino_model.bin").stat().st_size
        facts = f"int4 groups of 128, {threads} threads, defaults of LLMPipeline"
        return {"seconds": seconds, "facts": facts, "weight_bytes": nbytes}

    def warm_up(self, ids: Sequence[int]) -> dict[str, Any]:
        """Run everything once; what is kept of this prompt is no prefix of others."""
        self._generate(ids, 3)
        return {}

    def prefill(self, ids: Sequence[int]) -> dict[str, Any]:
        """From a prompt to its first token."""
        start = time.perf_counter()
        self._generate(ids, 1)
        return {"seconds": time.perf_counter() - start, "tokens": len(ids)}

    def decode(self, ids: Sequence[int], steps: int) -> dict[str, Any]:
        """Time per token after the first, by the pipeline's own clock."""
        metrics = self._generate(ids, steps + 1)
        made = metrics.get_num_generated_tokens()
        if made != steps + 1:
            raise RuntimeError(f"asked for {steps + 1} tokens, got {made}")
        return {"seconds": metrics.get_tpot().mean / 1000 * steps, "tokens": steps}

    def _generate(self, ids: Sequence[int], count: int) -> Any:
        tokens = np.array([ids], np.int64)
        inputs = openvino_genai.TokenizedInputs(
            openvino.Tensor(tokens), openvino.Tensor(np.ones_like(tokens))
        )
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos, config.do_sample = count, True, False
        return self._pipeline.generate(inputs, config).perf_metrics
