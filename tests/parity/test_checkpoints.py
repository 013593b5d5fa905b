"""Checkpoints written by the reference, opened as they are, and carried through the other layouts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from phi4.checkpoint import load_adapter, open_checkpoint, save_checkpoint
from phi4.configs import AdapterConfig
from phi4.model import Phi4Model, build_model, make_batch
from phi4.model import load_adapter as add_adapter

LIMIT = 2e-5


def loaded(directory: Path) -> Phi4Model:
    checkpoint = open_checkpoint(directory)
    return build_model(checkpoint.config, checkpoint.read, dtype=torch.float32)


def logits_of(
    model: Phi4Model, row: Any, adapters: tuple[str, ...] = (), regime: str = "short"
) -> torch.Tensor:
    with torch.no_grad():
        return model.logits(model(make_batch([row], [regime], [adapters])))  # type: ignore[list-item]


@pytest.mark.parity
def test_native_checkpoint_of_the_reference_gives_its_logits_in_every_layout(
    reference: Callable[..., Any], prompt: Any, media: Any, parity_table: Any, tmp_path: Path
) -> None:
    hf = reference()
    hf.save_pretrained(tmp_path / "hf")
    case = prompt(5, 6, media["padded"], 9, media["second"], 7, 8)
    with torch.no_grad():
        expected = hf(**case.kwargs).logits
    model = loaded(tmp_path / "hf")
    assert model.config.layout == "hf"
    parity_table.add(
        "HF-native checkpoint", (logits_of(model, case.row) - expected).abs().max().item(), LIMIT
    )
    checkpoint = open_checkpoint(tmp_path / "hf")
    save_checkpoint(tmp_path / "original", checkpoint.config, checkpoint.tensors(), "original")
    again = loaded(tmp_path / "original")
    assert again.config.layout == "original"
    difference = (logits_of(again, case.row) - expected).abs().max().item()
    parity_table.add("the same in the original layout", difference, LIMIT)


@pytest.mark.parity
def test_peft_folder_of_the_reference_gives_its_logits(
    reference: Callable[..., Any], prompt: Any, parity_table: Any, tmp_path: Path
) -> None:
    hf = reference(adapters=(AdapterConfig("mine", 3, 6.0),))
    case = prompt(*range(5, 25))
    with torch.no_grad():
        expected = hf(**case.kwargs).logits
    hf.save_pretrained(tmp_path / "adapter")
    reference().save_pretrained(tmp_path / "base")
    model = loaded(tmp_path / "base")
    adapter = load_adapter(tmp_path / "adapter", model.config, "mine")
    add_adapter(model, adapter.config, adapter.tensors.__getitem__)
    difference = (logits_of(model, case.row, ("mine",)) - expected).abs().max().item()
    parity_table.add("PEFT folder saved by the reference", difference, LIMIT)


@pytest.mark.parity
@pytest.mark.parametrize("length", [16, 17])
def test_mini_checkpoint_of_the_reference_gives_its_logits(
    length: int, prompt: Any, parity_table: Any, tmp_path: Path
) -> None:
    from transformers.models.phi3.configuration_phi3 import Phi3Config
    from transformers.models.phi3.modeling_phi3 import Phi3ForCausalLM

    torch.manual_seed(0)
    config = Phi3Config(
        vocab_size=256, hidden_size=96, intermediate_size=128, num_hidden_layers=3, num_attention_heads=3,
        num_key_value_heads=1, rms_norm_eps=1e-5, tie_word_embeddings=True, sliding_window=262144,
        pad_token_id=0, bos_token_id=0, eos_token_id=0, max_position_embeddings=64,
        original_max_position_embeddings=16,
        initializer_range=0.1, partial_rotary_factor=0.75, attn_implementation="eager",
        rope_parameters={
            "rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 0.75,
            "short_factor": [1.0] * 12, "long_factor": [float(i) for i in range(1, 13)],
            "original_max_position_embeddings": 16,
        },
    )  # fmt: skip
    hf = Phi3ForCausalLM(config).eval()
    hf.save_pretrained(tmp_path)
    model = loaded(tmp_path)
    assert model.config.layout == "mini"
    case = prompt(*(5 + 3 * i for i in range(length)))
    with torch.no_grad():
        expected = hf(**case.kwargs).logits
    regime = "long" if length > 16 else "short"
    difference = (logits_of(model, case.row, (), regime) - expected).abs().max().item()
    parity_table.add(f"mini checkpoint (Phi3ForCausalLM), {length} tokens", difference, LIMIT)
