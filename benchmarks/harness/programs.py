"""Who is measured: our two profiles and the peers, each with its module and the file it opens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.environments import OURS

GB = 1e9
SMALL_BYTES = 1.5 * GB
"""What any program of the quick scale is taken to need."""


@dataclass(frozen=True)
class Program:
    """One program with one model.

    Attributes:
        name: Key.
        label: What reports call it.
        profile: "fast" (two forms of each weight) or "lean" (one) for ours, empty for a peer.
        environment: Where it is installed.
        module: `peers.<module>`.
        artefact: What it opens.
        needs_bytes: Memory it is taken to need at full size, with room to spare.
        options: More for `load`.
        media: Whether `load` wants to know the prompt with the picture.
        warms_up: Whether it has an operation that runs everything once.
    """

    name: str
    label: str
    environment: str
    module: str
    artefact: str
    needs_bytes: float
    profile: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    media: bool = False
    warms_up: bool = True

    def memory(self, scale: str) -> float:
        """Bytes to keep free for it."""
        return self.needs_bytes if scale == "full" else SMALL_BYTES


def _ours(name: str, profile: str, artefact: str, needs_gb: float, *modalities: str) -> Program:
    return Program(
        name,
        f"phi4 {profile}",
        OURS,
        "ours",
        artefact,
        needs_gb * GB,
        profile=profile,
        options={"modalities": ["text", *modalities]},
    )


_LISTED = (
    _ours("fast", "fast", "mini-fast", 7.0),
    _ours("lean", "lean", "mini-lean", 3.8),
    Program("llamacpp", "llama.cpp Q4_0", "llamacpp", "llamacpp", "mini-q4_0.gguf", 5.0 * GB),
    Program("transformers", "transformers bf16", "transformers", "transformers_text", "mini", 8.6 * GB),
    Program("openvino", "OpenVINO GenAI int4", "openvino", "openvino_int4", "mini-openvino", 6.5 * GB),
    Program("genai", "onnxruntime-genai int4", "genai", "ort_genai", "mini-genai", 7.0 * GB),
    _ours("fast-media", "fast", "multimodal-fast", 10.5, "vision", "speech"),
    Program(
        "transformers-media",
        "transformers bf16",
        "transformers",
        "transformers_media",
        "multimodal",
        14.0 * GB,
        media=True,
        warms_up=False,
    ),
    _ours("fast-speech", "fast", "multimodal-fast", 5.0, "speech"),
    Program(
        "torch-speech",
        "transformers bf16",
        "transformers",
        "torch_speech",
        "multimodal",
        4.0 * GB,
        media=True,
        warms_up=False,
    ),
)
PROGRAMS = {program.name: program for program in _LISTED}
PEERS = ("llamacpp", "transformers", "openvino", "genai")
"""Those that run the text model, in the order they are measured."""
