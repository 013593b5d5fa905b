"""Graphs in fp32 against PyTorch, tiny and nano: every prompt and adapter, cached, batched, crossing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from phi4.checkpoint import LoadedAdapter, open_checkpoint, resolve_model, save_checkpoint
from phi4.checkpoint.inventory import adapter_shapes, expected_shapes
from phi4.configs import AdapterConfig, Phi4Config, tiny_multimodal
from phi4.engine.runner import Draw, MediaPiece, Piece, Row, Score, SequenceSpec, StepPlan, TextPiece
from phi4.model import Phi4Model, build_model, load_adapter, make_batch
from phi4.onnx import open_package
from phi4.onnx.building import ExportOptions, export_package
from phi4.onnx.serving.forward import Work
from phi4.onnx.serving.runner import OrtRunner
from phi4.onnx.serving.session import SessionChoice
from phi4.testing.tiny import write_tiny_tokenizer
from phi4.types import ModelInputs

LIMIT = 1e-4
MODELS = ("tiny", "nano")
"""Every parameter filled from its name, and the trained weights that ship with the package."""
MINE = AdapterConfig("mine", 3, 6.0)
TEXT = tuple(range(5, 25))
CASES: dict[str, tuple[tuple[int | str, ...], tuple[str, ...]]] = {
    "text": (TEXT, ()),
    "image": ((5, 6, "full", 7, 8), ()),
    "padded image": ((5, 6, "padded", 7, 8), ()),
    "multi-image": ((5, "padded", 6, 7, "full", "tall", 8), ()),
    "audio": ((5, 6, "second", 7, 8), ()),
    "audio of 40.8 s": ((5, 6, "long", 7, 8), ()),
    "audio of 80 s": ((5, 6, "two_windows", 7, 8), ()),
    "image and audio": ((5, 6, "full", 9, "second", 7, 8), ()),
    "text, vision adapter": (TEXT, ("vision",)),
    "text, speech adapter": (TEXT, ("speech",)),
    "text, user adapter": (TEXT, ("mine",)),
    "image, vision adapter": ((5, 6, "padded", 7, 8), ("vision",)),
    "audio, speech adapter": ((5, 6, "second", 7, 8), ("speech",)),
    "image and audio, vision adapter": ((5, 6, "full", 9, "second", 7, 8), ("vision",)),
    "image, user on vision adapter": ((5, 6, "full", 7, 8), ("vision", "mine")),
    "audio, user on speech adapter": ((5, 6, "second", 7, 8), ("speech", "mine")),
}


@dataclass(frozen=True)
class Sides:
    """The same weights behind both: a torch model and a runner of exported graphs; and media that fit."""

    name: str
    model: Phi4Model
    runner: OrtRunner
    media: Mapping[str, Any]


MakeSides = Callable[[Path, str, int, int], Sides]


@pytest.fixture(scope="module")
def make_sides(fill: Callable[[str, tuple[int, ...]], Any], media_for: Callable[[int], Any]) -> MakeSides:
    """Builds both sides of a model: `make_sides(folder, name, original_max, most)`."""

    def make(folder: Path, name: str, original_max: int, most: int) -> Sides:
        config, stored = tiny_multimodal(), None
        if name == "nano":
            stored = open_checkpoint(resolve_model("nano"))
            config = stored.config
        config = crossing_at(config, original_max, most)
        mine = adapter_shapes(config.decoder, MINE)
        shapes = expected_shapes(config) | mine

        def read(tensor: str) -> Any:
            return fill(tensor, shapes[tensor]) if stored is None or tensor in mine else stored.read(tensor)

        save_checkpoint(folder / "model", config, ((each, read(each)) for each in expected_shapes(config)))
        write_tiny_tokenizer(folder / "model")
        export_package(open_checkpoint(folder / "model"), folder / "onnx", ExportOptions("fp32"))
        own = LoadedAdapter(MINE, {each: read(each) for each in mine})
        runner = OrtRunner(open_package(folder / "onnx"), SessionChoice(threads=1), adapter=own)
        model = build_model(config, read, dtype=torch.float32)
        load_adapter(model, MINE, read)
        assert config.vision is not None
        return Sides(name, model, runner, media_for(config.vision.crop_size))

    return make


def crossing_at(config: Phi4Config, original_max: int, most: int) -> Phi4Config:
    """The config with other LongRoPE limits."""
    limits = {"original_max_position_embeddings": original_max, "max_position_embeddings": most}
    return replace(config, decoder=replace(config.decoder, **limits))


@pytest.fixture(scope="module", params=MODELS)
def sides(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, make_sides: MakeSides
) -> Sides:
    return make_sides(tmp_path_factory.mktemp("sides"), request.param, 4096, 131072)


def torch_logits(model: Phi4Model, row: ModelInputs, adapters: tuple[str, ...], long: bool = False) -> Any:
    with torch.no_grad():
        return model.logits(model(make_batch([row], ["long" if long else "short"], [adapters])))[0].numpy()


def pieces(runner: OrtRunner, row: ModelInputs) -> list[Piece]:
    """The prompt as pieces, media encoded."""
    found: list[Piece] = []
    at = 0
    projector = "vision" if row.images else "speech"
    for span in row.spans:
        if span.start > at:
            found.append(TextPiece(row.token_ids[at : span.start]))
        medium = (row.images if span.kind == "image" else row.audios)[span.index]
        found.append(MediaPiece(runner.encode(medium, projector), 0, span.length))
        at = span.start + span.length
    return [*found, TextPiece(row.token_ids[at:])] if at < len(row.token_ids) else found


def onnx_logits(
    runner: OrtRunner, row: ModelInputs, adapters: tuple[str, ...], long: bool = False, chunks: bool = False
) -> Any:
    """Logits `[T, V]` of every position; with `chunks` each piece is a step of its own, onto the cache."""
    spec = SequenceSpec(adapters, "long" if long else "short", len(row.token_ids))
    slot, parts = runner.open(spec), pieces(runner, row)
    hidden = []
    for step in [(part,) for part in parts] if chunks else [tuple(parts)]:
        count = sum(len(p.token_ids) if isinstance(p, TextPiece) else p.length for p in step)
        work = Work(Row(slot, step, Score(np.zeros(count, np.int64))), runner._lanes[slot])
        hidden += runner._forward.run([work], runner._features)
    runner.close(slot)
    for part in parts:
        if isinstance(part, MediaPiece):
            runner.release(part.handle)
    return runner._head.logits(np.concatenate(hidden))


@pytest.mark.parity
@pytest.mark.parametrize("chunks", [False, True], ids=["at once", "in chunks"])
@pytest.mark.parametrize("name", CASES)
def test_logits_of_graphs_equal_those_of_torch(
    name: str, chunks: bool, sides: Sides, prompt: Any, parity_table: Any
) -> None:
    items, adapters = CASES[name]
    row = prompt(*(sides.media.get(item, item) for item in items)).row
    expected = torch_logits(sides.model, row, adapters)
    found = onnx_logits(sides.runner, row, adapters, chunks=chunks)
    how = "in chunks" if chunks else "at once"
    parity_table.add(f"ONNX fp32, {sides.name}, {name}, {how}", float(np.abs(found - expected).max()), LIMIT)


@pytest.mark.parity
@pytest.mark.parametrize("length", [4095, 4096, 4097])
def test_logits_of_graphs_around_the_boundary_equal_those_of_torch(
    length: int, sides: Sides, prompt: Any, parity_table: Any
) -> None:
    """Within the limit and PyTorch's own rounding: nano's logits, up to 19, lie 1e-4 from float64 there."""
    row = prompt(*(5 + (7 * i) % 240 for i in range(length))).row
    long = length > 4096
    expected = torch_logits(sides.model, row, (), long)
    exact = torch_logits(deepcopy(sides.model).double(), row, (), long)
    own = float(np.abs(expected - exact).max())
    difference = float(np.abs(onnx_logits(sides.runner, row, (), long) - expected).max())
    case = f"ONNX fp32, {sides.name}, LongRoPE, {length} tokens"
    parity_table.add(case, difference, LIMIT + own, note=f"PyTorch is {own:.1e} from float64")


def greedy_steps(runner: OrtRunner, slots: Sequence[Any], tokens: Sequence[int]) -> list[Any]:
    """One decode step of several sequences; the log-probabilities `[V]` each gives, by token id."""
    vocab = runner.info.vocab_size
    rows = [
        Row(slot, (TextPiece(np.array([token])),), Draw(num_top=vocab))
        for slot, token in zip(slots, tokens, strict=True)
    ]
    found = []
    for result in runner.step(StepPlan(tuple(rows))).rows:
        by_id = np.empty(vocab, np.float32)
        by_id[result.top_ids[0]] = result.top_logprobs[0]
        found.append(by_id)
    return found


@pytest.mark.parity
def test_rows_decoded_together_in_both_regimes_equal_torch(
    sides: Sides, prompt: Any, parity_table: Any
) -> None:
    """Four sequences of different lengths, two of them with long factors, in one pass of the graph."""
    runner, worst = sides.runner, 0.0
    rows = [prompt(*(5 + (3 * i + n) % 240 for i in range(6 + 5 * n))).row for n in range(4)]
    regimes = ["short", "long", "short", "long"]
    slots = []
    for row, regime in zip(rows, regimes, strict=True):
        slots.append(runner.open(SequenceSpec((), regime, 64)))  # type: ignore[arg-type]
        runner.step(StepPlan((Row(slots[-1], (TextPiece(row.token_ids[:-1]),)),)))
    together = greedy_steps(runner, slots, [int(row.token_ids[-1]) for row in rows])
    for row, regime, found in zip(rows, regimes, together, strict=True):
        logits = torch.from_numpy(torch_logits(sides.model, row, (), regime == "long")[-1])
        worst = max(worst, float(np.abs(found - logits.log_softmax(-1).numpy()).max()))
    for slot in slots:
        runner.close(slot)
    parity_table.add(f"ONNX fp32, {sides.name}, four rows decoded together, both regimes", worst, LIMIT)


@pytest.fixture(scope="module", params=MODELS)
def early(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, make_sides: MakeSides
) -> Sides:
    return make_sides(tmp_path_factory.mktemp("early"), request.param, 16, 64)


@pytest.mark.parity
def test_steps_across_the_boundary_equal_torch(early: Sides, prompt: Any, parity_table: Any) -> None:
    """Ten tokens, then one at a time; past 16 positions the cache is made anew with long factors."""
    ids = [5 + (11 * i) % 240 for i in range(40)]
    worst, slot = 0.0, None
    for length in range(10, 40):
        long = length > 16
        if slot is None or length == 17:
            slot = early.runner.open(SequenceSpec((), "long" if long else "short", 64))
            early.runner.step(StepPlan((Row(slot, (TextPiece(np.array(ids[: length - 1])),)),)))
        (found,) = greedy_steps(early.runner, [slot], [ids[length - 1]])
        logits = torch.from_numpy(torch_logits(early.model, prompt(*ids[:length]).row, (), long)[-1])
        worst = max(worst, float(np.abs(found - logits.log_softmax(-1).numpy()).max()))
    parity_table.add(f"ONNX fp32, {early.name}, 30 steps across the boundary (16)", worst, LIMIT)
