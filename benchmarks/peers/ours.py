"""phi4 on ONNX Runtime, by its own `ModelRunner` protocol; prompt lookup and pictures through its engine."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np

import phi4
import phi4.onnx.opening  # the backend is imported before loading is timed
from peers.media_file import Media
from peers.media_file import read_media as read_arrays
from phi4.bench.speeds import Subject
from phi4.bench.traffic import step_bytes
from phi4.engine.drawing.sampler import draw
from phi4.engine.generator import Generator
from phi4.engine.request import Request, text_piece
from phi4.engine.runner import Draw, Row, Slot, StepPlan
from phi4.onnx.machine.threads import thread_count
from phi4.types import AudioArrays, ImageArrays, MediaSpan, Modality, ModelInputs, SamplingParams


class Peer:
    """An exported package."""

    packages = ("phi4", "onnxruntime", "numpy")

    def load(self, path: str, threads: int, modalities: Sequence[Modality] = ("text",)) -> dict[str, Any]:
        """Open a package; threads come from PHI4_THREADS, which has to say the same."""
        assert thread_count() == threads, "PHI4_THREADS says otherwise"
        start = time.perf_counter()
        self._model = phi4.load(path, runner="onnx", modalities=modalities)
        seconds = time.perf_counter() - start
        self._subject = Subject("ours", self._model)
        info = self._model.info
        return {"seconds": seconds, "facts": f"phi4 {phi4.__version__}, {info.dtype}, {threads} threads"}

    def warm_up(self, ids: Sequence[int]) -> dict[str, Any]:
        """Run everything once; a long prompt opens the form of the decoder for prompts."""
        self.decode(ids, 2)
        return {}

    def prefill(self, ids: Sequence[int]) -> dict[str, Any]:
        """From an empty sequence to the first drawn token."""
        slot = self._subject.open(len(ids) + 1)
        try:
            start = time.perf_counter()
            self._subject.feed(slot, np.array(ids, np.int64))
            return {"seconds": time.perf_counter() - start, "tokens": len(ids)}
        finally:
            self._subject.runner.close(slot)

    def decode(self, ids: Sequence[int], steps: int, rows: int = 1) -> dict[str, Any]:
        """Greedy steps after a prompt that all rows hold; one step before the clock starts."""
        subject, runner = self._subject, self._subject.runner
        slots: list[Slot] = []
        try:
            for number in range(rows):
                slots.append(subject.open(len(ids) + 1 + steps))
                if number:
                    runner.copy_prefix(slots[0], slots[number], len(ids))
                else:
                    token = subject.feed(slots[0], np.array(ids, np.int64))
            tokens = self._step(slots, [token] * rows)
            start = time.perf_counter()
            for _ in range(steps):
                tokens = self._step(slots, tokens)
            seconds = time.perf_counter() - start
        finally:
            for slot in slots:
                runner.close(slot)
        model = self._model
        nbytes = step_bytes(model.config, model.info, model.path, rows, len(ids))
        return {"seconds": seconds, "tokens": rows * steps, "step_bytes": nbytes}

    def copying(self, ids: Sequence[int], steps: int, lookup: bool) -> dict[str, Any]:
        """An answer that says a part of the prompt again, by the engine, with prompt lookup or without.

        Random weights copy nothing, so each drawn token is replaced by the one the part of the prompt has at
        its place. Everything is computed as ever, the draws too; guesses are judged by the replaced ones.
        """
        first = len(ids) // 4
        script = list(ids[first : first + steps + 1])
        model = self._model
        processor, runner = model.generator.processor, model.generator.runner
        generator = Generator(runner, processor, model.tokenizer, speculate=lookup)
        inputs = ModelInputs(np.array(ids, np.int64))
        request = Request(sampling=SamplingParams(max_new_tokens=len(script)), inputs=inputs)
        with _drawing(script, len(ids)):
            done = generator.generate([request])[0]
        assert list(done.token_ids) == script, "the answer is the script"
        timing = done.timing
        return {
            "seconds": timing.total_s - timing.first_token_s,
            "tokens": len(script) - 1,
            "drafted": timing.drafted,
            "accepted": timing.accepted,
        }

    def first_token(self, media: str) -> dict[str, Any]:
        """From a prepared prompt with a picture and a recording to the first token."""
        request = Request(sampling=SamplingParams(max_new_tokens=1), inputs=_inputs(read_arrays(media)))
        timing = self._model.generate([request])[0].timing
        return {
            "seconds": timing.first_token_s,
            "encode_s": timing.encode_s,
            "prefill_s": timing.prefill_s,
            "prompt_tokens": len(request.inputs.token_ids) if request.inputs else 0,
        }

    def encode_speech(self, media: str) -> dict[str, Any]:
        """The speech encoder and its projector."""
        recording, runner = _inputs(read_arrays(media)).audios[0], self._subject.runner
        start = time.perf_counter()
        handle = runner.encode(recording)
        seconds = time.perf_counter() - start
        runner.release(handle)
        return {"seconds": seconds, "audio_tokens": recording.num_tokens}

    def _step(self, slots: Sequence[Slot], tokens: Sequence[int]) -> list[int]:
        rows = [Row(slot, (text_piece([token]),), Draw()) for slot, token in zip(slots, tokens, strict=True)]
        return [int(row.token_ids[-1]) for row in self._subject.runner.step(StepPlan(tuple(rows))).rows]


@contextmanager
def _drawing(script: Sequence[int], prompt_tokens: int) -> Iterator[None]:
    """Inside, the token drawn for a place behind the prompt is the script's."""

    def scripted(logits: Any, sampling: Any, position: int, allowed: Any = None) -> int:
        draw(logits, sampling, position, allowed)
        return script[min(position - prompt_tokens, len(script) - 1)]

    with mock.patch("phi4.onnx.serving.results.draw", scripted):
        yield


def _inputs(media: Media) -> ModelInputs:
    image_start, image_length = (int(value) for value in media.image_span)
    audio_start, audio_length = (int(value) for value in media.audio_span)
    height, width = (int(value) for value in media.size_px)
    spans = [
        MediaSpan("image", 0, image_start, image_length),
        MediaSpan("audio", 0, audio_start, audio_length),
    ]
    image = ImageArrays(media.pixels, media.patch_mask, (height, width), image_length, "picture")
    audio = AudioArrays(media.features, audio_length, len(media.features) / 100, "recording")
    return ModelInputs(media.token_ids, (image,), (audio,), tuple(sorted(spans, key=lambda span: span.start)))
