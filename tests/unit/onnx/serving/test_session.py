"""Providers by name, and the runtime's errors as ours."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from phi4.errors import InvalidArtifact, InvalidRequest, OutOfMemory
from phi4.onnx.build.network.graph import GraphWriter, save_graph
from phi4.onnx.build.weights import WeightSink
from phi4.onnx.serving.binding import BoundSession
from phi4.onnx.serving.session import CPU, SessionChoice, choose_session, open_session, runtime_errors
from phi4.together import at_once

ONE = SessionChoice(threads=1)


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """`y = x W`, [n, 4] to [n, 512], W all ones; and `big`, zeros of any size."""
    path = tmp_path / "graph.onnx"
    with WeightSink(tmp_path / "graph.onnx.data") as sink:
        g = GraphWriter("graph", sink)
        x = g.input("x", np.float32, ("n", 4))
        shape = g.input("shape", np.int64, (1,))
        y = g.op("MatMul", x, g.weight("w", np.ones((4, 512), np.float32)))
        g.output("y", y, np.float32, ("n", 512))
        g.output("big", g.op("ConstantOfShape", shape), np.float32, ("m",))
        model = g.model()
    save_graph(model, path)
    return path


def test_cpu_is_the_default_and_may_be_named() -> None:
    assert choose_session(threads=1) == choose_session("cpu", 1) == SessionChoice(CPU, 1)
    assert choose_session("CPU", 1).device == "cpu"


def test_a_graph_with_small_weights_that_computes_token_after_token_gets_one_thread() -> None:
    choice = SessionChoice(threads=4)
    assert choice.step_by_step(7 * 2**20).threads == 1
    assert choice.step_by_step(2**31) == choice


def test_absent_provider_is_refused_with_those_that_are_there() -> None:
    says = r"provider 'abacus': the installed ONNX Runtime \S+ has cpu.*; choose one of them; other builds"
    with pytest.raises(InvalidRequest, match=says):
        choose_session("abacus")


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("openvino", "openvino"),
        ("OpenVINOExecutionProvider", "openvino"),
        ("CUDA", "gpu"),
        ("directml", "directml"),
    ],
)
def test_absent_provider_is_named_with_the_package_that_brings_it(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    with pytest.raises(InvalidRequest, match=f"provider {name!r}: .*then pip install onnxruntime-{package}$"):
        choose_session(name)


def test_provider_that_computes_elsewhere_is_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["AzureExecutionProvider", CPU])
    with pytest.raises(InvalidRequest, match="azure"):
        choose_session("azure")


def test_provider_that_does_not_start_is_no_silent_fallback(graph: Path) -> None:
    absent = SessionChoice("AbacusExecutionProvider", 1)
    with (
        pytest.warns(UserWarning, match="AbacusExecutionProvider"),
        pytest.raises(InvalidRequest, match=r"provider 'abacus'.*cannot start.*use the provider cpu"),
    ):
        open_session(graph, absent)


def test_other_installed_providers_go_by_their_short_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["OpenVINOExecutionProvider", CPU])
    chosen = choose_session("openvino", 1)
    assert (chosen.provider, chosen.device) == ("OpenVINOExecutionProvider", "openvino")
    assert choose_session("OpenVINOExecutionProvider", 1) == chosen


def test_openvino_is_opened_with_our_threads_and_the_cpu_for_what_it_lacks(
    graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {"levels": []}

    class Session:
        def __init__(self, path: str, options: Any, providers: list[Any]) -> None:
            given.update(path=path, threads=options.intra_op_num_threads, providers=providers)

        def get_providers(self) -> list[str]:
            return ["OpenVINOExecutionProvider", CPU]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(onnxruntime, "set_default_logger_severity", given["levels"].append)
    open_session(graph, SessionChoice("OpenVINOExecutionProvider", 3))
    own = {"device_type": "CPU", "num_of_threads": "3"}
    assert given["providers"] == [("OpenVINOExecutionProvider", own), CPU]
    assert (given["path"], given["threads"]) == (str(graph), 3)
    assert given["levels"] == [4, 2], "quiet while it opens, then as ONNX Runtime is by itself"


def test_sessions_of_openvino_open_one_after_the_other_since_the_logger_is_the_processs(
    graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = threading.Barrier(2)

    class Session:
        def __init__(self, path: str, options: Any, providers: list[Any]) -> None:
            with pytest.raises(threading.BrokenBarrierError):
                together.wait(timeout=0.5)

        def get_providers(self) -> list[str]:
            return ["OpenVINOExecutionProvider"]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    choice = SessionChoice("OpenVINOExecutionProvider", 1)
    at_once(lambda: open_session(graph, choice), lambda: open_session(graph, choice))


def test_threads_and_provider_reach_the_session(graph: Path) -> None:
    session = open_session(graph, SessionChoice(threads=3))
    assert session.get_session_options().intra_op_num_threads == 3
    assert session.get_providers() == [CPU]


def test_bound_memory_is_read_and_written_at_every_run(graph: Path) -> None:
    bound = BoundSession(graph, ONE)
    x, y = np.ones((2, 4), np.float32), np.zeros((2, 512), np.float32)
    bound.put("x", x)
    bound.put("shape", np.ones(1, np.int64))
    bound.take("y", y)
    bound.take("big", np.zeros(1, np.float32))
    bound.run()
    assert (y == 4).all()
    x[1] = 2
    bound.run()
    assert (y[0] == 4).all() and (y[1] == 8).all()


def bound_for(graph: Path, x: tuple[int, ...] = (1, 4), big: int = 1) -> BoundSession:
    bound = BoundSession(graph, ONE)
    bound.put("x", np.ones(x, np.float32))
    bound.put("shape", np.array([big]))
    bound.take("y", np.zeros((1, 512), np.float32))
    bound.take("big", np.zeros(1, np.float32))
    return bound


def test_allocation_that_fails_in_the_runtime_is_our_error(graph: Path) -> None:
    session = open_session(graph, ONE)
    feed = {"x": np.ones((1, 4), np.float32), "shape": np.array([1 << 50])}
    with (
        pytest.raises(OutOfMemory, match=r"^a step: ran out of memory .*; run fewer"),
        runtime_errors("a step"),
    ):
        session.run(None, feed)


def test_words_of_an_allocator_are_our_error_in_a_bound_run_too() -> None:
    words = "Error in execution: Non-zero status code returned: std::bad_alloc"
    with pytest.raises(OutOfMemory, match="bad_alloc"), runtime_errors("a step"):
        raise RuntimeError(words)


def test_allocation_that_fails_in_numpy_is_our_error() -> None:
    with pytest.raises(OutOfMemory, match="a step"), runtime_errors("a step"):
        np.zeros(1 << 60, np.float32)


@pytest.mark.parametrize(("x", "big"), [((1, 5), 1), ((2, 4), 1), ((1, 4), 3)])
def test_sizes_a_graph_cannot_take_are_our_error(graph: Path, x: tuple[int, ...], big: int) -> None:
    bound_for(graph).run()
    with pytest.raises(InvalidArtifact, match=r"graph\.onnx: ONNX Runtime .* cannot run"):
        bound_for(graph, x, big).run()


def test_bytes_that_are_no_graph_are_our_error(tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    path.write_bytes(b"no protobuf at all")
    with pytest.raises(InvalidArtifact, match=r"graph\.onnx.*export the model again"):
        open_session(path, ONE)


@pytest.mark.parametrize("error", [KeyError("x"), RuntimeError("of our own"), InvalidRequest("no")])
def test_other_errors_pass_unchanged(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, runtime_errors("a step"):
        raise error
    assert raised.value is error


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"x": (None, 4)}, "has an unknown input or output 'shape'"),
        ({"x": (None, 4), "shape": (1,), "z": ()}, "lacks input or output 'z'"),
        ({"x": (None, 5), "shape": (1,)}, r"x has the shape \[n, 4\], but config.json implies \[\?, 5\]"),
        ({"x": (4,), "shape": (1,)}, r"implies \[4\]"),
    ],
)
def test_graph_with_other_inputs_than_its_package_implies_is_refused(
    graph: Path, inputs: dict[str, tuple[int | None, ...]], words: str
) -> None:
    bound = BoundSession(graph, ONE)
    outputs: dict[str, tuple[int | None, ...]] = {"y": (None, 512), "big": (None,)}
    bound.check({"x": (None, 4), "shape": (1,)}, outputs)
    with pytest.raises(InvalidArtifact, match=words):
        bound.check(inputs, outputs)
    with pytest.raises(InvalidArtifact, match="'logits'"):
        bound.check({"x": (None, 4), "shape": (1,)}, {**outputs, "logits": ()})
