"""The graph for onnxruntime-genai, run as genai runs it: logits of decoder and head, no weight twice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto

import phi4
from phi4.checkpoint import open_checkpoint, save_checkpoint, write_manifest
from phi4.configs import Phi4Config, read_config
from phi4.configs.rope import Regime
from phi4.engine.runner import Draw, Row, SequenceSpec, StepPlan, TextPiece
from phi4.onnx import open_package
from phi4.onnx.build.genai import write_genai
from phi4.onnx.build.genai_graph import text_graph
from phi4.onnx.build.network.graph import save_graph
from phi4.onnx.build.network.linear import Precision
from phi4.onnx.building import ExportOptions, export_package
from phi4.onnx.package.description import read_description, write_description
from phi4.onnx.package.external_data import external_files
from phi4.onnx.serving.runner import OrtRunner
from phi4.onnx.serving.session import CPU, SessionChoice, open_session
from phi4.processing.chat_template import CHAT_TEMPLATE
from phi4.shapes import FloatArray
from phi4.testing.tiny import tiny_config, tiny_tensors, write_tiny_tokenizer

LIMIT = 1e-5
NANO = Path(phi4.__file__).parent / "assets" / "nano"
FORMS = {
    "fp32": (Precision("fp32"), Precision("fp32")),
    "fp16": (Precision("fp16"), Precision("fp16")),
    "int8": (Precision("int8", 32), Precision("int8", 32)),
    "int4": (Precision("int4", 32), Precision("int4", 16)),
    "padded": (Precision("int4", 128), Precision("int8", 128)),  # blocks longer than a row of the table
}


@dataclass
class Genai:
    """genai's side: one memory for past and present, a mask, positions, padding behind short prompts."""

    session: Any
    config: Phi4Config

    @classmethod
    def open(cls, folder: Path) -> Genai:
        return cls(open_session(folder / "genai.onnx", SessionChoice(CPU, 1)), read_config(folder))

    def start(self, rows: int, capacity: int) -> None:
        decoder = self.config.decoder
        shape = (rows, decoder.num_key_value_heads, capacity, decoder.head_dim)
        self.caches = [
            onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32))
            for _ in range(2 * decoder.num_hidden_layers)
        ]
        self.mask = np.zeros((rows, 0), np.int64)
        self.held = np.zeros(rows, np.int64)

    def feed(self, prompts: Sequence[Sequence[int]]) -> FloatArray:
        """Append tokens to each row; logits `[B, V]` of the last ones."""
        width = max(len(ids) for ids in prompts)
        ids = np.array([[*row, *[0] * (width - len(row))] for row in prompts], np.int64)
        new = np.array([[1] * len(row) + [0] * (width - len(row)) for row in prompts], np.int64)
        self.mask = np.concatenate((self.mask, new), axis=1)
        positions = (self.held[:, None] + np.arange(width)) * new
        self.held += new.sum(axis=1)
        binding = self.session.io_binding()
        named = {"input_ids": ids, "attention_mask": self.mask, "position_ids": positions}
        for name, array in named.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(array))
        for place, cache in enumerate(self.caches):
            name = f"{place // 2}.{('key', 'value')[place % 2]}"
            binding.bind_ortvalue_input(f"past_key_values.{name}", cache)
            binding.bind_ortvalue_output(f"present.{name}", cache)
        binding.bind_output("logits")
        self.session.run_with_iobinding(binding)
        logits: FloatArray = binding.get_outputs()[-1].numpy()
        assert logits.shape == (len(prompts), 1, self.config.decoder.vocab_size)
        return logits[:, 0]


class Ours:
    """The package's own decoder and head behind the runner; log-probabilities of every id."""

    def __init__(self, folder: Path) -> None:
        write_manifest(folder)  # tokenizer and files for genai may have come after it
        self.runner = OrtRunner(open_package(folder, ("text",)), SessionChoice(CPU, 1))

    def start(self, regime: Regime = "short") -> None:
        self.slot = self.runner.open(SequenceSpec((), regime, 64))

    def feed(self, ids: Sequence[int]) -> FloatArray:
        vocab = self.runner.info.vocab_size
        row = Row(self.slot, (TextPiece(np.array(ids, np.int64)),), Draw(num_top=vocab))
        result = self.runner.step(StepPlan((row,))).rows[0]
        found = np.empty(vocab, np.float32)
        found[result.top_ids[0]] = result.top_logprobs[0]
        return found


def log_softmax(logits: FloatArray) -> FloatArray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)), np.float32)


def worst_step(folder: Path, prompt: Sequence[int], steps: int = 6) -> float:
    """Largest difference of a log-probability: a prompt, `steps` tokens, then three tokens at once."""
    genai, ours = Genai.open(folder), Ours(folder)
    genai.start(1, len(prompt) + steps + 3)
    ours.start()
    worst = 0.0
    for ids in [list(prompt), *([7 + n] for n in range(steps)), [5, 9, 11]]:
        worst = max(worst, float(np.abs(log_softmax(genai.feed([ids])[0]) - ours.feed(ids)).max()))
    return worst


