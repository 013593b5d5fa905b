"""Weights into a model: complete or refused, lazily, bit for bit, without a second copy."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch

from phi4.checkpoint.inventory import expected_shapes
from phi4.configs import AdapterConfig, Phi4Config
from phi4.errors import CheckpointMismatch, InvalidRequest
from phi4.model import build_model, load_adapter, load_part, make_batch, to_array, to_tensor
from phi4.shapes import AnyArray
from phi4.types import ModelInputs


@pytest.fixture
def read(config: Phi4Config) -> Callable[[str], AnyArray]:
    """Reads bf16 tensors drawn from their names."""
    shapes = expected_shapes(config)

    def read(name: str) -> AnyArray:
        random = np.random.default_rng([*name.encode()])
        return random.standard_normal(shapes[name], dtype=np.float32).astype(ml_dtypes.bfloat16)

    return read


def test_every_weight_has_the_files_bits(config: Phi4Config, read: Callable[[str], AnyArray]) -> None:
    model = build_model(config, read)
    assert model.dtype == torch.float32
    low = build_model(config, read, dtype=torch.bfloat16)
    for name, tensor in low.state_dict().items():
        assert to_array(tensor).tobytes() == read(name).tobytes()
        assert torch.equal(model.state_dict()[name], tensor.float())
    assert not model.training


def test_missing_and_misshapen_tensors_come_in_one_error(
    config: Phi4Config, read: Callable[[str], AnyArray]
) -> None:
    def broken(name: str) -> AnyArray:
        if name == "decoder.norm.weight":
            raise KeyError(name)
        array = read(name)
        return array[:-1] if name == "vision.img_projection.0.bias" else array

    with pytest.raises(CheckpointMismatch) as caught:
        build_model(config, broken)
    message = str(caught.value)
    assert "1 missing, 1 misshapen" in message
    assert "missing: decoder.norm.weight" in message
    assert "misshapen: vision.img_projection.0.bias: file has [63], model needs [64]" in message


def test_parts_and_adapters_load_later(config: Phi4Config, read: Callable[[str], AnyArray]) -> None:
    asked: list[str] = []

    def watched(name: str) -> AnyArray:
        asked.append(name)
        return read(name)

    model = build_model(config, watched, parts=("text",))
    assert all(name.startswith("decoder.") and "lora" not in name for name in asked)
    asked.clear()
    load_part(model, "speech", watched)
    load_adapter(model, config.adapter("speech"), watched)
    assert {name.split(".")[0] for name in asked} == {"speech", "decoder"}
    assert all(".lora_" in name for name in asked if name.startswith("decoder."))
    asked.clear()
    load_part(model, "speech", watched)
    assert not asked
    load_part(model, "vision", watched)
    load_adapter(model, config.adapter("vision"), watched)
    whole = build_model(config, read).state_dict()
    later = model.state_dict()
    assert whole.keys() == later.keys()
    assert all(torch.equal(whole[name], later[name]) for name in whole)


def test_late_loading_that_is_interrupted_can_be_done_again(
    config: Phi4Config, read: Callable[[str], AnyArray]
) -> None:
    mine = AdapterConfig("mine", 2, 4.0)

    def stopped(name: str) -> AnyArray:
        if "layers.1" in name:
            raise KeyboardInterrupt
        return np.zeros((2, 2), np.float32) if ".lora_" in name else read(name)

    model = build_model(config, read, parts=("text",))
    with pytest.raises(KeyboardInterrupt):
        load_part(model, "vision", stopped)
    with pytest.raises(KeyboardInterrupt):
        load_adapter(model, mine, stopped)
    assert model.vision is None and "mine" not in model.router.scales
    load_part(model, "vision", read)
    assert model.vision is not None and not any(p.is_meta for p in model.vision.parameters())


def test_failed_late_loading_leaves_the_model_as_it_was(
    config: Phi4Config, read: Callable[[str], AnyArray]
) -> None:
    model = build_model(config, read, parts=("text",), dtype=torch.bfloat16)
    row = ModelInputs(np.arange(5, 15))
    before = model(make_batch([row], ["short"]))

    def nothing(name: str) -> AnyArray:
        raise KeyError(name)

    with pytest.raises(CheckpointMismatch):
        load_part(model, "vision", nothing)
    with pytest.raises(CheckpointMismatch):
        load_adapter(model, AdapterConfig("mine", 2, 4.0), nothing)
    assert model.vision is None
    with pytest.raises(InvalidRequest, match="not loaded"):
        model(make_batch([row], ["short"], [("mine",)]))
    assert torch.equal(before, model(make_batch([row], ["short"])))


def test_interrupted_late_loading_can_be_done_again(
    config: Phi4Config, read: Callable[[str], AnyArray]
) -> None:
    model = build_model(config, read, parts=("text",))

    def interrupted(name: str) -> AnyArray:
        if name in ("vision.img_projection.2.bias", "decoder.layers.1.mlp.down_proj.lora_B.vision.weight"):
            raise KeyboardInterrupt
        return read(name)

    with pytest.raises(KeyboardInterrupt):
        load_part(model, "vision", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_adapter(model, config.adapter("vision"), interrupted)
    assert model.vision is None and not model.router.scales
    load_part(model, "vision", read)
    load_adapter(model, config.adapter("vision"), read)
    whole = build_model(config, read, parts=("text", "vision")).state_dict()
    later = model.state_dict()
    assert whole.keys() == later.keys() and all(torch.equal(whole[name], later[name]) for name in whole)


def test_bfloat16_keeps_its_bits_both_ways() -> None:
    every = np.arange(65536, dtype=np.uint16).view(ml_dtypes.bfloat16).reshape(256, 256)
    tensor = to_tensor(every)
    assert tensor.dtype == torch.bfloat16
    assert to_array(tensor).tobytes() == every.tobytes()


def test_writable_memory_is_adopted_and_read_only_memory_copied() -> None:
    array = np.zeros(4, dtype=np.float32)
    to_tensor(array)[0] = 5
    assert array[0] == 5
    array.flags.writeable = False
    to_tensor(array)[1] = 7
    assert array[1] == 0


_LEAN = """
import sys
import numpy as np, torch
from phi4.checkpoint.inventory import adapter_shapes, expected_shapes
from phi4.configs import AdapterConfig, tiny_multimodal
from phi4.model import build_model, load_adapter, load_part
config, mine = tiny_multimodal(), AdapterConfig("mine", 3, 6.0)
shapes = expected_shapes(config) | adapter_shapes(config.decoder, mine)
read = lambda name: np.ones(shapes[name], np.float32)
model = build_model(config, read, ("text", "speech"), [])
load_part(model, "vision", read)
load_adapter(model, mine, read)
assert all(bool((tensor == 1).all()) for tensor in model.state_dict().values())
print([name for name in ("torch._dynamo", "sympy") if name in sys.modules])
"""


def test_loading_draws_no_random_weights_and_imports_no_compiler() -> None:
    made = subprocess.run([sys.executable, "-c", _LEAN], capture_output=True, text=True, check=True)
    assert made.stdout.strip() == "[]"


_PEAK = """
import ml_dtypes, numpy as np, torch
from dataclasses import replace
from phi4.checkpoint.inventory import expected_shapes
from phi4.configs import PHI4_MINI
from phi4.model import build_model
decoder = replace(PHI4_MINI.decoder, num_hidden_layers=2, vocab_size=8192)
config = replace(PHI4_MINI, decoder=decoder, eos_token_ids=(), bos_token_id=None, pad_token_id=None)
shapes = expected_shapes(config)
read = lambda name: np.ones(shapes[name], dtype=ml_dtypes.bfloat16)
def memory(field):
    lines = open("/proc/self/status").read().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field + ":"))
before = memory("VmRSS")
model = build_model(config, read, dtype=torch.bfloat16)
size = sum(tensor.numel() * 2 for tensor in model.state_dict().values())
print(size, memory("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_loading_stays_under_a_tenth_above_the_models_bytes() -> None:
    # In a process of its own: the peak of this one is already behind us. Not through getrusage, whose
    # peak a process inherits from its parent.
    made = subprocess.run([sys.executable, "-c", _PEAK], capture_output=True, text=True, check=True)
    size, grown = map(int, made.stdout.split())
    assert size > 400_000_000
    assert size * 0.5 < grown < size * 1.1
