"""The rotary part of a `config.json`, in both spellings released files use.

Older files have `rope_scaling` (type and factor lists) with `rope_theta`, `partial_rotary_factor` and
`original_max_position_embeddings` beside it; newer ones put everything into `rope_parameters`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from phi4.configs.decoder import DecoderConfig
from phi4.configs.fields import refuse
from phi4.configs.jsonpath import same_value
from phi4.configs.model import Layout

ROTARY_FIELDS = (
    "rope_theta",
    "partial_rotary_factor",
    "original_max_position_embeddings",
    "short_factor",
    "long_factor",
)
_LONGROPE_NAMES = ("longrope", "su")


def _spelled(raw: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    for key in ("rope_scaling", "rope_parameters"):
        inner = raw.get(key)
        if inner is None:
            continue
        if not isinstance(inner, Mapping):
            refuse(key, inner, "an object with type, short_factor and long_factor")
        return key, inner
    return "rope_scaling", {}


def read_rotary(raw: Mapping[str, Any], num_frequencies_of: Any) -> dict[str, Any]:
    """The five rotary fields of a config.

    Args:
        raw: The JSON object.
        num_frequencies_of: Called with the partial rotary factor, gives the length of a factor list; used
            when the file scales nothing and the lists are all 1.

    Raises:
        InvalidConfig: A scaling other than LongRoPE, or lists missing.
    """
    key, inner = _spelled(raw)
    kind = inner.get("rope_type", inner.get("type", "default" if "long_factor" not in inner else "longrope"))
    values: dict[str, Any] = {
        "rope_theta": inner.get("rope_theta", raw.get("rope_theta", 10000.0)),
        "partial_rotary_factor": inner.get("partial_rotary_factor", raw.get("partial_rotary_factor", 1.0)),
    }
    if kind in ("default", None):
        ones = (1.0,) * num_frequencies_of(values["partial_rotary_factor"])
        # Without scaling nothing changes with length: the boundary lies at the end of the context.
        limit = raw.get("max_position_embeddings")
        return values | {"original_max_position_embeddings": limit, "short_factor": ones, "long_factor": ones}
    if kind not in _LONGROPE_NAMES:
        refuse(f"{key}.type", kind, "'longrope' (or no scaling)")
    for name in ("short_factor", "long_factor"):
        if name not in inner:
            refuse(f"{key}.{name}", None, "a list with one factor per rotary frequency")
        values[name] = inner[name]
    # The key beside the object wins over the one inside it, as in transformers.
    values["original_max_position_embeddings"] = raw.get(
        "original_max_position_embeddings", inner.get("original_max_position_embeddings", 4096)
    )
    return values


def check_attention_factor(raw: Mapping[str, Any], decoder: DecoderConfig) -> None:
    """Refuse a file that asks for another attention factor than the one the lengths give."""
    key, inner = _spelled(raw)
    if inner.get("rope_type", inner.get("type")) not in _LONGROPE_NAMES:
        return
    wanted = inner.get("attention_factor")
    if wanted is not None and not (
        isinstance(wanted, float) and abs(wanted - decoder.attention_factor) < 1e-6
    ):
        refuse(f"{key}.attention_factor", wanted, f"absent or {decoder.attention_factor:.10g}")
    ratio = decoder.max_position_embeddings / decoder.original_max_position_embeddings
    factor = inner.get("factor")
    if factor is not None and not same_value(factor, ratio):
        refuse(f"{key}.factor", factor, f"absent or {ratio:g}, max / original positions")


def write_rotary(raw: dict[str, Any], decoder: DecoderConfig, layout: Layout) -> None:
    """Put the rotary fields into `raw`, in the spelling it has (HF-native from scratch: the new one)."""
    lists = {"short_factor": list(decoder.short_factor), "long_factor": list(decoder.long_factor)}
    raw["original_max_position_embeddings"] = decoder.original_max_position_embeddings
    key, inner = _spelled(raw)
    if key == "rope_parameters" or (layout == "hf" and not inner):
        raw["rope_parameters"] = {
            **inner,
            "rope_type": "longrope",
            "rope_theta": decoder.rope_theta,
            "partial_rotary_factor": decoder.partial_rotary_factor,
            "original_max_position_embeddings": decoder.original_max_position_embeddings,
            **lists,
        }
        return
    raw["rope_theta"] = decoder.rope_theta
    raw["partial_rotary_factor"] = decoder.partial_rotary_factor
    raw["rope_scaling"] = {"type": "longrope", **lists}
