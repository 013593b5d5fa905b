"""From settings to a warm engine: model found, weights read, every part run once and timed.

The same steps as `phi4.load`, with as many users' adapters as the operator registered, under the names they
were registered by. Nothing is left for the first request to load: a server that says it is ready is.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from phi4.checkpoint import LoadedAdapter, load_adapter, resolve_model
from phi4.configs import Phi4Config
from phi4.engine.adapters import check_user_adapter, choose_adapters, warn_without_adapter
from phi4.engine.core import EngineCore
from phi4.engine.longrope import longrope_policy
from phi4.engine.runner import ModelRunner, RunnerInfo
from phi4.engine.work import Work
from phi4.processing.mel import audio_arrays
from phi4.processing.tiles import tile_image
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.registry import (
    RUNNERS,
    asked_runner,
    check_runner,
    find_form,
    merged_adapter,
    open_model,
    open_runner,
    with_provider,
)
from phi4.server.settings import ServerSettings
from phi4.server.worker.pace import Pace
from phi4.server.worker.values import ModelCard
from phi4.together import at_once
from phi4.types import AudioArrays, ImageArrays, MediaSpan, ModelInputs, SamplingParams

_log = logging.getLogger(__name__)
_FEATURE_BYTES = 4
_WARM_TOKENS = 4
_SILENCE_S = 4
_ANSWERS = 0.5
"""Requests pass at half the rate at which prompts are read, roughly: answers are drawn one by one."""


@dataclass(frozen=True)
class OpenedEngine:
    """An engine that is ready.

    Attributes:
        core: The engine.
        runner: What it computes with.
        config: The model.
        tokenizer: Its tokenizer.
        path: Folder of its files.
        card: What the server says about it.
    """

    core: EngineCore
    runner: ModelRunner
    config: Phi4Config
    tokenizer: Phi4Tokenizer
    path: Path
    card: ModelCard


def open_engine(settings: ServerSettings) -> OpenedEngine:
    """Open the model the settings name.

    Raises:
        Phi4Error: As `phi4.load`.
    """
    runner_name, device = with_provider(settings.runner, settings.device, settings.provider)
    options = {"device": device, "dtype": settings.dtype, "attention": settings.attention}
    asked = asked_runner(runner_name, **options)
    chosen, found = find_form(settings.model, asked, **options)
    check_runner(chosen, **options)
    parts = settings.modalities
    files = open_model(
        chosen, found if isinstance(found, Path) else resolve_model(settings.model, parts), parts
    )
    config = files.config
    adapters = _user_adapters(settings, config)
    if merged_adapter(files) is None:
        warn_without_adapter(config, parts)

    def read() -> Phi4Tokenizer:
        return Phi4Tokenizer.load(files.path, config.decoder.vocab_size)

    def open_backend() -> ModelRunner:
        return open_runner(
            chosen,
            files,
            modalities=parts,
            **options,
            adapter=adapters,
            batch_invariant=settings.batch_invariant,
        )

    beside = RUNNERS[chosen].beside
    tokenizer, runner = at_once(read, open_backend) if beside else (read(), open_backend())
    core = EngineCore(
        runner,
        tokenizer,
        policy=longrope_policy(settings.rope_policy, config.decoder),
        speculate=settings.speculate,
        prefix_positions=settings.prefix_cache_bytes // runner.info.bytes_per_token,
        encoder_tokens=settings.encoder_cache_bytes // (_FEATURE_BYTES * config.decoder.hidden_size),
        cache_positions=_positions(settings.cache_bytes, runner.info),
    )
    names = tuple(adapter.config.name for adapter in adapters)
    return OpenedEngine(
        core, runner, config, tokenizer, files.path, _card(settings.model, runner.info, names)
    )


def _user_adapters(settings: ServerSettings, config: Phi4Config) -> tuple[LoadedAdapter, ...]:
    for name, _ in settings.adapters:
        check_user_adapter(name)
    return tuple(load_adapter(folder, config, name) for name, folder in settings.adapters)


def _positions(cache_bytes: int | None, info: RunnerInfo) -> int | None:
    return None if cache_bytes is None else max(1, cache_bytes // info.bytes_per_token)


def _card(model: str, info: RunnerInfo, adapters: tuple[str, ...]) -> ModelCard:
    name = Path(model).expanduser().name or "model"
    return ModelCard(
        name,
        info.name,
        info.device,
        info.dtype,
        info.max_context_tokens,
        info.vocab_size,
        info.modalities,
        adapters,
    )


def warm_up(opened: OpenedEngine, pace: Pace) -> float:
    """Run every part once, encoders twice since the first time may load them; `pace` is told the times.

    Returns:
        Tokens of requests a second, as far as reading the longest chunk of a prompt shows it.

    Raises:
        Phi4Error: A part cannot be loaded or does not fit.
    """
    began = time.perf_counter()
    blanks = _blanks(opened)
    for blank in blanks:
        for _ in range(2):
            start = time.perf_counter()
            opened.runner.release(opened.runner.encode(blank))
            seconds = time.perf_counter() - start
        pace.saw_encoding(seconds, blank.num_tokens)
    info, end = opened.runner.info, opened.tokenizer.tokens.end
    longest = max(1, min(info.max_step_tokens, info.max_context_tokens - _WARM_TOKENS))
    _run(opened, ModelInputs(np.full(longest, end, np.int64)), pace)
    rate = _ANSWERS * longest / pace.step_s
    for blank in blanks:
        _run(opened, _around(blank, end), pace)
    _log.info(
        "warm after %.1f s: a step takes up to %.3f s, a medium %.2f ms per token",
        time.perf_counter() - began,
        pace.step_s,
        1000 * pace.media_s_per_token,
    )
    return rate


def _blanks(opened: OpenedEngine) -> list[ImageArrays | AudioArrays]:
    """A white picture and some silence, of the media the model takes."""
    config, modalities = opened.config, opened.runner.info.modalities
    blanks: list[ImageArrays | AudioArrays] = []
    if config.vision is not None and "vision" in modalities:
        side = config.vision.crop_size
        blanks.append(tile_image(np.full((side, side, 3), 255, np.uint8), config.vision))
    if config.speech is not None and "speech" in modalities:
        blanks.append(audio_arrays(np.zeros(16_000 * _SILENCE_S, np.float32), config.speech))
    return blanks


def _around(blank: ImageArrays | AudioArrays, token_id: int) -> ModelInputs:
    """A prompt with one medium between two tokens."""
    ids = np.full(blank.num_tokens + 2, token_id, np.int64)
    if isinstance(blank, ImageArrays):
        return ModelInputs(ids, images=(blank,), spans=(MediaSpan("image", 0, 1, blank.num_tokens),))
    return ModelInputs(ids, audios=(blank,), spans=(MediaSpan("audio", 0, 1, blank.num_tokens),))


def _run(opened: OpenedEngine, inputs: ModelInputs, pace: Pace) -> None:
    route = choose_adapters(opened.config, inputs)
    sampling = SamplingParams(max_new_tokens=_WARM_TOKENS)
    # An engine of its own, so that what is counted later is what clients asked for.
    policy = longrope_policy("reference", opened.config.decoder)
    core = EngineCore(opened.runner, opened.tokenizer, policy=policy)
    core.submit(Work(inputs, sampling, route.adapters, route.audio_projector))
    try:
        while core.busy:
            start = time.perf_counter()
            events = core.step()
            pace.saw_step(time.perf_counter() - start)
            for event in events:
                if event.error is not None:
                    raise event.error
    finally:
        core.close()
