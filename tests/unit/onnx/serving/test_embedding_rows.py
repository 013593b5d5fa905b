"""Embedding rows are those of the head, in every form a head is stored in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phi4.configs import Phi4Config
from phi4.onnx import OnnxPackage, open_package
from phi4.onnx.build.network.linear import Precision
from phi4.onnx.serving.embedding import Embedding
from phi4.onnx.serving.graphs import HeadGraph
from phi4.onnx.serving.session import SessionChoice
from phi4.shapes import FloatArray
from phi4.testing.tiny import tiny_tensors

IDS = np.array([7, 0, 319, 7, 200])
FORMS = {
    "fp32": Precision("fp32"),
    "fp16": Precision("fp16"),
    "int8": Precision("int8", 32),
    "int4": Precision("int4", 16),
    "padded": Precision("int8", 128),
}
ERRORS = {"fp32": 0.0, "fp16": 1e-3, "int8": 0.02, "int4": 0.25, "padded": 0.02}
"""Largest difference from the table, whose values are near 0.3."""


@pytest.fixture(scope="module")
def text(tiny: Phi4Config) -> Phi4Config:
    return replace(tiny, vision=None, speech=None, adapters=()).with_layout("mini")


@pytest.fixture(scope="module")
def table(text: Phi4Config) -> FloatArray:
    return dict(tiny_tensors(text))["decoder.embed_tokens.weight"]


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def package(form: str, text: Phi4Config, tmp_path: Path, write_package: Any) -> OnnxPackage:
    return open_package(write_package(tmp_path / "p", text, dict(tiny_tensors(text)), head=FORMS[form]))


def test_rows_are_those_of_the_table(package: OnnxPackage, form: str, table: FloatArray) -> None:
    rows = Embedding(package).rows(IDS)
    assert rows.dtype == np.float32
    error = np.abs(rows - table[IDS]).max()
    assert error <= ERRORS[form]
    assert form == "fp32" or error > 0
    np.testing.assert_array_equal(rows[0], rows[3])


def test_rows_and_the_matrix_of_the_head_are_one(package: OnnxPackage, text: Phi4Config) -> None:
    width = text.decoder.hidden_size
    head = HeadGraph(package, SessionChoice(threads=1))
    every = Embedding(package).rows(np.arange(text.decoder.vocab_size))  # [V, D]
    unit = np.eye(width, dtype=np.float32)
    # A quantised head also rounds the activations it is given, to one part in 127.
    np.testing.assert_allclose(head.logits(unit), every.T, atol=0.02 * np.abs(every).max(), rtol=0)


def test_ids_outside_the_vocabulary_are_a_programming_mistake(package: OnnxPackage) -> None:
    with pytest.raises(IndexError):
        Embedding(package).rows(np.array([320]))
    with pytest.raises(AssertionError):
        Embedding(package).rows(np.array([-1]))
