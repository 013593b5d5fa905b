"""Names and shapes a config implies: what a checkpoint must hold, and what it may hold unused.

A pure function of the config; the model's own parameters are tested to be the same set.
"""

from __future__ import annotations

from collections.abc import Sequence

from phi4.checkpoint.keymap import lora_name
from phi4.configs import AdapterConfig, DecoderConfig, Phi4Config, SpeechConfig, VisionConfig
from phi4.errors import InvalidRequest
from phi4.types import Modality

Shapes = dict[str, tuple[int, ...]]


def expected_shapes(
    config: Phi4Config, parts: Sequence[Modality] | None = None, adapters: Sequence[str] | None = None
) -> Shapes:
    """Every tensor the model computes with, by our name.

    Args:
        config: The model.
        parts: Modalities asked for; None = all the model has. Text is always in.
        adapters: Adapters asked for; None = those that `adapters_for` names.

    Raises:
        InvalidRequest: A part or an adapter the model does not have.
    """
    parts = check_parts(config, parts)
    names = adapters_for(config, parts) if adapters is None else tuple(adapters)
    shapes = _decoder(config.decoder)
    if "vision" in parts and config.vision is not None:
        shapes |= _vision(config.vision, config.decoder.hidden_size)
    if "speech" in parts and config.speech is not None:
        shapes |= _speech(config.speech, config.decoder.hidden_size)
    for name in names:
        shapes |= adapter_shapes(config.decoder, config.adapter(name))
    return shapes


def optional_shapes(config: Phi4Config, parts: Sequence[Modality] | None = None) -> Shapes:
    """Tensors a released checkpoint stores although nothing computes with them.

    The vision tower's layers after the feature layer, its last norm and its pooling head; the output matrix
    of a tied model. They are kept when a checkpoint is converted, and never loaded into a model.
    """
    parts = check_parts(config, parts)
    decoder = config.decoder
    shapes: Shapes = {}
    if decoder.tie_word_embeddings:
        shapes["decoder.lm_head.weight"] = (decoder.vocab_size, decoder.hidden_size)
    vision = config.vision
    if vision is None or "vision" not in parts:
        return shapes
    tower, width = "vision.img_processor", vision.hidden_size
    for index in range(vision.num_layers_used, vision.num_hidden_layers):
        shapes |= _vision_layer(vision, f"{tower}.encoder.layers.{index}")
    shapes |= _norm(f"{tower}.post_layernorm", width)
    shapes[f"{tower}.head.probe"] = (1, 1, width)
    shapes[f"{tower}.head.attention.in_proj_weight"] = (3 * width, width)
    shapes[f"{tower}.head.attention.in_proj_bias"] = (3 * width,)
    shapes |= _linear(f"{tower}.head.attention.out_proj", width, width)
    shapes |= _norm(f"{tower}.head.layernorm", width)
    return shapes | _vision_mlp(vision, f"{tower}.head.mlp")


def check_parts(config: Phi4Config, parts: Sequence[Modality] | None) -> tuple[Modality, ...]:
    """The asked parts in order, text included.

    Raises:
        InvalidRequest: The model does not have one of them.
    """
    if parts is None:
        return config.modalities
    for part in parts:
        if part not in config.modalities:
            raise InvalidRequest(
                f"modalities: {part!r} is not in this model, it has {list(config.modalities)}"
            )
    return tuple(part for part in config.modalities if part == "text" or part in parts)


def adapters_for(config: Phi4Config, parts: Sequence[Modality]) -> tuple[str, ...]:
    """Adapters a set of modalities needs: a modality's own only with it, others always."""
    return tuple(
        adapter.name
        for adapter in config.adapters
        if adapter.name not in ("vision", "speech") or adapter.name in parts
    )


def adapter_shapes(decoder: DecoderConfig, adapter: AdapterConfig) -> Shapes:
    """LoRA matrices of one adapter: A `[R, in]`, B `[out, R]` for each target of each layer."""
    shapes: Shapes = {}
    for layer in range(decoder.num_hidden_layers):
        for target in adapter.target_modules:
            width_in, width_out = decoder.target_dims(target)
            shapes[lora_name(layer, target, "A", adapter.name)] = (adapter.r, width_in)
            shapes[lora_name(layer, target, "B", adapter.name)] = (width_out, adapter.r)
    return shapes


def _linear(name: str, width_in: int, width_out: int) -> Shapes:
    return {f"{name}.weight": (width_out, width_in), f"{name}.bias": (width_out,)}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _conv(name: str, *shape: int) -> Shapes:
    return {f"{name}.weight": shape, f"{name}.bias": (shape[0],)}


