"""Phi-4-mini with random weights: written as the released files are, loaded, and made to answer.

One layer of it runs by default; the whole (3.84 billion parameters, 8 GB of disk and memory) with
`make slow`. What was measured is printed and, with PHI4_FULL_SIZE_JSON=FILE, written there:
`PHI4_FULL_SIZE_JSON=mini.json make slow PYTEST_ARGS='-s -k full_size'`.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from phi4.checkpoint import describe, expected_shapes, open_checkpoint, save_checkpoint
from phi4.checkpoint.saving import DEFAULT_SHARD_BYTES
from phi4.configs import PHI4_MINI, Phi4Config
from phi4.shapes import AnyArray
from phi4.testing.tiny import write_tiny_tokenizer

NUM_TOKENS = 8
SHIFT = 7
"""Numbers by which a row of a made matrix differs from the one above it."""
ONE_LAYER = replace(
    PHI4_MINI,
    decoder=replace(PHI4_MINI.decoder, num_hidden_layers=1, vocab_size=4096),
    bos_token_id=None,
    eos_token_ids=(),
    pad_token_id=None,
)

# In a process of its own: the peak of this one may already lie higher.
CHILD = """
import json, sys, time
import phi4.api, phi4.torch_runner.opening

def memory(field):
    lines = open("/proc/self/status").read().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field + ":"))

def since(begin):
    return round(time.perf_counter() - begin, 3)

open("/proc/self/clear_refs", "w").write("5")  # the peak counts from here
before, begin = memory("VmRSS"), time.perf_counter()
model = phi4.load(sys.argv[1], device="cpu", dtype="bfloat16")
found = {"load_s": since(begin), "peak_load_bytes": memory("VmHWM") - before}
begin = time.perf_counter()
answer = model.chat("Hello", max_new_tokens=int(sys.argv[2]))
found |= {"generate_s": since(begin), "first_token_s": round(answer.timing.first_token_s, 3)}
found |= {"peak_bytes": memory("VmHWM"), "prompt_tokens": answer.usage.prompt_tokens}
found |= {"tokens": answer.token_ids, "attention": model.info.attention, "dtype": model.info.dtype}
found |= {"logprobs": model.score("Hello", "there").logprobs}
print(json.dumps(found))
"""


def made(name: str, shape: tuple[int, ...]) -> AnyArray:
    """A random bf16 tensor that takes almost no memory: each row is the one above, shifted."""
    if len(shape) == 1:
        return np.ones(shape, ml_dtypes.bfloat16)
    rows, cols = shape
    numbers = np.random.default_rng([*name.encode()]).standard_normal(rows * SHIFT + cols, dtype=np.float32)
    line = (numbers / math.sqrt(cols)).astype(ml_dtypes.bfloat16)
    return np.lib.stride_tricks.sliding_window_view(line, cols)[: rows * SHIFT : SHIFT]


def tensors(config: Phi4Config) -> Iterator[tuple[str, AnyArray]]:
    return ((name, made(name, shape)) for name, shape in expected_shapes(config).items())


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize(
    ("config", "shard_bytes"),
    [
        pytest.param(ONE_LAYER, 160_000_000, id="one_layer"),
        pytest.param(
            PHI4_MINI,
            DEFAULT_SHARD_BYTES,
            id="full_size",
            marks=[pytest.mark.slow, pytest.mark.timeout(3600)],
        ),
    ],
)
def test_mini_is_saved_loaded_within_a_tenth_above_its_bytes_and_answers(
    config: Phi4Config, shard_bytes: int, tmp_path: Path
) -> None:
    nbytes = sum(2 * math.prod(shape) for shape in expected_shapes(config).values())
    if shutil.disk_usage(tmp_path).free < 1.2 * nbytes:
        pytest.skip(f"needs {1.2 * nbytes / 1e9:.1f} GB of disk")
    folder = tmp_path / "mini"
    write_tiny_tokenizer(folder, "mini")
    begin = time.perf_counter()
    save_checkpoint(folder, config, tensors(config), "mini", shard_bytes)
    save_s = round(time.perf_counter() - begin, 3)
    found = {"parameters": nbytes // 2, "tensor_bytes": nbytes, "save_s": save_s}
    try:
        assert sorted(path.name for path in folder.glob("*.safetensors")) == [
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
        ]
        begin = time.perf_counter()
        report = describe(folder)
        found["show_s"] = round(time.perf_counter() - begin, 3)
        assert report.total_parameters == nbytes // 2 and not report.differences
        name = "decoder.layers.0.self_attn.o_proj.weight"
        stored = open_checkpoint(folder).read(name)
        assert np.array_equal(stored.view(np.uint16), made(name, stored.shape).copy().view(np.uint16))
        done = subprocess.run(
            [sys.executable, "-c", CHILD, str(folder), str(NUM_TOKENS)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        found |= json.loads(done.stdout)
    finally:
        shutil.rmtree(folder)  # pytest keeps the folders of its last runs
    found["peak_load_to_tensor_bytes"] = round(found["peak_load_bytes"] / nbytes, 4)
    print("\n" + json.dumps(found))
    if "PHI4_FULL_SIZE_JSON" in os.environ:
        Path(os.environ["PHI4_FULL_SIZE_JSON"]).write_text(json.dumps(found, indent=1) + "\n")
    # The lower bound shows that the weights were loaded at all, and not mapped.
    assert 0.95 * nbytes < found["peak_load_bytes"] < 1.1 * nbytes
    assert len(found["tokens"]) == NUM_TOKENS and len(set(found["tokens"])) > 1
    assert max(found["tokens"]) < config.decoder.vocab_size
    assert all(math.isfinite(value) and value < 0 for value in found["logprobs"])
