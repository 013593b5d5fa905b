"""Configs that exist without a file: the released models, nano, and tiny models for tests.

The released values are those of the official `config.json` files.
"""

from __future__ import annotations

from dataclasses import replace

from phi4.configs.decoder import DecoderConfig
from phi4.configs.model import AdapterConfig, Phi4Config
from phi4.configs.speech import SpeechConfig
from phi4.configs.vision import VisionConfig

# fmt: off
LONG_FACTOR = (
    1.0, 1.118320672, 1.250641126, 1.398617824, 1.564103225, 1.74916897, 1.956131817, 2.187582649,
    2.446418898, 2.735880826, 3.059592084, 3.421605075, 3.826451687, 4.279200023, 4.785517845, 5.351743533,
    5.984965424, 6.693110555, 7.485043894, 8.370679318, 9.36110372, 10.4687158, 11.70738129, 13.09260651,
    14.64173252, 16.37415215, 18.31155283, 20.47818807, 22.90118105, 25.61086418, 28.64115884, 32.03,
    32.1, 32.13, 32.23, 32.6, 32.61, 32.64, 32.66, 32.7,
    32.71, 32.93, 32.97, 33.28, 33.49, 33.5, 44.16, 47.77,
)
# fmt: on
"""LongRoPE factors of the released models beyond 4,096 tokens, one per rotary frequency."""

_RELEASED_DECODER = DecoderConfig(
    vocab_size=200064,
    hidden_size=3072,
    intermediate_size=8192,
    num_hidden_layers=32,
    num_attention_heads=24,
    num_key_value_heads=8,
    rms_norm_eps=1e-5,
    rope_theta=10000.0,
    partial_rotary_factor=0.75,
    max_position_embeddings=131072,
    original_max_position_embeddings=4096,
    short_factor=(1.0,) * 48,
    long_factor=LONG_FACTOR,
    tie_word_embeddings=True,
    sliding_window=262144,
)

PHI4_MINI = Phi4Config(
    layout="mini",
    decoder=_RELEASED_DECODER,
    bos_token_id=199999,
    eos_token_ids=(199999,),
    pad_token_id=199999,
)
"""microsoft/Phi-4-mini-instruct, 3.84 billion parameters."""

PHI4_MULTIMODAL = Phi4Config(
    layout="original",
    decoder=_RELEASED_DECODER,
    vision=VisionConfig(
        hidden_size=1152,
        intermediate_size=4304,
        num_hidden_layers=27,
        num_attention_heads=16,
        crop_size=448,
        patch_size=14,
    ),
    speech=SpeechConfig(
        hidden_size=1024,
        num_attention_heads=16,
        intermediate_size=1536,
        num_blocks=24,
        nemo_conv_channels=1024,
        depthwise_separable_out_channel=1024,
        ext_pw_out_channel=1024,
    ),
    adapters=(AdapterConfig("vision", 256, 512), AdapterConfig("speech", 320, 640, dropout=0.01)),
    bos_token_id=199999,
    eos_token_ids=(199999,),
    pad_token_id=199999,
)
"""microsoft/Phi-4-multimodal-instruct, 5.57 billion parameters."""

NANO = Phi4Config(
    layout="original",
    decoder=replace(
        _RELEASED_DECODER,
        vocab_size=1024,
        hidden_size=256,
        intermediate_size=640,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=4,
        short_factor=(1.0,) * 12,
        # Every fourth of the released factors, first and last included: it rises the same way.
        long_factor=tuple(LONG_FACTOR[round(i * 47 / 11)] for i in range(12)),
        sliding_window=None,
    ),
    vision=VisionConfig(
        hidden_size=160,
        intermediate_size=480,
        num_hidden_layers=6,
        num_attention_heads=5,
        crop_size=112,
        patch_size=14,
        max_crops=12,
    ),
    speech=SpeechConfig(
        hidden_size=192,
        num_attention_heads=4,
        intermediate_size=384,
        num_blocks=5,
        nemo_conv_channels=32,
        depthwise_separable_out_channel=192,
        ext_pw_out_channel=192,
        max_segment_s=4.0,
    ),
    adapters=(AdapterConfig("vision", 16, 32), AdapterConfig("speech", 20, 40)),
)
"""The small model that ships with the package; token ids come with its tokenizer."""


def tiny_multimodal(original_max: int = 4096, max_positions: int = 131072) -> Phi4Config:
    """A model of 0.23 million parameters (adapters apart) whose reference values are known.

    Args:
        original_max: Tokens up to which the short factors act; 16 tests the switch cheaply.
        max_positions: Longest context; 64 goes with 16.

    Source: the model behind `tests/data/golden`; adapters vision r 4, alpha 8 and speech r 5, alpha 10.
    """
    return Phi4Config(
        layout="hf",
        decoder=DecoderConfig(
            vocab_size=256,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            rms_norm_eps=1e-5,
            rope_theta=10000.0,
            partial_rotary_factor=0.75,
            max_position_embeddings=max_positions,
            original_max_position_embeddings=original_max,
            short_factor=(1.0,) * 12,
            long_factor=tuple(float(i) for i in range(1, 13)),
        ),
        vision=VisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            crop_size=448,
            patch_size=14,
        ),
        speech=SpeechConfig(
            hidden_size=32,
            num_attention_heads=4,
            intermediate_size=48,
            num_blocks=2,
            nemo_conv_channels=16,
            depthwise_separable_out_channel=32,
            ext_pw_out_channel=32,
        ),
        adapters=(AdapterConfig("vision", 4, 8), AdapterConfig("speech", 5, 10)),
        bos_token_id=0,
        eos_token_ids=(0, 3),
        pad_token_id=0,
        dtype="float32",
    )
