"""Answers under way in the engine process: from what the server asked to works of the engine, and back.

    answers.submit(frame)               # a row, once or several times
    answers.cancel(ids)
    frames = answers.step()             # one step of the engine, as frames for the server

A fault in one request becomes that request's `Failed`. What `step` itself raises is a broken runner: the
process ends then, and the server starts another.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import fields, replace
from functools import partial
from typing import Any

from phi4.engine.adapters import choose_adapters
from phi4.engine.answering.grammar import Grammar
from phi4.engine.answering.guards import LoopLimits
from phi4.engine.events import Event
from phi4.engine.structured.compiler import GrammarCompiler
from phi4.engine.work import Work
from phi4.errors import InvalidRequest, Phi4Error
from phi4.server.faults import places_of
from phi4.server.worker.frames import Events, Failed, Frame, Submit, failure_of
from phi4.server.worker.opening import OpenedEngine
from phi4.server.worker.pace import Pace
from phi4.server.worker.rows import RowContent, unpack_row
from phi4.server.worker.values import ServerEvent
from phi4.server.worker.wording import Wording
from phi4.types import SamplingParams

_log = logging.getLogger(__name__)
_SEEDS = 2**64


Later = Callable[[int, Future[Any]], None]
"""Has `Answers.compiled` called with these, soon, on the engine's own thread."""


class Answers:
    """The answers of one engine process.

    Args:
        opened: The engine.
        compiler: Makes the grammars of answers.
        pace: Is told what is under way.
        later: Called on another thread when the grammar of an answer is compiled.
    """

    def __init__(self, opened: OpenedEngine, compiler: GrammarCompiler, pace: Pace, later: Later) -> None:
        self._core = opened.core
        self._config = opened.config
        self._adapters = opened.card.user_adapters
        self._tokenizer = opened.tokenizer
        self._compiler = compiler
        self._pace = pace
        self._later = later
        self._wordings: dict[int, Wording] = {}  # by the server's name of an answer
        self._in_core: dict[int, int] = {}  # the server's name -> the engine's
        self._names: dict[int, int] = {}  # and back
        self._compiling: dict[int, tuple[int, Work]] = {}  # with the index its words carry

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return self._core.busy

    def submit(self, frame: Submit) -> list[Frame]:
        """Begin the answers of a row; what cannot begin comes back as `Failed`."""
        try:
            work, content = self._work(frame)
        except Exception as error:
            return [self._failed(frame.first_id + place, error) for place in range(frame.count)]
        found: list[Frame] = []
        for place in range(frame.count):
            number, index = frame.first_id + place, frame.first_index + place
            self._pace.began(number, _largest_medium(work))
            one = replace(work, sampling=_seeded(work, place))
            if content.grammar is None:
                found += self._begin(number, index, one)
            else:
                self._compiling[number] = (index, one)
                future = self._compiler.begin(content.grammar)
                future.add_done_callback(partial(self._later, number))
        return found

    def compiled(self, number: int, grammar: Future[Grammar]) -> list[Frame]:
        """The grammar of an answer is ready, or cannot be had."""
        waiting = self._compiling.pop(number, None)
        if waiting is None:
            return []  # cancelled in the meantime
        index, work = waiting
        try:
            found = grammar.result(timeout=0)
        except Exception as error:
            return [self._failed(number, error)]
        return self._begin(number, index, replace(work, grammar=found))

    def cancel(self, ids: Iterable[int]) -> None:
        """Forget answers and free what they hold, in whatever phase they are."""
        for number in ids:
            core_id = self._in_core.get(number)
            if core_id is not None:
                self._core.cancel(core_id)
            self._forget(number)

    def step(self) -> list[Frame]:
        """Run one step; what became known in it, in one frame, and the answers that failed."""
        items: list[tuple[int, ServerEvent]] = []
        failed: list[Frame] = []
        for event in self._core.step():
            number = self._names.get(event.id)
            if number is None:
                continue
            try:
                if event.error is not None:
                    raise event.error
                items += self._said(number, event)
            except Exception as error:
                self._core.cancel(event.id)
                failed.append(self._failed(number, error))
        return [Events(tuple(items)), *failed] if items else failed

    def stats(self) -> dict[str, float]:
        """The engine's statistics, by name; counts by kind as `name_kind`."""
        found: dict[str, float] = {}
        stats = self._core.stats()
        for name, value in ((field.name, getattr(stats, field.name)) for field in fields(stats)):
            if isinstance(value, int | float):
                found[name] = float(value)
            else:
                found |= {f"{name}_{kind}": float(count) for kind, count in value.items()}
        return found

    def _work(self, frame: Submit) -> tuple[Work, RowContent]:
        content, inputs = unpack_row(frame.blob, self._config)
        if content.adapter and content.adapter not in self._adapters:
            raise InvalidRequest(f"no adapter named {content.adapter[:80]!r} is loaded")
        route = choose_adapters(self._config, inputs, content.adapter or None)
        options = frame.options
        calls = content.grammar is not None and content.grammar.kind == "tool_calls"
        work = Work(
            inputs,
            replace(options.sampling, max_new_tokens=frame.max_new_tokens),
            route.adapters,
            route.audio_projector,
            tool_names=content.tool_names if calls else (),
            keep_markup=calls,
            salt=options.salt,
            loop_guard=LoopLimits() if options.loop_guard else None,
        )
        self._core.check(work)
        return work, content

    def _begin(self, number: int, index: int, work: Work) -> list[Frame]:
        try:
            core_id = self._core.submit(work)
        except Exception as error:
            return [self._failed(number, error)]
        self._in_core[number], self._names[core_id] = core_id, number
        self._wordings[number] = Wording(index, self._tokenizer, work.tool_names, work.grammar)
        return []

    def _said(self, number: int, event: Event) -> list[tuple[int, ServerEvent]]:
        if event.delta is None:
            return []
        said = self._wordings[number].say(event.delta)
        if event.ended:
            self._forget(number)
        return [] if said is None else [(number, said)]

    def _failed(self, number: int, error: Exception) -> Failed:
        if not isinstance(error, Phi4Error):
            _log.error("answer %d failed: %s", number, places_of(error))
        self._forget(number)
        return Failed(number, failure_of(error))

    def _forget(self, number: int) -> None:
        self._compiling.pop(number, None)
        self._wordings.pop(number, None)
        self._pace.ended(number)
        core_id = self._in_core.pop(number, None)
        if core_id is not None:
            del self._names[core_id]


def _seeded(work: Work, place: int) -> SamplingParams:
    """The sampling of the answer number `place` to one row."""
    seed = work.sampling.seed
    if seed is None or not place:
        return work.sampling
    return replace(work.sampling, seed=(seed + place) % _SEEDS)


def _largest_medium(work: Work) -> int:
    """Positions of the largest picture or recording of a prompt."""
    return max((span.length for span in work.inputs.spans), default=0)
