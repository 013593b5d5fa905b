"""What is trainable: named parts of the model, and the phases of the released training recipe.

A stage lists parts ("decoder", "vision.projection", "lora.vision", ...) or phases
("vision-sft", ...), and `freeze` sets `requires_grad` accordingly. LoRA weights live inside the
decoder's names but are never part of "decoder". Training heads follow their encoder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import nn

from phi4.errors import TrainingError

PARTS: dict[str, str] = {
    "decoder": r"decoder\.(?!.*\.lora_[AB]\.).*",
    "vision.encoder": r"vision\.img_processor\..*|heads\.glyphs\..*",
    "vision.projection": r"vision\.(img_projection\..*|glb_GN|sub_GN)",
    "speech.encoder": r"speech\.encoder\..*|heads\.blank\..*",
    "speech.projection.speech": r"speech\.audio_projection\.speech\..*",
    "speech.projection.vision": r"speech\.audio_projection\.vision\..*",
    "lora.vision": r".*\.lora_[AB]\.vision\..*",
    "lora.speech": r".*\.lora_[AB]\.speech\..*",
    "all": r".*",
}
"""Part name to the pattern its parameters' canonical names match in full."""

PHASES: dict[str, tuple[str, ...]] = {
    "language": ("decoder",),
    "vision-alignment": ("vision.projection",),
    "vision-pretraining": ("vision.projection", "vision.encoder"),
    "vision-sft": ("lora.vision", "vision.encoder", "vision.projection"),
    "vision-multiframe": ("lora.vision", "vision.projection"),
    "speech-pretraining": ("speech.encoder", "speech.projection.speech"),
    "speech-posttraining": ("lora.speech", "speech.projection.speech"),
    "vision-speech": ("lora.vision", "vision.encoder", "vision.projection"),
}
"""Phases of the released recipe. Source: Phi-4-Mini technical report, section on post-training.

The report freezes the audio projectors in "vision-speech"; where the second one was trained is
not published, so a recipe that needs it adds "speech.projection.vision"."""


def trainable_names(names: Iterable[str], wanted: Iterable[str]) -> list[str]:
    """Parameter names (canonical, without wrapper prefix) that the parts or phases in `wanted` cover.

    Raises:
        TrainingError: Unknown part, or a part the model does not have.
    """
    names = list(names)
    chosen: set[str] = set()
    for part in [part for entry in wanted for part in PHASES.get(entry, (entry,))]:
        if part not in PARTS:
            known = ", ".join([*PARTS, *PHASES])
            raise TrainingError(f"unknown part or phase {part!r} in trainable; known: {known}")
        covered = [name for name in names if re.fullmatch(PARTS[part], name)]
        if not covered:
            raise TrainingError(f"the model has no parameters of part {part!r}, so it cannot be trained")
        chosen.update(covered)
    return [name for name in names if name in chosen]


def freeze(module: nn.Module, trainable: Iterable[str]) -> None:
    """Require gradients for exactly the named parameters."""
    kept = set(trainable)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in kept)