def text_of(config: Phi4Config) -> Phi4Config:
    return replace(config, vision=None, speech=None, adapters=()).with_layout("mini")


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("genai")


@pytest.fixture(scope="module")
def whole(packages: Path, tiny_folder: Path) -> Path:
    """The whole tiny model, adapters and user slot included, with genai's files."""
    folder = packages / "whole"
    shutil.copytree(tiny_folder, folder)
    write_tiny_tokenizer(folder)
    write_genai(folder)
    return folder


@pytest.mark.parametrize("form", FORMS)
def test_logits_equal_those_of_decoder_and_head(
    form: str, tiny: Phi4Config, tmp_path: Path, write_package: Any
) -> None:
    decoder, head = FORMS[form]
    config = text_of(tiny)
    folder = write_package(tmp_path, config, dict(tiny_tensors(config)), precision=decoder, head=head)
    write_tiny_tokenizer(folder, "mini")
    write_genai(folder)
    assert worst_step(folder, range(5, 25)) < LIMIT


@pytest.mark.parametrize("precision", ["fp32", "int4"])
def test_logits_of_nano_equal_those_of_its_decoder_and_head(precision: Any, tmp_path: Path) -> None:
    export_package(
        open_checkpoint(NANO, ("text",)), tmp_path / "p", ExportOptions(precision, modalities=("text",))
    )
    write_genai(tmp_path / "p")
    assert worst_step(tmp_path / "p", range(40, 60)) < LIMIT


def test_rows_with_adapters_in_the_package_run_none(whole: Path) -> None:
    assert worst_step(whole, range(30, 45)) < LIMIT
    graph = ModelProto.FromString((whole / "genai.onnx").read_bytes()).graph
    assert {node.op_type for node in graph.node}.isdisjoint({"If", "Or"})
    assert not any("lora" in weight.name for weight in graph.initializer)
    assert {i.name for i in graph.input if not i.name.startswith("past_key_values.")} == {
        "input_ids",
        "attention_mask",
        "position_ids",
    }


def test_table_that_is_not_the_head_is_read_where_it_stands(
    tiny: Phi4Config, tmp_path: Path, write_package: Any
) -> None:
    config = text_of(tiny)
    config = replace(config, decoder=replace(config.decoder, tie_word_embeddings=False))
    folder = write_package(tmp_path, config, dict(tiny_tensors(config)), head=Precision("int8", 32))
    write_tiny_tokenizer(folder, "mini")
    write_genai(folder)
    assert worst_step(folder, range(5, 25)) < LIMIT


def test_merged_adapter_stays_merged(tmp_path: Path) -> None:
    config = tiny_config(max_positions=512)
    save_checkpoint(tmp_path / "model", config, tiny_tensors(config))
    write_tiny_tokenizer(tmp_path / "model")
    checkpoint = open_checkpoint(tmp_path / "model")
    for adapter in ("speech", None):
        options = ExportOptions("fp32", modalities=("text", "speech"), merge_adapter=adapter)
        export_package(checkpoint, tmp_path / str(adapter), options)
        write_genai(tmp_path / str(adapter))
    assert worst_step(tmp_path / "speech", range(5, 25)) < LIMIT
    firsts = []
    for adapter in ("speech", None):
        genai = Genai.open(tmp_path / str(adapter))
        genai.start(1, 20)
        firsts.append(genai.feed([range(5, 25)]))
    assert np.abs(firsts[0] - firsts[1]).max() > 1e-2


def test_padded_rows_decoded_together_equal_each_alone(whole: Path) -> None:
    genai, ours = Genai.open(whole), Ours(whole)
    prompts = [list(range(5, 5 + length)) for length in (9, 2, 14)]
    genai.start(3, 24)
    together = [genai.feed(prompts), *(genai.feed([[20 + n], [30 + n], [40 + n]]) for n in range(8))]
    for lane, prompt in enumerate(prompts):
        ours.start()
        alone = [ours.feed(prompt), *(ours.feed([20 + 10 * lane + n]) for n in range(8))]
        found = log_softmax(np.stack([step[lane] for step in together]))
        assert np.abs(found - np.stack(alone)).max() < LIMIT


@pytest.fixture(scope="module")
def early(packages: Path, write_package: Any) -> Path:
    """A tiny model whose regime changes after 16 tokens, with the long regime in the graph all the same."""
    config = tiny_config(original_max=16, max_positions=64)
    folder: Path = write_package(packages / "early", config, dict(tiny_tensors(config)))
    write_tiny_tokenizer(folder)
    save_graph(text_graph(folder, read_description(folder), config.decoder, 64), folder / "genai.onnx")
    return folder


@pytest.mark.parametrize("length", [15, 16, 17, 18])
def test_longest_row_chooses_the_rotary_factors_of_all(early: Path, length: int) -> None:
    genai, ours = Genai.open(early), Ours(early)
    prompts = [list(range(40, 46)), list(range(5, 5 + length)), list(range(30, 40))]
    genai.start(3, 40)
    found = log_softmax(genai.feed(prompts))
    regimes: tuple[Regime, Regime] = ("short", "long")
    right, wrong = regimes if length <= 16 else regimes[::-1]
    for lane, prompt in enumerate(prompts):
        ours.start(right)
        assert np.abs(found[lane] - ours.feed(prompt)).max() < LIMIT
    ours.start(wrong)
    assert np.abs(found[1] - ours.feed(prompts[1])).max() > 1e-3


