"""Recipes: functions that return a `Recipe`. `smoke` checks the trainer, `nano` makes phi4-nano."""

from __future__ import annotations

from collections.abc import Callable

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
        TaskShare("sums", 1.5),
        TaskShare("command", 1.5),
        TaskShare("chat", 0.4),
    )
    return Stage("text", tasks, share=0.12, warmup_steps=100, decay="none")


def _encoders() -> Stage:
    """Encoders learn from losses of their own, several times cheaper than through the decoder."""
    tasks = (
        TaskShare("speech_transcribe", 5.0, "ctc", difficulty=0.7),
        TaskShare("page", 3.5, "glyphs", difficulty=0.7),
        TaskShare("read_text", 1.0, "glyphs", difficulty=0.7),
        TaskShare("chart_qa", 1.0, "glyphs"),
        TaskShare("text", 0.7, "pretrain", rows=32),
        TaskShare("sums", 0.5),
        TaskShare("command", 0.6),
    )
    return Stage("encoders", tasks, share=0.34, warmup_steps=20, decay="none")


def _joint() -> Stage:
    """Every task; the media of a row decide its adapter and projector, all parts are trained."""
    tasks = (
        TaskShare("speech_transcribe", 3.5, ctc_weight=0.3),
        TaskShare("speech_qa", 1.0, ctc_weight=0.3),
        TaskShare("spoken_command", 0.8, ctc_weight=0.3),
        TaskShare("read_text", 4.0, glyph_weight=0.2),
        TaskShare("page", 0.8, "glyphs"),
        TaskShare("chart_qa", 1.5, glyph_weight=0.2),
        TaskShare("spoken_chart_qa", 2.0, ctc_weight=0.3, glyph_weight=0.2),
        TaskShare("command", 1.0),
        TaskShare("sums", 1.0),
        TaskShare("chat", 0.3),
        TaskShare("text", 0.4, "pretrain", rows=32),
    )
    return Stage("joint", tasks, share=0.54, warmup_steps=20)


def nano(device: str = "cpu") -> Recipe:
    """phi4-nano: text, then encoders aligned to it, then all tasks with the rate decaying over the last 40%.

    Args:
        device: "cuda" takes larger batches and shows each generated sample once more than "cpu" does,
            because there the generators, not the network, set the pace.
    """
    gpu = device.startswith("cuda")
    return Recipe(
        name="nano",
        model="nano",
        stages=(_text(), _encoders(), _joint()),
        micro_batch=64,
        accumulate=4 if gpu else 1,
        replay=4 if gpu else 3,
        attention="" if gpu else "eager",
        steps=12_000 if gpu else 6_000,
        optim=OptimSettings(lr=3e-3, muon_lr=1e-2),
    )


RECIPES: dict[str, Callable[[str], Recipe]] = {"nano": nano, "smoke": smoke}
"""Recipe functions by name; each takes the device it will run on."""
