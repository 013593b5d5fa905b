"""transformers on PyTorch in bfloat16: the speech encoder with its projector, nothing else loaded."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoConfig
from transformers.models.phi4_multimodal.modeling_phi4_multimodal import Phi4MultimodalAudioEmbedding

from peers.media_file import read_media

PREFIX = "model.embed_tokens_extend.audio_embed."


class Peer:
    """The speech part of a checkpoint in the HF-native layout."""

    packages = ("transformers", "torch")

    def load(self, path: str, threads: int, media: str) -> dict[str, Any]:
        """Read the encoder's weights; the prompt says which id is the placeholder."""
        torch.set_num_threads(threads)
        start = time.perf_counter()
        config = AutoConfig.from_pretrained(path, attn_implementation="sdpa")
        self._token_id = config.audio_config.audio_token_id = read_media(media).audio_id
        self._width = config.hidden_size
        encoder = Phi4MultimodalAudioEmbedding(config).to(torch.bfloat16).eval()
        names = encoder.load_state_dict(_weights(Path(path)), strict=False)
        self._encoder = encoder
        attention = config.audio_config._attn_implementation
        facts = f"bfloat16, {torch.get_num_threads()} threads, attention {attention}"
        if names.missing_keys or names.unexpected_keys:  # changes no time, since sizes are the config's
            facts += f", {len(names.missing_keys)} tensors missing, {len(names.unexpected_keys)} left over"
        return {"seconds": time.perf_counter() - start, "facts": facts}

    def encode_speech(self, media: str) -> dict[str, Any]:
        """Log-mel to vectors of the decoder's width, written at the places of the placeholders."""
        prompt = read_media(media)
        count = int(prompt.audio_span[1])
        ids = torch.full((1, count), self._token_id)
        embedded = torch.zeros((1, count, self._width), dtype=torch.bfloat16)
        features, sizes = torch.from_numpy(prompt.features)[None], torch.tensor([count])
        start = time.perf_counter()
        with torch.inference_mode():
            self._encoder(ids, embedded, features, audio_embed_sizes=sizes)
        return {"seconds": time.perf_counter() - start, "audio_tokens": count}


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    """Tensors of the speech part, by the names they have inside of it."""
    found = {}
    for path in sorted(folder.glob("model*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  # not a dictionary
                if name.startswith(PREFIX):
                    found[name.removeprefix(PREFIX)] = file.get_tensor(name)
    return found
