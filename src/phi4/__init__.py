"""Phi-4-mini and Phi-4-multimodal: text, pictures and recordings in, answers and tool calls out.

    import phi4
    model = phi4.load("nano")
    print(model.chat("What does it say?", images="sign.png").text)

Importing this package costs nothing; what it names is imported when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from phi4.version import __version__

if TYPE_CHECKING:
    from phi4 import errors
    from phi4.api import Phi4, load
    from phi4.engine.generator import TargetScores
    from phi4.engine.request import Request
    from phi4.processing.stitching import Transcript
    from phi4.types import Completion, Delta, SamplingParams

_PLACES = {
    "Completion": "phi4.types",
    "Delta": "phi4.types",
    "Phi4": "phi4.api",
    "Request": "phi4.engine.request",
    "SamplingParams": "phi4.types",
    "TargetScores": "phi4.engine.generator",
    "Transcript": "phi4.processing.stitching",
    "load": "phi4.api",
}

__all__ = [
    "Completion",
    "Delta",
    "Phi4",
    "Request",
    "SamplingParams",
    "TargetScores",
    "Transcript",
    "__version__",
    "errors",
    "load",
]


def __getattr__(name: str) -> Any:
    if name == "errors":
        return importlib.import_module("phi4.errors")
    if name not in _PLACES:
        raise AttributeError(f"module 'phi4' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
