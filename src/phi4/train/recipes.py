"""Recipes: functions that return a `Recipe`. `smoke` checks the trainer, `nano` makes phi4-nano."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from phi4.train.settings import Objective, OptimSettings, Recipe, Stage, TaskShare


def smoke(device: str = "cpu") -> Recipe:
    """A tiny decoder that learns to count, in seconds: proves that training, saving and resuming work."""
    stage = Stage("count", (TaskShare("up", 2.0), TaskShare("again", 1.0, "pretrain")), warmup_steps=5)
    return Recipe(
        name="smoke",
        model="counting",
        stages=(stage,),
        micro_batch=8,
        precision="fp32",
        steps=60,
        log_every=5,
        save_every_s=0.05,
    )


def _cheap(task: str, weight: float, rows: int, difficulty: float = 1.0) -> TaskShare:
    """A task of text alone: small batches, so that steps are many, and every sample new."""
    objective: Objective = "pretrain" if task == "text" else "sft"
    return TaskShare(task, weight, objective, rows=rows, difficulty=difficulty, replay=False)


def _copy() -> Stage:
    """Saying again and looking up, in lists and pairs: what reading, calling and carrying are made of."""
    return Stage(
        "copy", (_cheap("text", 1.0, 8, 0.0),), share=0.06, warmup_steps=50, decay="none", lr_scale=0.6
    )


def _text() -> Stage:
    """The decoder alone, on all it will be asked in text; media are aligned to what it learns here."""
    tasks = (
        _cheap("text", 2.0, 8, 0.6),
        _cheap("table_qa", 2.0, 16),
        _cheap("number_qa", 1.0, 32),
        _cheap("sums", 1.2, 16),
        _cheap("command", 1.5, 16),
        _cheap("chat", 0.3, 16),
    )
    return Stage("text", tasks, share=0.16, decay="none", lr_scale=0.6)


def _encoders() -> Stage:
    """Encoders learn from losses of their own, several times cheaper than through the decoder."""
    tasks = (
        TaskShare("speech_transcribe", 5.0, "ctc", difficulty=0.7),
        TaskShare("page", 3.0, "glyphs", difficulty=0.7),
        TaskShare("read_text", 1.8, "glyphs", difficulty=0.7),
        TaskShare("chart_qa", 0.8, "glyphs"),
        _cheap("text", 0.5, 16, 0.6),
        _cheap("table_qa", 0.8, 32),
        _cheap("number_qa", 0.3, 32),
        _cheap("sums", 0.3, 32),
        _cheap("command", 0.5, 32),
    )
    return Stage("encoders", tasks, share=0.36, decay_fraction=0.4, final_lr=0.05)


def _joint() -> Stage:
    """Every task; the media of a row decide its adapter and projector, all parts are trained.

    A step mixes two tasks at half the rate: alternating whole steps of one task each at the full rate undid
    what the stages before had learnt.
    """
    tasks = (
        TaskShare("speech_transcribe", 3.5, rows=32, ctc_weight=1.0),
        TaskShare("speech_qa", 1.0, rows=32, ctc_weight=1.0),
        TaskShare("spoken_command", 0.9, rows=32, ctc_weight=1.0),
        TaskShare("read_text", 4.0, rows=32, glyph_weight=1.0),
        TaskShare("page", 0.8, "glyphs", rows=32),
        TaskShare("chart_qa", 1.7, rows=32, glyph_weight=1.0),
        TaskShare("spoken_chart_qa", 2.3, rows=32, ctc_weight=1.0, glyph_weight=1.0),
        _cheap("table_qa", 0.6, 32),
        _cheap("number_qa", 0.3, 32),
        _cheap("command", 0.8, 32),
        _cheap("sums", 0.7, 32),
        _cheap("chat", 0.3, 32),
        _cheap("text", 0.4, 16, 0.6),
    )
    return Stage("joint", tasks, share=0.42, decay_fraction=0.7, lr_scale=0.5, accumulate=2)


def nano(device: str = "cpu") -> Recipe:
    """phi4-nano: copying, text, encoders aligned to it, then all tasks together.

    Args:
        device: "cuda" takes larger batches and shows each generated sample once more than "cpu" does,
            because there the generators, not the network, set the pace.
    """
    gpu = device.startswith("cuda")
    stages = (_copy(), _text(), _encoders(), _joint())
    return Recipe(
        name="nano",
        model="nano",
        stages=tuple(replace(stage, accumulate=4 * stage.accumulate) for stage in stages) if gpu else stages,
        micro_batch=64,
        replay=4 if gpu else 3,
        attention="" if gpu else "eager",
        steps=12_000 if gpu else 6_000,
        optim=OptimSettings(lr=3e-3, muon_lr=1e-2, lora_lr=1e-3),
    )


RECIPES: dict[str, Callable[[str], Recipe]] = {"nano": nano, "smoke": smoke}
"""Recipe functions by name; each takes the device it will run on."""
