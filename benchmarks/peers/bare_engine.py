"""The engine of `phi4 serve` in a process of its own, without anything of a server around it.

Opened and warmed by the server's own code with the same settings, it is given the same prompts by as many
users: each gets its next answer begun in the step after the last one ended.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from phi4.engine.adapters import choose_adapters
from phi4.engine.work import Work
from phi4.server.settings import ServerSettings
from phi4.server.worker.opening import open_engine, warm_up
from phi4.server.worker.pace import Pace
from phi4.types import ModelInputs, SamplingParams

UNLIKELY = -100.0


class Peer:
    """An engine."""

    packages = ("phi4", "onnxruntime", "numpy")

    def load(self, path: str) -> dict[str, Any]:
        """Open the model as the server does, without guessing tokens."""
        settings = ServerSettings(model=path, speculate=False)
        start = time.perf_counter()
        self._opened = open_engine(settings)
        warm_up(self._opened, Pace(settings.hang_s))
        info = self._opened.runner.info
        return {"start_s": time.perf_counter() - start, "facts": f"{info.name}, {info.device}, {info.dtype}"}

    def keep_asking(
        self, prompts: Sequence[Sequence[Sequence[int]]], answers: Sequence[Sequence[int]]
    ) -> dict[str, Any]:
        """Answer all prompts of each user, one after the other; all users begin at once.

        Args:
            prompts: Token ids, for each user.
            answers: How long each answer is, likewise.
        """
        core = self._opened.core
        waiting = [
            deque(self._work(ids, tokens) for ids, tokens in zip(*user, strict=True))
            for user in zip(prompts, answers, strict=True)
        ]
        steps = core.stats().steps
        began, used = time.perf_counter(), time.process_time()
        users = {core.submit(works.popleft()): works for works in waiting}
        tokens = 0
        while core.busy:
            for event in core.step():
                if event.error is not None:
                    raise event.error
                if not event.ended:
                    continue
                assert event.delta is not None and event.delta.completion is not None
                tokens += len(event.delta.completion.token_ids)
                works = users.pop(event.id)
                if works:
                    users[core.submit(works.popleft())] = works
        seconds, cpu = time.perf_counter() - began, time.process_time() - used
        steps = core.stats().steps - steps
        return {"seconds": seconds, "tokens": tokens, "steps": steps, "cpu_s": {"engine": round(cpu, 3)}}

    def _work(self, ids: Sequence[int], answer_tokens: int) -> Work:
        """What the server would make of the request."""
        inputs, ends = ModelInputs(np.array(ids, np.int64)), self._opened.tokenizer.tokens.stop_ids
        route = choose_adapters(self._opened.config, inputs, None)
        bias = dict.fromkeys(ends, UNLIKELY)
        sampling = SamplingParams(max_new_tokens=answer_tokens, logit_bias=bias)
        return Work(inputs, sampling, route.adapters, route.audio_projector, loop_guard=None)
