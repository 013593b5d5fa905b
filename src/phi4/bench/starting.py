"""Loading a model: how long until it is there, how long until its first token, how much memory that takes."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass

from phi4.api import load
from phi4.bench.memory import peak_growth, start_peak
from phi4.bench.settings import Settings
from phi4.bench.speeds import Subject, prefill
from phi4.bench.tasks import FIRST_PROMPT, longest_prompt


@dataclass(frozen=True)
class Start:
    """What was measured while a model was loaded.

    Attributes:
        subject: The model, to be measured further.
        load_s: Seconds of each loading.
        first_token_s: Seconds from the end of each loading to the first token.
        peak_bytes: Growth of resident memory up to its peak; None where the system does not tell.
    """

    subject: Subject
    load_s: tuple[float, ...]
    first_token_s: tuple[float, ...]
    peak_bytes: int | None = None


def start_subject(settings: Settings, runner: str, *, repeats: int) -> Start:
    """Load a model several times; the last copy stays.

    The first copy also reads the longest prompt, for the memory that takes: what it leaves behind would
    hide part of the growth from the later ones.

    Args:
        settings: Model and options.
        runner: Name of the runner.
        repeats: Times to load, at least 1.
    """
    load_s, first_token_s = [], []
    peak: int | None = None
    subject: Subject | None = None
    for number in range(repeats):
        subject = None  # two copies at once might not fit
        gc.collect()
        before = start_peak()
        start = time.perf_counter()
        subject = _loaded(settings, runner)
        load_s.append(time.perf_counter() - start)
        first_token_s.append(_read(subject, FIRST_PROMPT))
        if number == 0:
            _read(subject, longest_prompt(settings, subject.runner.info.max_context_tokens))
            peak = peak_growth(before)
    assert subject is not None, "loaded at least once"
    return Start(subject, tuple(load_s), tuple(first_token_s), peak)


def _loaded(settings: Settings, runner: str) -> Subject:
    model = load(
        settings.model,
        device=settings.device_of(runner),
        dtype=settings.dtype,
        attention=settings.attention,
        modalities=settings.modalities,
        adapter=settings.adapter,
        runner=runner,
    )
    return Subject(model.info.name, model)


def _read(subject: Subject, num_tokens: int) -> float:
    """Seconds to the first token after a prompt of so many tokens, or as many as there is room for."""
    count = min(num_tokens, subject.runner.info.max_context_tokens - 1)
    with prefill(subject, count) as sample:
        return count / sample()