def _decoder(config: DecoderConfig) -> Shapes:
    width = config.hidden_size
    shapes: Shapes = {"decoder.embed_tokens.weight": (config.vocab_size, width)}
    for layer in range(config.num_hidden_layers):
        prefix = f"decoder.layers.{layer}"
        shapes[f"{prefix}.input_layernorm.weight"] = (width,)
        shapes[f"{prefix}.self_attn.qkv_proj.weight"] = (config.qkv_dim, width)
        shapes[f"{prefix}.self_attn.o_proj.weight"] = (width, width)
        shapes[f"{prefix}.post_attention_layernorm.weight"] = (width,)
        shapes[f"{prefix}.mlp.gate_up_proj.weight"] = (2 * config.intermediate_size, width)
        shapes[f"{prefix}.mlp.down_proj.weight"] = (width, config.intermediate_size)
    shapes["decoder.norm.weight"] = (width,)
    if not config.tie_word_embeddings:
        shapes["decoder.lm_head.weight"] = (config.vocab_size, width)
    return shapes


def _vision(config: VisionConfig, text_width: int) -> Shapes:
    tower, width, patch = "vision.img_processor", config.hidden_size, config.patch_size
    shapes: Shapes = {"vision.glb_GN": (1, 1, width), "vision.sub_GN": (1, 1, 1, width)}
    shapes |= _conv(f"{tower}.embeddings.patch_embedding", width, config.num_channels, patch, patch)
    shapes[f"{tower}.embeddings.position_embedding.weight"] = (config.grid**2, width)
    for index in range(config.num_layers_used):
        shapes |= _vision_layer(config, f"{tower}.encoder.layers.{index}")
    return (
        shapes
        | _linear("vision.img_projection.0", width, text_width)
        | _linear("vision.img_projection.2", text_width, text_width)
    )


def _vision_layer(config: VisionConfig, prefix: str) -> Shapes:
    shapes = _norm(f"{prefix}.layer_norm1", config.hidden_size)
    for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
        shapes |= _linear(f"{prefix}.self_attn.{name}", config.hidden_size, config.hidden_size)
    return shapes | _norm(f"{prefix}.layer_norm2", config.hidden_size) | _vision_mlp(config, f"{prefix}.mlp")


def _vision_mlp(config: VisionConfig, prefix: str) -> Shapes:
    inner = config.intermediate_size
    return _linear(f"{prefix}.fc1", config.hidden_size, inner) | _linear(
        f"{prefix}.fc2", inner, config.hidden_size
    )


def _speech(config: SpeechConfig, text_width: int) -> Shapes:
    encoder, width, channels = "speech.encoder", config.hidden_size, config.nemo_conv_channels
    shapes: Shapes = {
        f"{encoder}.encoder_embedding.global_mean": (config.input_size,),
        f"{encoder}.encoder_embedding.global_invstd": (config.input_size,),
    }
    # Strided convolutions at 0, 2, 5 (the last two depthwise), pointwise ones at 3 and 6.
    for index in (0, 2, 5):
        shapes |= _conv(f"{encoder}.embed.conv.{index}", channels, 1, 3, 3)
    for index in (3, 6):
        shapes |= _conv(f"{encoder}.embed.conv.{index}", channels, channels, 1, 1)
    shapes |= _linear(f"{encoder}.embed.out", channels * config.subsampled_mels, width)
    bias_rows = 2 * config.bias_max_distance
    shapes[f"{encoder}.relative_attention_bias_layer.bias_values.weight"] = (
        bias_rows,
        config.num_attention_heads,
    )
    for index in range(config.num_blocks):
        shapes |= _speech_block(config, f"{encoder}.encoders.{index}")
    for projector in ("speech", "vision"):
        shapes |= _linear(f"speech.audio_projection.{projector}.0", width, text_width)
        shapes |= _linear(f"speech.audio_projection.{projector}.2", text_width, text_width)
    return shapes


def _speech_block(config: SpeechConfig, prefix: str) -> Shapes:
    width, inner = config.hidden_size, config.intermediate_size
    shapes: Shapes = {}
    for half in ("feed_forward_in", "feed_forward_out"):
        shapes |= _norm(f"{prefix}.{half}.layer_norm", width)
        shapes |= _linear(f"{prefix}.{half}.net.0.linear", width, 2 * inner)
        shapes |= _linear(f"{prefix}.{half}.net.2", inner, width)
    for name in ("linear_q", "linear_k", "linear_v", "linear_out"):
        shapes |= _linear(f"{prefix}.self_attn.{name}", width, width)
    conv, pointwise = f"{prefix}.conv", config.ext_pw_out_channel
    shapes |= _norm(f"{conv}.layer_norm", width)
    shapes |= _conv(f"{conv}.glu.ext_pw_conv_1d", 2 * pointwise, width, 1)
    shapes |= {f"{conv}.glu.b1": (1, pointwise, 1), f"{conv}.glu.b2": (1, pointwise, 1)}
    shapes |= _conv(f"{conv}.dw_sep_conv_1d.dw_conv", width, 1, config.kernel_size)
    shapes |= _conv(f"{conv}.dw_sep_conv_1d.pw_conv", config.depthwise_separable_out_channel, width, 1)
    shapes |= _conv(f"{conv}.ext_pw_conv_1d", pointwise, width, 1)
    return shapes | _norm(f"{prefix}.layer_norm_att", width) | _norm(f"{prefix}.layer_norm", width)
