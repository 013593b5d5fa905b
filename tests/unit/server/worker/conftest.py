"""Programs for children that do what no honest program of ours does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

HEAD = """
import os, threading, time
from phi4.server.worker.frames import *
from phi4.server.worker.inbox import Inbox, connect
from phi4.server.worker.values import *
CARD = ModelCard("stub", "scripted", "none", "float32", 512, 320)
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Writes a program (the body of its `main(descriptor)`) and gives its name."""
    before = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(tmp_path), before))))

    def write(body: str) -> str:
        name = f"stub_{len(list(tmp_path.iterdir()))}"
        lines = "\n".join("    " + line for line in body.strip().splitlines())
        (tmp_path / f"{name}.py").write_text(f"{HEAD}\ndef main(descriptor):\n{lines}\n")
        return name

    return write
