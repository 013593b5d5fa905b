"""Recipes: functions that return a `Recipe`. `smoke` checks the trainer, `nano` makes phi4-nano."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from phi4.train.settings import OptimSettings, Recipe, Stage, TaskShare


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


def _text() -> Stage:
    """The decoder alone: copying, counting, calling, carrying; media are aligned to what it learns here."""
    tasks = (
        TaskShare("text", 2.0, "pretrain", rows=32),
        TaskShare("table_qa", 2.5, rows=32),
        TaskShare("number_qa", 1.0),
        TaskShare("sums", 1.2),
        TaskShare("command", 1.2, rows=32),
        TaskShare("chat", 0.3),
    )
    return Stage("text", tasks, share=0.2, warmup_steps=100, decay="none")


def _encoders() -> Stage:
    """Encoders learn from losses of their own, several times cheaper than through the decoder."""
    tasks = (
        TaskShare("speech_transcribe", 5.0, "ctc", difficulty=0.7),
        TaskShare("page", 3.0, "glyphs", difficulty=0.7),
        TaskShare("read_text", 1.8, "glyphs", difficulty=0.7),
        TaskShare("chart_qa", 0.8, "glyphs"),
        TaskShare("text", 0.5, "pretrain", rows=32),
        TaskShare("table_qa", 1.0, rows=32),
        TaskShare("number_qa", 0.4),
        TaskShare("sums", 0.3),
        TaskShare("command", 0.5, rows=32),
    )
    return Stage("encoders", tasks, share=0.37, decay_fraction=0.4, final_lr=0.05)


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
        TaskShare("table_qa", 0.6, rows=32),
        TaskShare("number_qa", 0.3, rows=32),
        TaskShare("command", 0.8, rows=32),
        TaskShare("sums", 0.7, rows=32),
        TaskShare("chat", 0.3, rows=32),
        TaskShare("text", 0.4, "pretrain", rows=16),
    )
    return Stage("joint", tasks, share=0.43, decay_fraction=0.7, lr_scale=0.5, accumulate=2)


def nano(device: str = "cpu") -> Recipe:
    """phi4-nano: text, then encoders aligned to it, then all tasks together.

    Args:
        device: "cuda" takes larger batches and shows each generated sample once more than "cpu" does,
            because there the generators, not the network, set the pace.
    """
    gpu = device.startswith("cuda")
    stages = (_text(), _encoders(), _joint())
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
