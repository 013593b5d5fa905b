"""What onnxruntime-genai needs to open a package: a graph of its text model, and two files about it.

    names = write_genai(folder)      # the package is complete but for its manifest

`genai.onnx` reads the weights the package has anyway (`genai_graph.py`), so all three files together stay
under a few hundred kB. Text only, and without adapters: genai fixes how pictures and recordings reach a
model, and docs/interop.md says where that and this package part. A package whose adapter was merged opens
as the text model with that adapter.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from phi4.configs import read_config
from phi4.configs.decoder import DecoderConfig
from phi4.onnx.build.genai_graph import (
    IDS,
    KINDS,
    LOGITS,
    MASK,
    PAST,
    POSITIONS,
    PRESENT,
    text_graph,
)
from phi4.onnx.build.network.graph import save_graph
from phi4.onnx.package.description import Description, read_description
from phi4.processing.chat_template import CHAT_TEMPLATE
from phi4.processing.tokenizer import ModelTokens, Phi4Tokenizer

GRAPH_NAME = "genai.onnx"
CONFIG_NAME = "genai_config.json"
TOKENIZER_CONFIG_NAME = "tokenizer_config.json"
MODEL_TYPE = "phi3"
"""genai's name of this network's text model. With it, and batches of one row, genai makes the cache anew when
a sequence reaches `REGIME_CHANGE` tokens, as LongRoPE needs.

Source: onnxruntime-genai, src/generators.cpp and src/standard_decoding_strategy.cpp.
"""
REGIME_CHANGE = 4097
DEFAULT_LENGTH = 4096
"""Longest sequence unless a caller sets `max_length`: genai allocates the cache of so many tokens at once."""


def write_genai(folder: Path) -> tuple[str, ...]:
    """Write the files into a package; the same package always gives the same bytes.

    Args:
        folder: A package with its graphs, `config.json`, `phi4_onnx.json` and tokenizer.

    Returns:
        Names of the files, to be listed in the manifest.

    Raises:
        InvalidArtifact: The folder is not a package.
        InvalidConfig: Its config cannot work.
    """
    description, config = read_description(folder), read_config(folder).decoder
    tokens = Phi4Tokenizer.load(folder).tokens
    context = _context(config, description)
    save_graph(text_graph(folder, description, config, context), folder / GRAPH_NAME)
    _write_json(folder / CONFIG_NAME, _genai_config(config, tokens, context))
    _write_json(folder / TOKENIZER_CONFIG_NAME, _tokenizer_config(context))
    return GRAPH_NAME, CONFIG_NAME, TOKENIZER_CONFIG_NAME


def _context(config: DecoderConfig, description: Description) -> int:
    """Longest sequence: the package's, but without the long regime where genai would not change to it."""
    context = description.context or config.max_position_embeddings
    short = config.original_max_position_embeddings
    return context if short + 1 == REGIME_CHANGE else min(context, short)


def _genai_config(config: DecoderConfig, tokens: ModelTokens, context: int) -> dict[str, Any]:
    """Source: onnxruntime-genai, src/config.cpp: names that are not known there are refused."""
    caches = {
        side: {f"{side}_{kind}_names": pattern.format(layer="%d", kind=kind) for kind in KINDS}
        for side, pattern in (("past", PAST), ("present", PRESENT))
    }
    decoder = {
        "filename": GRAPH_NAME,
        "session_options": {"log_id": "phi4", "provider_options": []},
        "hidden_size": config.hidden_size,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "num_hidden_layers": config.num_hidden_layers,
        "head_size": config.head_dim,
        "inputs": {"input_ids": IDS, "attention_mask": MASK, "position_ids": POSITIONS, **caches["past"]},
        "outputs": {"logits": LOGITS, **caches["present"]},
    }
    model = {
        "type": MODEL_TYPE,
        "vocab_size": config.vocab_size,
        "context_length": context,
        "bos_token_id": tokens.endoftext,
        "eos_token_id": list(tokens.stop_ids),
        "pad_token_id": tokens.pad,
        "decoder": decoder,
    }
    search = {
        "do_sample": False,
        "max_length": min(context, DEFAULT_LENGTH),
        "past_present_share_buffer": True,  # the cache grows in place
    }
    return {"model": model, "search": search}


def _tokenizer_config(context: int) -> dict[str, Any]:
    """Source: onnxruntime-extensions, operators/tokenizer/tokenizer_jsconfig.hpp."""
    text = "<|endoftext|>"
    return {
        "tokenizer_class": "GPT2Tokenizer",  # byte-level BPE; how text is cut stands in tokenizer.json
        "add_bos_token": False,
        "add_eos_token": False,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "bos_token": text,
        "eos_token": text,
        "pad_token": text,
        "unk_token": text,
        "model_max_length": context,
        "chat_template": CHAT_TEMPLATE,
    }


def _write_json(path: Path, value: dict[str, Any]) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
    part.replace(path)
