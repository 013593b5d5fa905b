"""Programs that are held in memory between their turns, as many as fit, and are started again otherwise."""

from __future__ import annotations

from collections.abc import Callable

from harness.environments import NotHere
from harness.processes import available_bytes
from harness.programs import Program
from harness.workers import Worker

MARGIN_BYTES = 1.5e9
"""Left for the driver, the array whose reading is timed, and the rest of the system."""


class Crew:
    """Running programs of one cell or of several in a row.

    Args:
        start: Starts a program, loads its model and warms it up.
        scale: Name of the scale, which decides what programs need.
        room_bytes: Memory all may take together; None = what is available now, less a margin.
    """

    def __init__(
        self, start: Callable[[Program], Worker], scale: str, room_bytes: float | None = None
    ) -> None:
        self._start, self._scale = start, scale
        self._room = available_bytes() - MARGIN_BYTES if room_bytes is None else room_bytes
        self._running: dict[str, tuple[Program, Worker]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Programs in memory, the one used last at the end."""
        return tuple(self._running)

    def ready(self, program: Program) -> Worker:
        """The program, running, its model loaded; others that do not fit beside it are ended.

        Raises:
            NotHere: It is not installed, its file cannot be made, or it does not fit even alone.
            WorkerError: It did not start.
        """
        held = self._running.pop(program.name, None)
        worker = held[1] if held else None
        if worker is not None and not worker.alive:
            worker.close()
            worker = None
        if worker is None:
            self._make_room(program)
            worker = self._start(program)
        self._running[program.name] = (program, worker)
        worker.resume()
        return worker

    def drop(self, program: Program) -> None:
        """End a program, for instance because it failed."""
        held = self._running.pop(program.name, None)
        if held:
            held[1].close()

    def clear(self) -> None:
        """End all."""
        for program, _ in list(self._running.values()):
            self.drop(program)

    def _make_room(self, program: Program) -> None:
        need = program.memory(self._scale)
        if need > self._room:
            raise NotHere(
                f"needs about {need / 1e9:.1f} GB of memory, {max(self._room, 0) / 1e9:.1f} GB are to be had"
            )
        while self._running and self._held() + need > self._room:
            self.drop(next(iter(self._running.values()))[0])

    def _held(self) -> float:
        return sum(program.memory(self._scale) for program, _ in self._running.values())
