"""Prompts both sides are asked, and which differences between them count."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from interop_genai import Ours, batched
from interop_llamacpp import Answer, Prompt, arguments, first_difference, random_prompts, report

from phi4.checkpoint import open_checkpoint, resolve_model
from phi4.configs import tiny_multimodal
from phi4.onnx.building import ExportOptions, export_package
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.testing.tiny import write_tiny_checkpoint


def test_random_prompts_have_the_lengths_asked_for_and_no_control_token() -> None:
    tokenizer = Phi4Tokenizer.load(resolve_model("nano"))
    prompts = random_prompts((2, 4032), tokenizer)
    assert [len(prompt.ids) for prompt in prompts] == [2, 4032]
    assert prompts == random_prompts((2, 4032), tokenizer)
    found = set(prompts[1].ids)
    assert len(found) > 500 and not found & tokenizer.control_ids and max(found) < tokenizer.vocab_size


@pytest.mark.parametrize("lengths", ["0", "5,x", ""])
def test_impossible_lengths_are_refused(lengths: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments().parse_args(["nano.gguf", "--lengths", lengths])
    assert "--lengths" in capsys.readouterr().err
    assert arguments().parse_args(["nano.gguf", "--lengths", "5,7"]).lengths == (5, 7)


def test_difference_counts_unless_our_own_best_two_lie_within_the_margin() -> None:
    ours, theirs = Answer([4, 5, 6], [1.0, 0.00005, 1.0]), Answer([4, 9, 6], [1.0, 1.0, 1.0])
    assert first_difference(ours.tokens, theirs.tokens) == 1
    assert report("a", ours, ours, 1e-4) == "equal"
    assert report("b", ours, theirs, 1e-4) == "within the margin"
    assert report("c", ours, theirs, 1e-5) == "different"


@pytest.mark.parametrize(("precision", "together"), [("fp32", [1, 2]), ("int8", [])])
def test_short_prompts_of_float_weights_are_also_compared_in_a_batch(
    precision: Any, together: list[int], tmp_path: Path
) -> None:
    write_tiny_checkpoint(tmp_path / "m")
    package = export_package(open_checkpoint(tmp_path / "m"), tmp_path / "p", ExportOptions(precision))
    sides = Ours(cast(Any, None), tiny_multimodal().decoder, ())  # nothing is decoded
    prompts = [Prompt([5]), *(Prompt([5] * length, stops=False) for length in (2, 4032, 4033))]
    assert list(batched(package, sides, prompts, 64, stops=False)) == together
