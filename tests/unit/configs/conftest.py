"""Config files of the three layouts, as parsed objects a test may change."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def released(repository: Path) -> Callable[[str], dict[str, Any]]:
    """Fresh object of a config: "phi4-mini", "phi4-multimodal" or "tiny-hf"."""

    def load(name: str) -> dict[str, Any]:
        return json.loads((repository / "tests/data/configs" / f"{name}.json").read_text())

    return load
