"""PEFT's `adapter_config.json`, both ways, restricted to what the decoder can apply exactly.

Used for the modality adapters of the HF-native layout and for a user's own adapter. Left out on
purpose, and refused by name: variants that compute something else (DoRA, rsLoRA, biases, ranks that
differ by layer), because an adapter that is nearly right gives wrong answers in silence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from phi4.configs.decoder import DECODER_TARGETS
from phi4.configs.fields import refuse
from phi4.configs.model import AdapterConfig

# key -> (values that mean "not used", what to tell the user)
_UNSUPPORTED: dict[str, tuple[tuple[Any, ...], str]] = {
    "use_dora": ((False, None), "false: DoRA adapters are not supported, train a plain LoRA"),
    "use_rslora": (
        (False, None),
        "false: the scale here is lora_alpha / r; multiply lora_alpha by sqrt(r) instead",
    ),
    "bias": (("none", None), "'none': adapters with biases are not supported"),
    "lora_bias": ((False, None), "false: adapters with biases are not supported"),
    "fan_in_fan_out": ((False, None), "false"),
    "modules_to_save": ((None, []), "null: an adapter may hold LoRA matrices only"),
    "rank_pattern": ((None, {}), "empty: one rank for all modules"),
    "alpha_pattern": ((None, {}), "empty: one alpha for all modules"),
    "layers_to_transform": ((None, []), "null: an adapter acts on all layers"),
    "layer_replication": ((None,), "null"),
    "alora_invocation_tokens": ((None, []), "null: an adapter acts on every token"),
    "init_lora_weights": (
        (True, False, None, "gaussian"),
        "true, false or 'gaussian': others change the base weights",
    ),
}


def _targets(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        # A regular expression. It is never run: the tensors of the adapter say which modules it covers.
        return DECODER_TARGETS
    if not isinstance(value, list) or not value:
        refuse("target_modules", value, f"a list with some of {[t.split('.')[1] for t in DECODER_TARGETS]}")
    found = []
    for item in value:
        matches = [
            t for t in DECODER_TARGETS if isinstance(item, str) and (t == item or t.endswith("." + item))
        ]
        if not matches:
            refuse("target_modules", item, f"one of {[t.split('.')[1] for t in DECODER_TARGETS]}")
        found += matches
    return tuple(t for t in DECODER_TARGETS if t in found)


def read_peft_config(raw: Mapping[str, Any], name: str) -> AdapterConfig:
    """Read the object of an `adapter_config.json`.

    Args:
        raw: The JSON object.
        name: What to call the adapter; the file does not say.

    Raises:
        InvalidConfig: Not a LoRA, a variant whose result would differ (DoRA, rsLoRA, biases, patterns), or
            a value that cannot work.
    """
    kind = raw.get("peft_type", "LORA")
    if kind != "LORA":
        refuse("peft_type", kind, "'LORA'")
    for key, (unused, valid) in _UNSUPPORTED.items():
        if raw.get(key) not in unused:
            refuse(key, raw[key], valid)
    for key in ("r", "lora_alpha"):
        if key not in raw:
            refuse(key, None, "a number")
    dropout = raw.get("lora_dropout")
    targets = _targets(raw.get("target_modules"))
    return AdapterConfig(name, raw["r"], raw["lora_alpha"], 0.0 if dropout is None else dropout, targets)


def write_peft_config(adapter: AdapterConfig) -> dict[str, Any]:
    """The `adapter_config.json` of an adapter; its pattern matches decoder layers only, never the towers."""
    modules = "|".join(re.escape(target) for target in adapter.target_modules)
    return {
        "base_model_name_or_path": None,
        "bias": "none",
        "inference_mode": True,
        "lora_alpha": adapter.lora_alpha,
        "lora_dropout": adapter.dropout,
        "peft_type": "LORA",
        "r": adapter.r,
        "target_modules": rf"model\.layers\.\d+\.({modules})",
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }
