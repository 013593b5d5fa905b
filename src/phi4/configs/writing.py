"""`Phi4Config` written as the `config.json` of any of the three layouts.

Only what differs from the file a config came from is changed, so reading and writing one file
returns it exactly: key order, number spelling and fields we do not know included.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from phi4.configs import spelling
from phi4.configs.decoder import DecoderConfig
from phi4.configs.jsonpath import ABSENT, read_path, same_value, write_path
from phi4.configs.model import AdapterConfig, Layout, Phi4Config
from phi4.configs.reading import LORA_SUFFIX, read_dtype, read_eos
from phi4.configs.rotary_fields import ROTARY_FIELDS, read_rotary, write_rotary
from phi4.configs.spelling import Spelling

_LORA_LAYERS = r"layers.*((self_attn\.(qkv_proj|o_proj))|(mlp\.(gate_up|down)_proj))"


def write_config(config: Phi4Config, layout: Layout | None = None) -> dict[str, Any]:
    """The `config.json` object of a model.

    Args:
        config: The model.
        layout: Layout to write; None = the config's own.

    Returns:
        A new object. In the layout the config was read from, it equals that file where the config does;
        in another layout, fields that mean the same there are carried over. HF-native adapters are not
        part of it: they stand in folders of their own.
    """
    layout = layout or config.layout
    config = config.with_layout(layout)
    source = spelling.MODEL_TYPES.get(str(config.extra.get("model_type")))
    same_file = source == layout
    raw = copy.deepcopy(dict(config.extra)) if same_file else _carried(config, source, layout)
    if not same_file:
        _write_identity(raw, config, layout)
    _write_rows(raw, spelling.DECODER, config.decoder, same_file)
    _write_rope(raw, config.decoder, layout, same_file)
    _write_parts(raw, config, layout, same_file)
    _write_tokens(raw, config, same_file)
    if layout == "original":
        _write_adapters(raw, config.adapters)
    return raw


def _carried(config: Phi4Config, source: Layout | None, layout: Layout) -> dict[str, Any]:
    dropped = spelling.BOUND_EVERYWHERE | (spelling.BOUND_KEYS[source] if source else frozenset())
    if layout == "mini":
        dropped |= spelling.ENCODER_KEYS
    return {
        key: copy.deepcopy(value)
        for key, value in config.extra.items()
        if key not in dropped and not (key.endswith(LORA_SUFFIX) and isinstance(value, Mapping))
    }


def _write_identity(raw: dict[str, Any], config: Phi4Config, layout: Layout) -> None:
    model_type, architecture = spelling.ARCHITECTURES[layout]
    raw |= {"model_type": model_type, "architectures": [architecture]}
    for path, value in spelling.FIXED_TEXT[layout].items():
        if "." not in path or config.vision is not None or config.speech is not None:
            write_path(raw, path, value)


def _write_rows(raw: dict[str, Any], rows: tuple[Spelling, ...], part: Any, same_file: bool) -> None:
    for row in rows:
        value, stands = getattr(part, row.field), read_path(raw, row.path)
        if row.field == "num_key_value_heads" and same_file and stands in (None, ABSENT):
            stands = raw["num_attention_heads"]
        if stands is ABSENT and same_file and same_value(row.default, value):
            continue
        if stands is ABSENT or not same_value(stands, value):
            write_path(raw, row.path, value)


def _write_rope(raw: dict[str, Any], decoder: DecoderConfig, layout: Layout, same_file: bool) -> None:
    if same_file:
        stands = read_rotary(raw, lambda _partial: decoder.num_frequencies)
        if all(same_value(stands[field], getattr(decoder, field)) for field in ROTARY_FIELDS):
            return
    write_rotary(raw, decoder, layout)


def _write_parts(raw: dict[str, Any], config: Phi4Config, layout: Layout, same_file: bool) -> None:
    for part, rows, fixed in (
        (config.vision, spelling.VISION[layout], spelling.FIXED_VISION[layout]),
        (config.speech, spelling.SPEECH[layout], spelling.FIXED_SPEECH[layout]),
    ):
        if part is None:
            continue
        if not same_file:
            for path, value in fixed.items():
                write_path(raw, path, value)
        _write_rows(raw, rows, part, same_file)
    if layout == "hf" and config.vision is not None and not same_file:
        raw["vision_config"]["image_size"] = config.vision.crop_size
    for key, part in (("vision_config", config.vision), ("audio_config", config.speech)):
        if layout == "hf" and part is None:
            raw[key] = None


def _write_tokens(raw: dict[str, Any], config: Phi4Config, same_file: bool) -> None:
    eos = list(config.eos_token_ids)
    for key, value in (("bos_token_id", config.bos_token_id), ("pad_token_id", config.pad_token_id)):
        if raw.get(key) != value:
            raw[key] = value
    if read_eos(raw.get("eos_token_id")) != config.eos_token_ids:
        raw["eos_token_id"] = eos if len(eos) > 1 else eos[0] if eos else None
    if read_dtype(raw) != config.dtype or not ({"dtype", "torch_dtype"} & set(raw) or same_file):
        raw["dtype" if "dtype" in raw else "torch_dtype"] = config.dtype


def _write_adapters(raw: dict[str, Any], adapters: tuple[AdapterConfig, ...]) -> None:
    names = {adapter.name + LORA_SUFFIX for adapter in adapters}
    for key in [
        key for key, value in raw.items() if key.endswith(LORA_SUFFIX) and isinstance(value, Mapping)
    ]:
        if key not in names:
            del raw[key]
    for adapter in adapters:
        inner = raw.setdefault(adapter.name + LORA_SUFFIX, {"layer": _LORA_LAYERS})
        for field, value in (("dp", adapter.dropout), ("r", adapter.r), ("lora_alpha", adapter.lora_alpha)):
            if not same_value(inner.get(field, 0.0 if field == "dp" else None), value):
                inner[field] = value
