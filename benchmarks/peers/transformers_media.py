"""transformers on PyTorch in bfloat16: the multimodal model up to its first token.

The vision adapter is active, as it is in ours for a prompt with a picture. Where it cannot be loaded the
model is measured without it, which only makes it faster, and the facts say so.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, Phi4MultimodalForCausalLM

from peers.media_file import Media, read_media

ADAPTER = "vision"


class Peer:
    """A checkpoint in the HF-native layout."""

    packages = ("transformers", "torch", "peft")

    def load(self, path: str, threads: int, media: str) -> dict[str, Any]:
        """Read all weights into memory; the prompt says which ids are placeholders."""
        torch.set_num_threads(threads)
        start = time.perf_counter()
        config, prompt = AutoConfig.from_pretrained(path), read_media(media)
        config.vision_config.image_token_id = prompt.image_id
        config.audio_config.audio_token_id = prompt.audio_id
        model: Any = Phi4MultimodalForCausalLM.from_pretrained(
            path, config=config, dtype=torch.bfloat16, attn_implementation="sdpa"
        )
        self._model = model.eval()
        adapter = self._load_adapter(Path(path) / f"{ADAPTER}-lora")
        facts = f"bfloat16, {torch.get_num_threads()} threads, attention sdpa, {adapter}"
        return {"seconds": time.perf_counter() - start, "facts": facts}

    def first_token(self, media: str) -> dict[str, Any]:
        """From a prepared prompt with a picture and a recording to the first token."""
        inputs = _keywords(read_media(media))
        start = time.perf_counter()
        with torch.inference_mode():
            out = self._model(**inputs, use_cache=True, logits_to_keep=1)
            out.logits[0, -1].argmax().item()
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "prompt_tokens": inputs["input_ids"].shape[1]}

    def _load_adapter(self, folder: Path) -> str:
        """Switch the adapter on, in the type of the weights; returns what came of it, in words."""
        try:
            self._model.load_adapter(str(folder), adapter_name=ADAPTER)
            self._model.set_adapter(ADAPTER)
        except Exception as error:
            return f"WITHOUT the {ADAPTER} adapter ({type(error).__name__}: {str(error)[:200]})"
        for weight in self._model.parameters():  # peft keeps adapters in float32 unless told otherwise
            weight.data = weight.data.to(torch.bfloat16)
        self._model.eval()
        return f"with the {ADAPTER} adapter"


def _keywords(media: Media) -> dict[str, Any]:
    """The prompt as the model's own arguments."""
    return {
        "input_ids": torch.from_numpy(media.token_ids)[None],
        "image_pixel_values": torch.from_numpy(media.pixels)[None],
        "image_attention_mask": torch.from_numpy(media.patch_mask)[None],
        "image_sizes": torch.from_numpy(media.size_px)[None],
        "audio_input_features": torch.from_numpy(media.features)[None],
        "audio_embed_sizes": torch.tensor([int(media.audio_span[1])]),
    }