def test_steps_after_a_cache_of_the_long_regime_stay_in_it(early: Path) -> None:
    genai, ours = Genai.open(early), Ours(early)
    genai.start(1, 40)
    ours.start("long")
    for ids in (list(range(5, 22)), [9], [10], [11]):
        assert np.abs(log_softmax(genai.feed([ids])[0]) - ours.feed(ids)).max() < LIMIT


@pytest.mark.parametrize("length", [4096, 4097])
def test_boundary_of_the_released_models_is_met(length: int, packages: Path, write_package: Any) -> None:
    folder = packages / "released"
    if not folder.exists():
        config = text_of(tiny_config())
        write_package(folder, config, dict(tiny_tensors(config)))
        write_tiny_tokenizer(folder, "mini")
        write_genai(folder)
    genai, ours = Genai.open(folder), Ours(folder)
    ids = [5 + (7 * n) % 240 for n in range(length)]
    genai.start(1, length)
    found = log_softmax(genai.feed([ids])[0])
    ours.slot = ours.runner.open(SequenceSpec((), "long" if length > 4096 else "short", length))
    most = ours.runner.info.max_step_tokens
    for start in range(0, length, most):
        expected = ours.feed(ids[start : start + most])
    assert np.abs(found - expected).max() < LIMIT


def test_weights_are_those_of_the_package_and_none_is_stored_again(whole: Path) -> None:
    graphs = [(whole / f"{name}.onnx").read_bytes() for name in ("genai", "decoder", "head")]
    files, *stored = [external_files(graph) for graph in graphs]
    assert set(files) == {"decoder.onnx.data", "head.onnx.data"}
    for file, end in files.items():
        assert end <= (whole / file).stat().st_size

    def places(graph: bytes) -> set[tuple[str, ...]]:
        tensors = ModelProto.FromString(graph).graph.initializer
        return {tuple(e.value for e in t.external_data) for t in tensors if t.external_data}

    assert places(graphs[0]) <= places(graphs[1]) | places(graphs[2])
    assert len(graphs[0]) < 100_000 and len(stored) == 2


def test_files_are_named_and_always_alike(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "again")
    before = set((tmp_path / "again").iterdir())
    names = write_genai(tmp_path / "again")
    assert names == ("genai.onnx", "genai_config.json", "tokenizer_config.json")
    assert set((tmp_path / "again").iterdir()) == before
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (whole / name).read_bytes()


def test_config_says_what_genai_asks(whole: Path, tiny: Phi4Config) -> None:
    raw = json.loads((whole / "genai_config.json").read_text())
    decoder = raw["model"]["decoder"]
    added = json.loads((whole / "tokenizer.json").read_text())["added_tokens"]
    tokens = {token["content"]: token["id"] for token in added}
    assert raw["model"]["eos_token_id"] == [tokens["<|end|>"], tokens["<|endoftext|>"]]
    assert raw["model"]["pad_token_id"] == raw["model"]["bos_token_id"] == tokens["<|endoftext|>"]
    assert (raw["model"]["type"], raw["model"]["vocab_size"]) == ("phi3", tiny.decoder.vocab_size)
    assert raw["model"]["context_length"] == raw["search"]["max_length"] == 512
    assert raw["search"]["past_present_share_buffer"] is True
    assert decoder["head_size"] == tiny.decoder.head_dim
    graph = ModelProto.FromString((whole / decoder["filename"]).read_bytes()).graph
    for side, values in (("inputs", graph.input), ("outputs", graph.output)):
        named = [name.replace("%d", "1") for name in decoder[side].values()]
        assert set(named) <= {value.name for value in values}


def test_long_regime_is_left_out_where_genai_would_not_change_to_it(early: Path, tmp_path: Path) -> None:
    shutil.copytree(early, tmp_path / "p")
    write_genai(tmp_path / "p")
    assert json.loads((tmp_path / "p" / "genai_config.json").read_text())["model"]["context_length"] == 16
    assert worst_step(tmp_path / "p", range(5, 12), steps=3) < LIMIT


def test_context_of_the_package_is_the_context_there(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "p")
    write_description(tmp_path / "p", replace(read_description(tmp_path / "p"), context=96))
    write_genai(tmp_path / "p")
    raw = json.loads((tmp_path / "p" / "genai_config.json").read_text())
    assert raw["model"]["context_length"] == raw["search"]["max_length"] == 96


def test_template_is_the_one_of_gguf_files(whole: Path) -> None:
    raw = json.loads((whole / "tokenizer_config.json").read_text())
    assert raw["chat_template"] == CHAT_TEMPLATE
    assert raw["tokenizer_class"] == "GPT2Tokenizer" and raw["add_bos_token"] is False
