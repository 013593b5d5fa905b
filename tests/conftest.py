"""Rules for every test: offline, seeded, no screen, no account.

Set before any test module is imported, since libraries read these variables at import.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest

os.environ.update(
    HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", MPLBACKEND="Agg", TOKENIZERS_PARALLELISM="false"
)
for _name in ("HF_TOKEN", "FORCE_COLOR", "CLICOLOR_FORCE"):
    os.environ.pop(_name, None)

# A shell starts background jobs with Ctrl-C ignored, and programs under test would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Derandomised: a red run is red for everybody. No deadline: machines of very different speed run this.
hypothesis.settings.register_profile("phi4", derandomize=True, deadline=None, print_blob=True)
hypothesis.settings.load_profile("phi4")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def _no_network() -> Iterator[None]:
    """Connections leave this machine in no test; loopback is allowed."""
    patch = pytest.MonkeyPatch()
    real = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> None:
        local = self.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "::1", "localhost")
        if not local:
            raise AssertionError(f"a test tried to reach {address}: tests are offline")
        real(self, address)

    patch.setattr(socket.socket, "connect", connect)
    yield
    patch.undo()


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The user's cache is neither read nor written: graphs prepared there are none of ours."""
    patch = pytest.MonkeyPatch()
    patch.setenv("PHI4_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture
def voice_model(tmp_path: Path) -> Callable[..., Path]:
    """Writes a graph in the interface of Silero VAD: `voice_model("energy")`.

    Its probability is the energy of the 512 new samples against that of a quiet room ("energy"), their mean
    height ("height"), that of the 64 samples before ("context"), a thousandth of the windows heard before
    ("count"), or minus one ("broken"); at another rate than 16 kHz it is 0. Other names of inputs, numbers of
    samples and numbers of probabilities make it a model of another kind.
    """
    from phi4.onnx.build.network.graph import GraphWriter, save_graph
    from phi4.onnx.build.weights import WeightSink

    def write(
        shows: str,
        names: tuple[str, str, str] = ("input", "state", "sr"),
        num_samples: int | str = "S",
        num_probabilities: int = 1,
    ) -> Path:
        path = tmp_path / f"{shows}.onnx"
        with WeightSink(tmp_path / f"{shows}.data") as sink:
            g = GraphWriter("voice", sink)
            heard = g.input(names[0], np.float32, ("B", num_samples))
            state = g.input(names[1], np.float32, (2, "B", 128))
            rate = g.input(names[2], np.int64, ())

            def piece(of: Any, axis: int, start: int, stop: int) -> Any:
                return g.op("Slice", of, *(g.constant([at], np.int64) for at in (start, stop, axis)))

            def mean(of: Any) -> Any:
                return g.op("ReduceMean", of, g.constant([1], np.int64))

            new = piece(heard, 1, 64, 576)
            if shows == "energy":
                power = mean(g.op("Mul", new, new))
                chance = g.op("Div", power, g.op("Add", power, g.constant(1e-4, np.float32)))
            elif shows == "count":
                counted = g.op("Squeeze", piece(piece(state, 0, 0, 1), 2, 5, 6), g.constant([0], np.int64))
                chance = g.op("Mul", counted, g.constant(1e-3, np.float32))
            elif shows == "broken":
                chance = g.op("Sub", mean(g.op("Sub", new, new)), g.constant(1.0, np.float32))
            else:
                chance = mean(g.op("Abs", piece(heard, 1, 0, 64) if shows == "context" else new))
            right = g.op("Equal", rate, g.constant(16000, np.int64))
            chance = g.op("Mul", chance, g.op("Cast", right, attributes={"to": 1}))
            chances = g.op("Concat", *[chance] * num_probabilities, attributes={"axis": 1})
            g.output("output", chances, np.float32, ("B", num_probabilities))
            after = g.op("Add", state, g.constant(1.0, np.float32))
            g.output("stateN", after, np.float32, (2, "B", 128))
            model = g.model()
        save_graph(model, path)
        return path

    return write
