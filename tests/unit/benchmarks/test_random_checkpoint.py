"""Random checkpoints are whole, reproducible, and of the distribution that was asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from make_random_checkpoint import (
    ADAPTER_SHARE,
    EMBEDDING_STD,
    FINAL_GAIN,
    MASSIVE_GAIN,
    Drawn,
    Rule,
    massive_channels,
    model_config,
    rule_for,
    tensors,
    write_checkpoint,
)
from random_tokenizer import RELEASED_IDS, RELEASED_VOCABULARY, write_tokenizer

from phi4.checkpoint import describe, open_checkpoint
from phi4.processing.tokenizer import Phi4Tokenizer


@pytest.mark.parametrize("kind", ["mini", "multimodal"])
def test_checkpoint_holds_what_its_config_implies(kind: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path, model_config(kind, "quick"))
    report = describe(tmp_path)
    assert not report.differences
    open_checkpoint(tmp_path).check()
    assert Phi4Tokenizer.load(tmp_path, 2048).vocab_size == 2048


def test_same_seed_writes_the_same_bytes_and_another_does_not(tmp_path: Path) -> None:
    config = model_config("mini", "quick")
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        write_checkpoint(tmp_path / name, config, seed)
    one, two, three = (
        (tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two", "three")
    )
    assert one == two and one != three


def test_weights_are_normal_with_the_deviation_of_their_rule() -> None:
    values = np.asarray(Drawn("a", (300, 1000), Rule(std=0.5), 0)).astype(np.float64)
    assert abs(values.mean()) < 0.005 and abs(values.std() - 0.5) < 0.005
    assert abs((np.abs(values) < 0.5).mean() - 0.6827) < 0.005
    assert abs(np.corrcoef(values[:-1].ravel(), values[1:].ravel())[0, 1]) < 0.01


def test_what_is_drawn_depends_on_the_name_and_not_on_the_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (np.asarray(Drawn(name, (40, 40), Rule(std=1.0), 0)) for name in ("a", "b"))
    assert not np.array_equal(one, other)
    monkeypatch.setattr("make_random_checkpoint._BLOCK_WEIGHTS", 64)
    assert np.array_equal(one, np.asarray(Drawn("a", (40, 40), Rule(std=1.0), 0)))


@pytest.mark.parametrize(
    ("name", "shape", "rule"),
    [
        ("decoder.norm.weight", (64,), Rule(mean=FINAL_GAIN)),
        ("decoder.layers.0.input_layernorm.weight", (64,), Rule(mean=1.0)),
        ("vision.img_processor.encoder.layers.0.layer_norm1.bias", (64,), Rule(std=EMBEDDING_STD)),
        ("decoder.embed_tokens.weight", (512, 64), Rule(std=EMBEDDING_STD)),
        ("decoder.layers.0.self_attn.qkv_proj.weight", (96, 64), Rule(std=1 / 8)),
        ("decoder.layers.0.mlp.down_proj.weight", (64, 256), Rule(std=1 / 64)),
        ("decoder.layers.0.mlp.down_proj.lora_B.speech.weight", (64, 4), Rule(std=ADAPTER_SHARE / 2)),
        ("speech.encoder.encoder_embedding.global_invstd", (80,), Rule(mean=1.0)),
    ],
)
def test_tensors_are_filled_by_what_they_do(name: str, shape: tuple[int, ...], rule: Rule) -> None:
    assert rule_for(name, shape, layers=8) == rule


def test_massive_channels_are_the_only_difference() -> None:
    config = model_config("mini", "quick")
    channels = list(massive_channels(config.decoder.hidden_size, 3))
    assert len(set(channels)) == 3 and max(channels) < config.decoder.hidden_size
    plain, rough = dict(tensors(config, 0, 0)), dict(tensors(config, 0, 3))
    name = "decoder.layers.1.mlp.down_proj.weight"
    before, after = (np.asarray(side[name]).astype(np.float32) for side in (plain, rough))
    np.testing.assert_allclose(after[channels], MASSIVE_GAIN * before[channels], rtol=0.01)
    others = [row for row in range(len(before)) if row not in channels]
    assert np.array_equal(before[others], after[others])
    changed = [key for key in plain if plain[key].rule != rough[key].rule]
    assert changed == [name, "decoder.norm.weight"]


def test_tokenizer_of_released_size_has_the_released_control_ids(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, RELEASED_VOCABULARY, hf_names=False)
    tokenizer = Phi4Tokenizer.load(tmp_path, RELEASED_VOCABULARY)
    tokens = tokenizer.tokens
    assert (tokens.endoftext, tokens.image, tokens.audio) == (199_999, 200_010, 200_011)
    assert (tokens.assistant, tokens.end, tokens.user, tokens.system) == (200_019, 200_020, 200_021, 200_022)
    assert tokenizer.vocab_size == max(RELEASED_IDS) + 1
    text = "Hello, Wörld! 123"
    assert tokenizer.decode(tokenizer.encode_text(text)) == text


def test_vocabulary_too_small_for_bytes_and_controls_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least"):
        write_tokenizer(tmp_path, 200, hf_names=False)
