"""The network in PyTorch: decoder, vision tower, speech encoder, adapters.

    model = build_model(config, checkpoint.read, parts=("text", "vision"))
    hidden = model(make_batch(rows, regimes))
    logits = model.logits(hidden[:, -1])

Architecture only: no cache, no sampling, no training loop, no files.
"""

from phi4.model.attention import Attend, Attention, CausalAttend, causal_mask, select_attention
from phi4.model.batch import AudioBatch, ImageBatch, ModelBatch, audio_batch, image_batch, make_batch
from phi4.model.decoder import Decoder
from phi4.model.init import init_weights
from phi4.model.loading import build_model, load_adapter, load_part, to_array, to_tensor
from phi4.model.lora import AdapterPlan, AdapterRouter, LoraLinear, install_lora
from phi4.model.multimodal import Phi4Model
from phi4.model.rotary import REGIMES, Rotary, regime_indices, rotate

__all__ = [
    "REGIMES",
    "AdapterPlan",
    "AdapterRouter",
    "Attend",
    "Attention",
    "AudioBatch",
    "CausalAttend",
    "Decoder",
    "ImageBatch",
    "LoraLinear",
    "ModelBatch",
    "Phi4Model",
    "Rotary",
    "audio_batch",
    "build_model",
    "causal_mask",
    "image_batch",
    "init_weights",
    "install_lora",
    "load_adapter",
    "load_part",
    "make_batch",
    "regime_indices",
    "rotate",
    "select_attention",
    "to_array",
    "to_tensor",
]
