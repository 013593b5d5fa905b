"""Bytes of a step follow sizes, precision, rows and length."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from phi4.bench.traffic import step_bytes
from phi4.checkpoint import expected_shapes, open_checkpoint
from phi4.configs import Phi4Config
from phi4.engine.runner import RunnerInfo
from phi4.onnx.building import ExportOptions, export_package
from phi4.onnx.package.description import read_description, write_description
from phi4.testing.tiny import tiny_config

INFO = RunnerInfo("torch", "cpu", "float32", "sdpa", 320, 4096, 1000, 8, 512)


def values(config: Phi4Config) -> int:
    total = 0
    for shape in expected_shapes(config, ("text",), ()).values():
        count = 1
        for size in shape:
            count *= size
        total += count
    return total


@pytest.mark.parametrize(("dtype", "item"), [("float32", 4), ("bfloat16", 2), ("fp16", 4), ("rows8", 1)])
def test_every_weight_of_the_text_model_is_read_once(dtype: str, item: int) -> None:
    config = tiny_config()
    assert step_bytes(config, replace(INFO, dtype=dtype), None, 0, 0) == item * values(config)


def test_rows_share_weights_and_not_caches() -> None:
    one, four = (step_bytes(tiny_config(), INFO, None, rows, 512) for rows in (1, 4))
    assert four - one == 3 * 512 * INFO.bytes_per_token


def test_blocks_carry_their_scales() -> None:
    config = tiny_config()
    sizes = {kind: step_bytes(config, replace(INFO, dtype=kind), None, 0, 0) for kind in ("int8", "int4")}
    assert sizes["int8"] == pytest.approx(values(config) * 8.25 / 8)
    assert sizes["int4"] == pytest.approx(values(config) * 4.25 / 8)


def test_of_an_untied_table_only_the_output_matrix_is_read() -> None:
    tied = tiny_config()
    untied = replace(tied, decoder=replace(tied.decoder, tie_word_embeddings=False))
    assert step_bytes(untied, INFO, None, 0, 0) == step_bytes(tied, INFO, None, 0, 0)


def test_package_says_how_its_head_is_stored(tiny: Path) -> None:
    config, info = tiny_config(), replace(INFO, dtype="int8")
    assert step_bytes(config, info, tiny / "onnx", 0, 0) == pytest.approx(values(config) * 8.25 / 8)
    fp32_decoder = step_bytes(config, INFO, tiny / "onnx", 0, 0)
    head = config.decoder.vocab_size * config.decoder.hidden_size
    assert fp32_decoder == pytest.approx(4 * (values(config) - head) + head * 8.25 / 8)


def test_layers_with_a_precision_of_their_own_are_read_as_stored(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    options = ExportOptions("int4", modalities=("text",), layers={"decoder.layers.*.mlp.down_proj": "int8"})
    export_package(open_checkpoint(tiny), folder, options)
    config, info = tiny_config(), replace(INFO, dtype="int4")
    width, height = config.decoder.target_dims("mlp.down_proj")
    more = config.decoder.num_hidden_layers * width * height * 4 / 8
    plain = step_bytes(config, info, tiny / "onnx", 0, 0)  # its head has 8 bits too
    assert step_bytes(config, info, folder, 0, 0) == pytest.approx(plain + more)


@pytest.mark.parametrize(
    ("stated", "of_the_head", "counted"), [(32, 128, 32), (None, 64, 64), (128, 32, 128)]
)
def test_scales_are_those_of_the_decoders_blocks(
    stated: int | None, of_the_head: int, counted: int, tiny: Path, tmp_path: Path
) -> None:
    description = read_description(tiny / "onnx")
    embedding = replace(description.embedding, block_size=of_the_head)
    precision = {**description.precision, "decoder": "int4", "head": "fp32"}
    write_description(
        tmp_path, replace(description, block_size=stated, embedding=embedding, precision=precision)
    )
    config = tiny_config()
    head = config.decoder.vocab_size * config.decoder.hidden_size
    expected = 4 * head + (values(config) - head) * (4 + 32 / counted) / 8
    assert step_bytes(config, replace(INFO, dtype="int4"), tmp_path, 0, 0) == pytest.approx(expected)
