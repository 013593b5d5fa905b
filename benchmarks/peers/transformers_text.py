"""transformers on PyTorch in bfloat16: the text model, decoded in a loop without the work of `generate`.

Both attention implementations are tried when the program warms up, and the quicker one is measured.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM

ATTENTIONS = ("eager", "sdpa")


class Peer:
    """A checkpoint in the layout of Phi-4-mini."""

    packages = ("transformers", "torch")

    def load(self, path: str, threads: int) -> dict[str, Any]:
        """Read all weights into memory."""
        torch.set_num_threads(threads)
        start = time.perf_counter()
        model: Any = AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.bfloat16, attn_implementation=ATTENTIONS[-1]
        )
        self._model = model.eval()
        seconds = time.perf_counter() - start
        nbytes = sum(weight.numel() * weight.element_size() for weight in model.parameters())
        facts = f"bfloat16, {torch.get_num_threads()} threads, attention {ATTENTIONS[-1]}"
        return {"seconds": seconds, "facts": facts, "weight_bytes": nbytes}

    def warm_up(self, ids: Sequence[int]) -> dict[str, Any]:
        """Run everything once, and keep the attention that reads the prompt faster."""
        taken = {}
        for attention in ATTENTIONS:
            self._model.set_attn_implementation(attention)
            self.decode(ids, 2)
            taken[attention] = min(self.prefill(ids)["seconds"] for _ in range(2))
        best = min(taken, key=lambda attention: taken[attention])
        self._model.set_attn_implementation(best)
        tried = ", ".join(f"{attention} {1000 * seconds:.0f} ms" for attention, seconds in taken.items())
        return {
            "facts": f"bfloat16, {torch.get_num_threads()} threads, attention {best} "
            f"({len(ids)} tokens: {tried})"
        }

    def prefill(self, ids: Sequence[int]) -> dict[str, Any]:
        """From no cache to the first chosen token."""
        start = time.perf_counter()
        self._forward(torch.tensor([ids]), None)
        return {"seconds": time.perf_counter() - start, "tokens": len(ids)}

    def decode(self, ids: Sequence[int], steps: int) -> dict[str, Any]:
        """Greedy steps after a prompt; one step before the clock starts."""
        token, cache = self._forward(torch.tensor([ids]), None)
        token, cache = self._forward(token, cache)
        start = time.perf_counter()
        for _ in range(steps):
            token, cache = self._forward(token, cache)
        return {"seconds": time.perf_counter() - start, "tokens": steps}

    @torch.inference_mode()
    def _forward(self, ids: torch.Tensor, cache: Any) -> tuple[torch.Tensor, Any]:
        """Append ids `[1, T]`; returns the best next one, `[1, 1]`, and the cache."""
        out = self._model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        token = out.logits[:, -1].argmax(-1, keepdim=True)
        token.item()
        return token, out.past_key_values
