"""Rules for every test: offline, seeded, no screen, no account.

Set before any test module is imported, since libraries read these variables at import.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
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
