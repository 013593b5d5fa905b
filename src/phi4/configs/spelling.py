"""How the three released layouts spell the same facts in `config.json`, as tables.

Each row is (our field, dotted path in the JSON, value a missing key stands for). The same rows read
and write. `FIXED` lists switches with one value this architecture can have: another value in a file
is refused, and all of them are written when a config is made from scratch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from phi4.configs.model import Layout


class _Required:
    """Marks a key without which a config cannot be read."""

    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED: Final = _Required()


@dataclass(frozen=True)
class Spelling:
    """One fact: our field name, where it stands in the JSON, and what its absence means there."""

    field: str
    path: str
    default: Any = REQUIRED


MODEL_TYPES: dict[str, Layout] = {"phi3": "mini", "phi4mm": "original", "phi4_multimodal": "hf"}
ARCHITECTURES: dict[Layout, tuple[str, str]] = {
    "mini": ("phi3", "Phi3ForCausalLM"),
    "original": ("phi4mm", "Phi4MMForCausalLM"),
    "hf": ("phi4_multimodal", "Phi4MultimodalForCausalLM"),
}

# The rotary fields are not here: they have two spellings of their own, see `rotary_fields.py`.
DECODER = (
    Spelling("vocab_size", "vocab_size"),
    Spelling("hidden_size", "hidden_size"),
    Spelling("intermediate_size", "intermediate_size"),
    Spelling("num_hidden_layers", "num_hidden_layers"),
    Spelling("num_attention_heads", "num_attention_heads"),
    Spelling("num_key_value_heads", "num_key_value_heads", None),
    Spelling("rms_norm_eps", "rms_norm_eps", 1e-5),
    Spelling("max_position_embeddings", "max_position_embeddings"),
    Spelling("tie_word_embeddings", "tie_word_embeddings", False),
    Spelling("sliding_window", "sliding_window", None),
    Spelling("hidden_act", "hidden_act", "silu"),
)

# The original layout says only the crop size. The other sizes stand under `vision_config`, a key its own
# code ignores, when we write them; the defaults are the tower that code builds.
VISION_ORIGINAL = (
    Spelling("crop_size", "embd_layer.image_embd_layer.crop_size", 448),
    Spelling("hidden_size", "vision_config.hidden_size", 1152),
    Spelling("intermediate_size", "vision_config.intermediate_size", 4304),
    Spelling("num_hidden_layers", "vision_config.num_hidden_layers", 27),
    Spelling("num_attention_heads", "vision_config.num_attention_heads", 16),
    Spelling("patch_size", "vision_config.patch_size", 14),
    Spelling("num_channels", "vision_config.num_channels", 3),
    Spelling("layer_norm_eps", "vision_config.layer_norm_eps", 1e-6),
    Spelling("feature_layer", "vision_config.feature_layer", -2),
    Spelling("max_crops", "vision_config.max_crops", 36),
)
# transformers leaves out of a sub-config what equals its class's defaults, so these are part of the format.
VISION_HF = (Spelling("crop_size", "vision_config.crop_size", 448), *VISION_ORIGINAL[1:])

_AUDIO = "audio_processor.config"
# Ours: at the top level, where the released code ignores what it does not know.
_SEGMENT = Spelling("max_segment_s", "speech_segment_s", 30.0)
SPEECH_ORIGINAL = (
    Spelling("hidden_size", f"{_AUDIO}.attention_dim"),
    Spelling("num_attention_heads", f"{_AUDIO}.attention_heads"),
    Spelling("intermediate_size", f"{_AUDIO}.linear_units"),
    Spelling("num_blocks", f"{_AUDIO}.num_blocks"),
    Spelling("nemo_conv_channels", f"{_AUDIO}.nemo_conv_settings.conv_channels"),
    Spelling("depthwise_separable_out_channel", f"{_AUDIO}.depthwise_seperable_out_channel"),
    Spelling("ext_pw_out_channel", f"{_AUDIO}.ext_pw_out_channel"),
    Spelling("input_size", f"{_AUDIO}.input_size", 80),
    Spelling("kernel_size", f"{_AUDIO}.kernel_size", 3),
    Spelling("bias_max_distance", f"{_AUDIO}.relative_attention_bias_args.t5_bias_max_distance", 500),
    Spelling("time_reduction", f"{_AUDIO}.time_reduction", 8),
    _SEGMENT,
)
SPEECH_HF = (
    Spelling("hidden_size", "audio_config.hidden_size", 1024),
    Spelling("num_attention_heads", "audio_config.num_attention_heads", 16),
    Spelling("intermediate_size", "audio_config.intermediate_size", 1536),
    Spelling("num_blocks", "audio_config.num_blocks", 24),
    Spelling("nemo_conv_channels", "audio_config.nemo_conv_channels", 1024),
    Spelling("depthwise_separable_out_channel", "audio_config.depthwise_separable_out_channel", 1024),
    Spelling("ext_pw_out_channel", "audio_config.ext_pw_out_channel", 1024),
    Spelling("input_size", "audio_config.input_size", 80),
    Spelling("kernel_size", "audio_config.kernel_size", 3),
    Spelling("bias_max_distance", "audio_config.bias_max_distance", 1000),
    Spelling("time_reduction", "audio_config.time_reduction", 8),
    _SEGMENT,
)
VISION: dict[Layout, tuple[Spelling, ...]] = {"mini": (), "original": VISION_ORIGINAL, "hf": VISION_HF}
SPEECH: dict[Layout, tuple[Spelling, ...]] = {"mini": (), "original": SPEECH_ORIGINAL, "hf": SPEECH_HF}

_FIXED_TEXT: dict[str, Any] = {"attention_bias": False, "mlp_bias": False, "lm_head_bias": False}
_IMAGE, _SOUND = "embd_layer.image_embd_layer", "embd_layer.audio_embd_layer"
FIXED_TEXT: dict[Layout, dict[str, Any]] = {
    "mini": _FIXED_TEXT,
    "original": {**_FIXED_TEXT, "embd_layer.embedding_cls": "image_audio"},
    "hf": {},
}
FIXED_VISION: dict[Layout, dict[str, Any]] = {
    "mini": {},
    "original": {
        f"{_IMAGE}.embedding_cls": "tune_image",
        f"{_IMAGE}.hd_transform_order": "sub_glb",
        f"{_IMAGE}.image_token_compression_cls": "avg_pool_2d",
        f"{_IMAGE}.projection_cls": "mlp",
        f"{_IMAGE}.use_hd_transform": True,
        f"{_IMAGE}.with_learnable_separator": True,
    },
    "hf": {
        "vision_config.model_type": "phi4_multimodal_vision",
        "vision_config.hidden_act": "gelu_pytorch_tanh",
    },
}
FIXED_SPEECH: dict[Layout, dict[str, Any]] = {
    "mini": {},
    "original": {
        "audio_processor.name": "cascades",
        f"{_SOUND}.embedding_cls": "audio",
        f"{_SOUND}.projection_cls": "mlp",
        f"{_SOUND}.compression_rate": 8,
        f"{_SOUND}.downsample_rate": 1,
        f"{_SOUND}.use_qformer": False,
        f"{_SOUND}.use_conv_downsample": False,
        f"{_AUDIO}.activation": "swish",
        f"{_AUDIO}.conv_activation": "swish",
        f"{_AUDIO}.conv_glu_type": "swish",
        f"{_AUDIO}.batch_norm": False,
        f"{_AUDIO}.bias_in_glu": True,
        f"{_AUDIO}.causal": True,
        f"{_AUDIO}.chunk_size": -1,
        f"{_AUDIO}.cnn_layer_norm": True,
        f"{_AUDIO}.depthwise_multiplier": 1,
        f"{_AUDIO}.ext_pw_kernel_size": 1,
        f"{_AUDIO}.input_layer": "nemo_conv",
        f"{_AUDIO}.relative_attention_bias_args.type": "t5",
    },
    "hf": {
        "audio_config.model_type": "phi4_multimodal_audio",
        "audio_config.activation": "swish",
        "audio_config.conv_activation": "swish",
        "audio_config.conv_glu_type": "swish",
        "audio_config.nemo_activation": "relu",
        "audio_config.chunk_size": -1,
        "audio_config.depthwise_multiplier": 1,
        "audio_config.downsample_rate": 1,
        "audio_config.bias_symmetric": False,
    },
}

# Keys that mean something in one layout only; they do not travel into another one.
BOUND_KEYS: dict[Layout, frozenset[str]] = {
    "mini": frozenset({"rope_scaling", "rope_theta", "partial_rotary_factor"}),
    "original": frozenset(
        {"auto_map", "embd_layer", "audio_processor", "rope_scaling", "rope_theta", "partial_rotary_factor"}
    ),
    "hf": frozenset({"rope_scaling", "rope_parameters", "rope_theta", "partial_rotary_factor"}),
}
BOUND_EVERYWHERE = frozenset(
    {
        "model_type",
        "architectures",
        "transformers_version",
        "_name_or_path",
        "_attn_implementation",
        "auto_map",
    }
)
ENCODER_KEYS = frozenset({"vision_config", "audio_config", "speech_segment_s"})
