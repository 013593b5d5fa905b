"""What a model is: decoder, vision, speech, adapters; presets and released `config.json` files.

    config = read_config("path/to/model")      # any of the three released layouts
    write_config(config, "hf")                 # the object of another layout

Nothing here knows weights, tensors or a backend.
"""

from __future__ import annotations

from phi4.configs.decoder import DECODER_TARGETS, DecoderConfig
from phi4.configs.model import DTYPES, LAYOUTS, AdapterConfig, Layout, Phi4Config
from phi4.configs.peft import read_peft_config, write_peft_config
from phi4.configs.presets import NANO, PHI4_MINI, PHI4_MULTIMODAL, tiny_multimodal
from phi4.configs.reading import read_config
from phi4.configs.rope import ROPE_POLICIES, Regime, RopePolicy, inverse_frequencies, regime_for
from phi4.configs.routing import Route, route
from phi4.configs.speech import SpeechConfig
from phi4.configs.vision import VisionConfig
from phi4.configs.writing import write_config

__all__ = [
    "DECODER_TARGETS",
    "DTYPES",
    "LAYOUTS",
    "NANO",
    "PHI4_MINI",
    "PHI4_MULTIMODAL",
    "ROPE_POLICIES",
    "AdapterConfig",
    "DecoderConfig",
    "Layout",
    "Phi4Config",
    "Regime",
    "RopePolicy",
    "Route",
    "SpeechConfig",
    "VisionConfig",
    "inverse_frequencies",
    "read_config",
    "read_peft_config",
    "regime_for",
    "route",
    "tiny_multimodal",
    "write_config",
    "write_peft_config",
]
