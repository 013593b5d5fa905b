"""Released `config.json` files of the three layouts, read into `Phi4Config`.

`read_config` takes a file, a model's directory or an object already parsed; a directory also gives
the crop limit (`preprocessor_config.json`) and HF-native adapters (`*-lora/adapter_config.json`).
Which keys are read is in the tables of `spelling.py`; `writing.py` is the way back.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from phi4.configs import spelling
from phi4.configs.decoder import DecoderConfig
from phi4.configs.fields import MAX_WIDTH, number, refuse, whole
from phi4.configs.jsonfile import read_json_object
from phi4.configs.jsonpath import ABSENT, read_path, same_value
from phi4.configs.model import AdapterConfig, Layout, Phi4Config
from phi4.configs.peft import read_peft_config
from phi4.configs.rotary_fields import check_attention_factor, read_rotary
from phi4.configs.speech import SpeechConfig
from phi4.configs.spelling import REQUIRED, Spelling
from phi4.configs.vision import VisionConfig
from phi4.errors import InvalidConfig

T = TypeVar("T")
LORA_SUFFIX = "_lora"


def read_config(source: str | Path | Mapping[str, Any]) -> Phi4Config:
    """Read a released config of any of the three layouts.

    Args:
        source: A `config.json`, the directory it stands in, or its parsed object.

    Raises:
        InvalidConfig: The file is missing or broken, of another model family, or has a value that cannot
            work; the message names field, value and what is valid.
    """
    if isinstance(source, Mapping):
        return _from_object(source)
    path = Path(source)
    folder = path if path.is_dir() else path.parent
    file = path / "config.json" if path.is_dir() else path
    try:
        config = _from_object(read_json_object(file, InvalidConfig))
        return _with_siblings(config, folder)
    except InvalidConfig as problem:
        if str(file.parent) in str(problem):
            raise
        raise InvalidConfig(f"{file}: {problem}") from None


def _from_object(raw: Mapping[str, Any]) -> Phi4Config:
    model_type = raw.get("model_type")
    if not isinstance(model_type, str) or model_type not in spelling.MODEL_TYPES:
        refuse("model_type", model_type, f"one of {list(spelling.MODEL_TYPES)}")
    layout = spelling.MODEL_TYPES[model_type]
    decoder = _read_decoder(raw, layout)
    vision, speech = _read_vision(raw, layout), _read_speech(raw, layout)
    return Phi4Config(
        layout=layout,
        decoder=decoder,
        vision=vision,
        speech=speech,
        adapters=_read_adapters(raw) if layout == "original" else (),
        bos_token_id=raw.get("bos_token_id"),
        eos_token_ids=read_eos(raw.get("eos_token_id")),
        pad_token_id=raw.get("pad_token_id"),
        dtype=read_dtype(raw),
        extra=copy.deepcopy(dict(raw)),
        vision_from_tensors=layout == "original" and vision is not None and not raw.get("vision_config"),
    )


def _values(raw: Mapping[str, Any], rows: tuple[Spelling, ...]) -> dict[str, Any]:
    values = {}
    for row in rows:
        value = read_path(raw, row.path)
        if value is ABSENT:
            if row.default is REQUIRED:
                raise InvalidConfig(f"{row.path} is missing from config.json; it has no default, add it")
            value = row.default
        values[row.field] = value
    return values


def _build(kind: type[T], rows: tuple[Spelling, ...], values: dict[str, Any]) -> T:
    """Make a dataclass; its refusals get the field's spelling in the file."""
    try:
        return kind(**values)
    except InvalidConfig as problem:
        field, equals, rest = str(problem).partition(" = ")
        paths = {row.field: row.path for row in rows}
        raise InvalidConfig(f"{paths.get(field, field)}{equals}{rest}") from None


def _check_fixed(raw: Mapping[str, Any], fixed: Mapping[str, Any]) -> None:
    for path, wanted in fixed.items():
        value = read_path(raw, path)
        if value is not ABSENT and not same_value(value, wanted):
            refuse(path, value, f"{wanted!r}, the only value this architecture has")


def _read_decoder(raw: Mapping[str, Any], layout: Layout) -> DecoderConfig:
    values = _values(raw, spelling.DECODER)
    _check_fixed(raw, spelling.FIXED_TEXT[layout])
    if values["num_key_value_heads"] is None:
        values["num_key_value_heads"] = values["num_attention_heads"]

    def num_frequencies(partial: Any) -> int:
        hidden = whole("hidden_size", values["hidden_size"])
        heads = whole("num_attention_heads", values["num_attention_heads"])
        return int(hidden // heads * number("partial_rotary_factor", partial, 0.0, 1.0)) // 2

    values |= read_rotary(raw, num_frequencies)
    decoder = _build(DecoderConfig, spelling.DECODER, values)
    stated = raw.get("head_dim")
    if stated is not None and stated != decoder.head_dim:
        refuse("head_dim", stated, f"absent or hidden_size / num_attention_heads = {decoder.head_dim}")
    check_attention_factor(raw, decoder)
    return decoder


def _read_vision(raw: Mapping[str, Any], layout: Layout) -> VisionConfig | None:
    where = {"mini": None, "original": "embd_layer.image_embd_layer", "hf": "vision_config"}[layout]
    if where is None or _is_absent(raw, where, layout):
        return None
    _check_fixed(raw, spelling.FIXED_VISION[layout])
    rows = spelling.VISION[layout]
    vision = _build(VisionConfig, rows, _values(raw, rows))
    image_size = read_path(raw, "vision_config.image_size")
    if image_size is not ABSENT and image_size != vision.crop_size:
        refuse("vision_config.image_size", image_size, f"equal to crop_size = {vision.crop_size}")
    _check_placeholder(raw, "vision_config.image_token_id")
    return vision


def _read_speech(raw: Mapping[str, Any], layout: Layout) -> SpeechConfig | None:
    where = {"mini": None, "original": "audio_processor", "hf": "audio_config"}[layout]
    if where is None or _is_absent(raw, where, layout):
        return None
    _check_fixed(raw, spelling.FIXED_SPEECH[layout])
    rows = spelling.SPEECH[layout]
    speech = _build(SpeechConfig, rows, _values(raw, rows))
    _check_placeholder(raw, "audio_config.audio_token_id")
    return speech


def _is_absent(raw: Mapping[str, Any], where: str, layout: Layout) -> bool:
    """A missing sub-config means "none" in the original layout and "all defaults" in the HF-native one."""
    value = read_path(raw, where)
    return value is None or (value is ABSENT and layout == "original")


def _check_placeholder(raw: Mapping[str, Any], path: str) -> None:
    # A hint only, the tokenizer file decides: transformers fills in 200010 even for small vocabularies.
    token_id = read_path(raw, path)
    if token_id is not ABSENT and token_id is not None:
        whole(path, token_id, low=0, high=MAX_WIDTH)


def _read_adapters(raw: Mapping[str, Any]) -> tuple[AdapterConfig, ...]:
    found = []
    for key, value in raw.items():
        if not key.endswith(LORA_SUFFIX) or not isinstance(value, Mapping):
            continue
        for field in ("r", "lora_alpha"):
            if field not in value:
                refuse(f"{key}.{field}", None, "a number")
        found.append(
            AdapterConfig(
                key.removesuffix(LORA_SUFFIX), value["r"], value["lora_alpha"], value.get("dp", 0.0)
            )
        )
    return tuple(found)


def read_eos(value: Any) -> tuple[int, ...]:
    """End-of-sequence ids, written as null, one id or a list."""
    if value is None:
        return ()
    ids = value if isinstance(value, list) else [value]
    return tuple(whole("eos_token_id", item, low=0) for item in ids)


def read_dtype(raw: Mapping[str, Any]) -> str:
    """Storage type of the weights; newer files say `dtype`, older ones `torch_dtype`."""
    value = raw.get("dtype", raw.get("torch_dtype"))
    return "bfloat16" if value is None else value


def _with_siblings(config: Phi4Config, folder: Path) -> Phi4Config:
    """Add what stands in other files of a model's directory."""
    preprocessor = folder / "preprocessor_config.json"
    if config.vision is not None and preprocessor.is_file():
        max_crops = read_json_object(preprocessor, InvalidConfig).get("dynamic_hd")
        if max_crops is not None:
            config = replace(config, vision=replace(config.vision, max_crops=max_crops))
    if config.layout != "hf":
        return config
    # Modality adapters first, in the released order; others by name.
    found = {
        path.parent.name.removesuffix("-lora"): path for path in folder.glob("*-lora/adapter_config.json")
    }
    names: list[str] = [name for name in ("vision", "speech") if name in found]
    names += sorted(set(found) - set(names))
    adapters = [read_peft_config(read_json_object(found[name], InvalidConfig), name) for name in names]
    return replace(config, adapters=tuple(adapters))
