"""Names of tensors: ours (canonical) and those of the three released layouts, as two-way tables.

A stored name is ours with another prefix (`PREFIXES`) and, for some tensors, another leading piece
(`RENAMES`; `#` stands for a layer number). Both tables read in either direction. LoRA tensors stand
among the others in the original layout and in PEFT folders otherwise.
"""

from __future__ import annotations

import re
from functools import lru_cache

from phi4.configs import DECODER_TARGETS, Layout

# (ours, stored); the first fitting row counts, in both directions.
_TEXT_PREFIXES = (("decoder.lm_head.", "lm_head."), ("decoder.", "model."))
_MULTIMODAL_PREFIXES = (
    ("vision.", "model.embed_tokens_extend.image_embed."),
    ("speech.", "model.embed_tokens_extend.audio_embed."),
    *_TEXT_PREFIXES,
)
PREFIXES: dict[Layout, tuple[tuple[str, str], ...]] = {
    "mini": _TEXT_PREFIXES,
    "original": _MULTIMODAL_PREFIXES,
    "hf": _MULTIMODAL_PREFIXES,
}

_BLOCK = "speech.encoder.encoders.#"
# (ours, the layout's) after the prefix is ours; each replaces the beginning of a name.
RENAMES: dict[Layout, tuple[tuple[str, str], ...]] = {
    "mini": (),
    "original": tuple(
        (f"decoder.layers.#.{target}.weight", f"decoder.layers.#.{target}.base_layer.weight")
        for target in DECODER_TARGETS
    ),
    "hf": (
        ("vision.glb_GN", "vision.global_img_feature_extensor"),
        ("vision.sub_GN", "vision.sub_img_feature_extensor"),
        ("vision.img_projection.0.", "vision.img_projection_up."),
        ("vision.img_projection.2.", "vision.img_projection_down."),
        ("speech.audio_projection.speech.0.", "speech.up_proj_for_speech."),
        ("speech.audio_projection.speech.2.", "speech.down_proj_for_speech."),
        ("speech.audio_projection.vision.0.", "speech.up_proj_for_vision_speech."),
        ("speech.audio_projection.vision.2.", "speech.down_proj_for_vision_speech."),
        (f"{_BLOCK}.feed_forward_in.net.0.linear.", f"{_BLOCK}.feed_forward_in.gate_up_proj."),
        (f"{_BLOCK}.feed_forward_in.net.2.", f"{_BLOCK}.feed_forward_in.down_proj."),
        (f"{_BLOCK}.feed_forward_out.net.0.linear.", f"{_BLOCK}.feed_forward_out.gate_up_proj."),
        (f"{_BLOCK}.feed_forward_out.net.2.", f"{_BLOCK}.feed_forward_out.down_proj."),
        (f"{_BLOCK}.self_attn.linear_q.", f"{_BLOCK}.self_attn.q_proj."),
        (f"{_BLOCK}.self_attn.linear_k.", f"{_BLOCK}.self_attn.k_proj."),
        (f"{_BLOCK}.self_attn.linear_v.", f"{_BLOCK}.self_attn.v_proj."),
        (f"{_BLOCK}.self_attn.linear_out.", f"{_BLOCK}.self_attn.o_proj."),
    ),
}

_LORA = re.compile(r"decoder\.layers\.\d+\.[a-z_.]+\.lora_[AB]\.([A-Za-z0-9_-]+)\.weight")
_ADAPTER_FILE = re.compile(
    r"(?:base_model\.model\.)?(?:model\.)?layers\.(?P<layer>\d+)\.(?P<target>"
    + "|".join(re.escape(target) for target in DECODER_TARGETS)
    + r")\.lora_(?P<matrix>[AB])\.(?:[A-Za-z0-9_-]+\.)?weight"
)


@lru_cache(maxsize=256)
def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.escape(template).replace(r"\#", r"(\d+)"))


def _rename(name: str, rows: tuple[tuple[str, str], ...]) -> str:
    for source, target in rows:
        match = _pattern(source).match(name)
        if match:
            for number in match.groups():
                target = target.replace("#", number, 1)
            return target + name[match.end() :]
    return name


def to_canonical(stored: str, layout: Layout) -> str | None:
    """Our name of a tensor stored in the main files of a layout; None when no prefix of it fits."""
    for ours, theirs in PREFIXES[layout]:
        if stored.startswith(theirs):
            name = ours + stored[len(theirs) :]
            return _rename(name, tuple((theirs, ours) for ours, theirs in RENAMES[layout]))
    return None


def to_stored(name: str, layout: Layout) -> str | None:
    """Name of one of our tensors in the main files of a layout; None when the layout has no place for it."""
    name = _rename(name, RENAMES[layout])
    for ours, theirs in PREFIXES[layout]:
        if name.startswith(ours):
            return theirs + name[len(ours) :]
    return None


def adapter_to_canonical(stored: str, adapter: str) -> str | None:
    """Our name of a tensor of a PEFT file, its prefix and adapter segment optional; None = not LoRA."""
    match = _ADAPTER_FILE.fullmatch(stored)
    if match is None:
        return None
    return lora_name(int(match["layer"]), match["target"], match["matrix"], adapter)


def adapter_to_stored(name: str) -> str:
    """Name in a PEFT file (HF-native spelling, without prefix) of one of our LoRA tensors."""
    adapter = adapter_of(name)
    assert adapter is not None, name
    return name.replace("decoder.", "model.", 1).removesuffix(f".{adapter}.weight") + ".weight"


def lora_name(layer: int, target: str, matrix: str, adapter: str) -> str:
    """Our name of a LoRA matrix ("A" or "B") of a decoder layer."""
    return f"decoder.layers.{layer}.{target}.lora_{matrix}.{adapter}.weight"


def adapter_of(name: str) -> str | None:
    """Adapter one of our tensor names belongs to, None for base weights."""
    match = _LORA.fullmatch(name)
    return match[1] if match else None


def part_of(name: str) -> str:
    """Part of the model a tensor of ours belongs to: "text", "vision", "speech" or "adapter:<name>"."""
    adapter = adapter_of(name)
    if adapter is not None:
        return f"adapter:{adapter}"
    head = name.partition(".")[0]
    return "text" if head == "decoder" else head
