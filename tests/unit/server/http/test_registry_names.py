"""Served names: an operator's, told apart, and never a path."""

from __future__ import annotations

import pytest

from phi4.errors import InvalidRequest
from phi4.server.http.errors import UnknownModel
from phi4.server.registry import ServedModel, ServedModels, adapter_option
from phi4.server.worker.values import ModelCard

CARD = ModelCard("nano", "onnx", "cpu", "int8", 4096, 1024)


def served(*names: str, adapters: tuple[tuple[str, str], ...] = ()) -> ServedModels:
    return ServedModels(names, adapters, lambda: CARD)


def test_model_has_its_own_name_unless_it_is_given_others() -> None:
    assert served().all() == (ServedModel("nano"),)
    assert [model.name for model in served("a", "org/b").all()] == ["a", "org/b"]
    with pytest.raises(UnknownModel):
        served("a").find("nano")


def test_adapter_is_one_more_name() -> None:
    models = served("base", adapters=(("legal", "d1"), ("medical", "d2")))
    assert models.find("medical") == ServedModel("medical", "medical", "base")
    assert models.find(None) == ServedModel("base")


@pytest.mark.parametrize("names", [("a", "a"), ("",), ("-a",), ("a b",), ("a" * 129,), ("a\n",), ("é",)])
def test_names_that_cannot_be_told_apart_or_written_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(InvalidRequest):
        served(*names)


def test_adapter_cannot_take_the_models_name() -> None:
    with pytest.raises(InvalidRequest, match="twice"):
        served("base", adapters=(("base", "d"),))


def test_option_of_an_adapter() -> None:
    assert adapter_option("legal=adapters/legal=v2") == ("legal", "adapters/legal=v2")
    for text in ("legal", "legal=", "=dir", "a/b=dir", "a b=dir", "x" * 65 + "=dir"):
        with pytest.raises(InvalidRequest):
            adapter_option(text)
