"""All answers that are in the engine, by name: who waits for them, and the places they take.

The supervisor tells this what the engine says; each event goes to the flight that waits for it. Whatever ends
an answer (its end, an error, a client that has gone, the end of the process) returns its place here, once.
"""

from __future__ import annotations

from collections.abc import Sequence

from phi4.errors import Phi4Error
from phi4.server.failures import EngineRestarted
from phi4.server.turns import Turns
from phi4.server.worker.flight import Flight
from phi4.server.worker.frames import Cancel, Failure, Submit, error_of
from phi4.server.worker.supervisor import Supervisor
from phi4.server.worker.values import GenerateOptions, PreparedRow, ServerEvent

RETRY_S = 5


class Flights:
    """Answers in the engine.

    Args:
        turns: Places they take, taken before `submit`.
    """

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._by_id: dict[int, Flight] = {}
        self._open: set[Flight] = set()
        self._next_id = 1

    def opened(self, flight: Flight) -> None:
        """A request waits for answers, not all of them in the engine yet."""
        self._open.add(flight)

    def closed(self, flight: Flight, supervisor: Supervisor) -> None:
        """It waits no more: what it still has in the engine is cancelled."""
        self._open.discard(flight)
        flight.close()
        self.give_up(flight, supervisor)

    def submit(
        self,
        flight: Flight,
        supervisor: Supervisor,
        row: PreparedRow,
        index: int,
        max_new_tokens: int,
        options: GenerateOptions,
    ) -> None:
        """Bring a row to the engine, whose places have been taken; they are returned whatever happens.

        Args:
            flight: Who waits for the answers.
            supervisor: The engine.
            row: The prompt.
            index: What the first answer's events are to carry.
            max_new_tokens: Longest answer.
            options: How.

        Raises:
            EngineRestarted: There is no engine at the moment.
            InvalidRequest: The options cannot be sent.
        """
        first = self._next_id
        self._next_id += options.n
        ids = range(first, first + options.n)
        self._by_id |= dict.fromkeys(ids, flight)
        flight.ids.update(ids)  # from here on `give_up` returns the places
        if flight.failed:
            self.give_up(flight, supervisor)
        elif not supervisor.send(Submit(first, index, options.n, row.blob, options, max_new_tokens)):
            raise EngineRestarted("the engine is being started again; try again", RETRY_S)

    def give_up(self, flight: Flight, supervisor: Supervisor) -> None:
        """Cancel what a flight still has in the engine."""
        ids = tuple(flight.ids)
        if ids:
            supervisor.send(Cancel(ids))
            for number in ids:
                self._landed(flight, number)

    def fail_all(self, error: Phi4Error) -> None:
        """Nobody gets any more answers."""
        for flight in tuple(self._open):
            flight.fail(error)
            self._lost(flight)

    def engine_events(self, items: Sequence[tuple[int, ServerEvent]], supervisor: Supervisor) -> None:
        """The engine said something."""
        for number, event in items:
            flight = self._by_id.get(number)
            if flight is None:
                continue  # nobody waits for it any more
            flight.put(event)
            if event.finish_reason is not None:
                self._landed(flight, number)
            if flight.failed:
                self.give_up(flight, supervisor)

    def engine_failed(self, number: int, failure: Failure, supervisor: Supervisor) -> None:
        """An answer ended with an error; the others of its request are given up."""
        flight = self._by_id.get(number)
        if flight is not None:
            self._landed(flight, number)
            flight.fail(error_of(failure))
            self.give_up(flight, supervisor)

    def engine_down(self) -> None:
        """The engine process is gone with all it had; rows that wait for their turn go on waiting."""
        for flight in set(self._by_id.values()):
            flight.fail(
                EngineRestarted(
                    "the engine failed while it worked on this and is being started again", RETRY_S
                )
            )
            self._lost(flight)

    def _lost(self, flight: Flight) -> None:
        for number in tuple(flight.ids):
            self._landed(flight, number)

    def _landed(self, flight: Flight, number: int) -> None:
        """An answer has left the engine."""
        del self._by_id[number]
        flight.ids.discard(number)
        self._turns.give(flight.key)
