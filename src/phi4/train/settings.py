"""What a training run is, as data: frozen dataclasses that go to JSON and back without loss.

A `Recipe` is a model name, an optimiser, a guard and a list of `Stage`s; a stage names its tasks
with weights, what is trainable and the shape of its learning rate. Nothing here imports torch, so
worker processes, the command line and tests read recipes for free.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal

from phi4.errors import TrainingError

Objective = Literal["pretrain", "sft", "ctc", "glyphs"]
Precision = Literal["fp32", "bf16"]
Decay = Literal["none", "linear", "cosine"]


@dataclass(frozen=True)
class TaskShare:
    """One task of a stage.

    Attributes:
        task: Name the data source knows.
        weight: Relative number of micro-batches; any positive number.
        objective: Which loss its batches get.
        ctc_weight: Weight of the auxiliary CTC loss beside `sft`; 0 = none.
        glyph_weight: Weight of the auxiliary character loss of the vision tower beside `sft`; 0 = none.
        rows: Rows of a micro-batch of this task; 0 = the recipe's `micro_batch`.
        difficulty: 0 to 1, passed to the data source; evaluation is at 1.
        replay: Whether the recipe's replay holds for it; False where samples cost little, since a small model
            learns its few samples by heart instead of what they have in common.
    """

    task: str
    weight: float = 1.0
    objective: Objective = "sft"
    ctc_weight: float = 0.0
    glyph_weight: float = 0.0
    rows: int = 0
    difficulty: float = 1.0
    replay: bool = True


@dataclass(frozen=True)
class Stage:
    """One phase of training.

    Attributes:
        name: Shown in logs.
        tasks: The mix; the task of a micro-batch is a pure function of (seed, position).
        share: Part of the whole run's steps or minutes.
        trainable: Parts or phases, see `phases.trainable_names`; ("all",) = everything.
        warmup_steps: Steps of linear warm-up of the learning rate.
        decay: Shape of the decay at the end.
        decay_fraction: Last part of the stage over which the rate falls to `final_lr`.
        final_lr: Learning rate at the end as a fraction of the peak.
        lr_scale: Factor on every learning rate of the recipe during this stage.
        accumulate: Micro-batches per optimiser step, each of a task of its own; at least 1.
    """

    name: str
    tasks: tuple[TaskShare, ...]
    share: float = 1.0
    trainable: tuple[str, ...] = ("all",)
    warmup_steps: int = 20
    decay: Decay = "linear"
    decay_fraction: float = 0.4
    final_lr: float = 0.02
    lr_scale: float = 1.0
    accumulate: int = 1


@dataclass(frozen=True)
class OptimSettings:
    """Optimiser numbers. Defaults follow the probe in which Muon 0.01 with AdamW 0.003 won.

    Attributes:
        lr: AdamW's peak rate (embeddings, norms, biases, convolutions, heads).
        muon_lr: Muon's peak rate (matrices); 0 gives every parameter to AdamW.
        lora_lr: AdamW's peak rate of LoRA factors.
        betas: AdamW's averages; 0.95 as second value because batches differ by task.
        eps: AdamW's denominator floor.
        weight_decay: Decoupled decay of matrices, multiplied by the rate; vectors get none.
        momentum: Muon's momentum.
        clip_norm: Gradients are scaled down to this global norm; 0 = never.
    """

    lr: float = 3e-3
    muon_lr: float = 1e-2
    lora_lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.01
    momentum: float = 0.95
    clip_norm: float = 1.0


@dataclass(frozen=True)
class GuardSettings:
    """When a step is thrown away instead of applied, see `guard.Guard`.

    Attributes:
        window: Good steps remembered per task.
        warmup: Good steps before the z-score rule is active.
        z_limit: Standard deviations above the mean that make a spike.
        ratio_limit: A spike must also exceed the mean this many times, so quiet windows do not cry wolf.
        early_ratio: Before `warmup`, a step this many times above the largest good one is a spike.
        norm_limit: Gradient norm that is never applied, whatever the history.
        max_consecutive: Thrown-away steps in a row after which the run stops with an error.
    """

    window: int = 128
    warmup: int = 64
    z_limit: float = 6.0
    ratio_limit: float = 4.0
    early_ratio: float = 20.0
    norm_limit: float = 1e3
    max_consecutive: int = 50


@dataclass(frozen=True)
class Recipe:
    """A whole run.

    Attributes:
        name: Recipe name; also the name of the exported model.
        model: Preset of `phi4.configs`.
        stages: Run in order.
        seed: Root of every random choice.
        micro_batch: Rows of one forward pass.
        replay: How often each generated batch is seen; 1 = always fresh data.
        replay_delay: Fresh batches between two uses of one batch.
        precision: "bf16" = fp32 weights under bf16 autocast.
        attention: Attention path of the model; "" = the model's own default.
        steps: Optimiser steps of the whole run when no budget is given.
        log_every: Steps between two log lines; the only moments the device is waited for.
        save_every_s: Seconds between checkpoints.
        keep: Checkpoints kept.
        shard_bytes: Largest weight file of the exported model.
        optim: Numbers of the optimiser.
        guard: When a step is thrown away.

    Raises:
        TrainingError: A count below 1, no stage, a stage without tasks, or a weight that is not positive.
    """

    name: str
    model: str
    stages: tuple[Stage, ...]
    seed: int = 1
    micro_batch: int = 32
    replay: int = 1
    replay_delay: int = 64
    precision: Precision = "bf16"
    attention: str = ""
    steps: int = 1000
    log_every: int = 20
    save_every_s: float = 120.0
    keep: int = 3
    shard_bytes: int = 5_000_000_000
    optim: OptimSettings = field(default_factory=OptimSettings)
    guard: GuardSettings = field(default_factory=GuardSettings)

    def __post_init__(self) -> None:
        for name in ("micro_batch", "replay", "replay_delay", "steps", "log_every", "keep"):
            if getattr(self, name) < 1:
                raise TrainingError(
                    f"recipe {self.name!r}: {name} is {getattr(self, name)}, must be at least 1"
                )
        if not self.stages or any(not stage.tasks for stage in self.stages):
            raise TrainingError(f"recipe {self.name!r} needs at least one stage, each with at least one task")
        if any(stage.accumulate < 1 for stage in self.stages):
            raise TrainingError(f"recipe {self.name!r}: accumulate of a stage must be at least 1")
        if any(task.weight <= 0 for stage in self.stages for task in stage.tasks):
            raise TrainingError(f"recipe {self.name!r}: task weights must be positive")

    def to_json(self) -> dict[str, Any]:
        """Plain values only; `Recipe.from_json` gives an equal recipe back."""
        return json.loads(json.dumps(dataclasses.asdict(self)))  # type: ignore[no-any-return]

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Recipe:
        """Rebuild a recipe written by `to_json`."""
        rest = dict(values)
        stages = tuple(
            Stage(
                **{
                    **s,
                    "tasks": tuple(TaskShare(**t) for t in s["tasks"]),
                    "trainable": tuple(s["trainable"]),
                }
            )
            for s in rest.pop("stages")
        )
        optim = rest.pop("optim")
        optim = OptimSettings(**{**optim, "betas": tuple(optim["betas"])})
        guard = GuardSettings(**rest.pop("guard"))
        return cls(**rest, stages=stages, optim=optim, guard=guard)

    def digest(self) -> str:
        """Identity of every setting that decides the numbers; a resumed run must have the same."""
        passive = {"log_every", "save_every_s", "keep", "steps", "shard_bytes"}
        values = {key: value for key, value in self.to_json().items() if key not in passive}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
