"""How long a turn takes to come, judged by how fast waiting work was let in lately.

    waits.began()                       # somebody waits
    waits.let_in(cost, others_wait)     # who waited has a turn now
    waits.seconds(cost)                 # so much work in front of a newcomer

Work is counted in tokens a request may take, most of which are never drawn: only the rate at which such work
passes matters, and that is measured in the same tokens. Time in which nobody waits says nothing and is not
counted, so what was learned under load holds until the next load, and then follows it. Before the first load
there is what the engine did when it was warmed up.
"""

from __future__ import annotations

import time
from collections.abc import Callable

_KEPT = 0.95
"""Of what is known, with each turn: some twenty turns count."""
_EXPECTED_S = 5.0
"""What was expected counts as if so much time had shown it."""


class Waits:
    """The rate at which those who wait come to their turns.

    Args:
        clock: Seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: float | None = None
        self._turns = 0.0
        self._taken = 0.0
        self._tokens = 0.0
        self._seconds = 0.0

    def expect(self, tokens_per_s: float) -> None:
        """Work passes at about this rate, as far as is known before anybody waited."""
        self._tokens, self._seconds = _EXPECTED_S * tokens_per_s, _EXPECTED_S

    def began(self) -> None:
        """Somebody waits, perhaps beside others."""
        if self._since is None:
            self._since = self._clock()

    def ended(self) -> None:
        """Nobody waits any more."""
        self._since = None

    def let_in(self, tokens: int, others_wait: bool) -> None:
        """One that waited has its turn."""
        now = self._clock()
        waited = 0.0 if self._since is None else now - self._since
        self._turns = _KEPT * self._turns + 1
        self._taken = _KEPT * self._taken + tokens
        self._tokens = _KEPT * self._tokens + tokens
        self._seconds = _KEPT * self._seconds + waited
        self._since = now if others_wait else None

    @property
    def usual_tokens(self) -> float:
        """Work of one that waits, on average; 0 = none has waited yet."""
        return self._taken / self._turns if self._turns else 0.0

    def seconds(self, tokens: float) -> float:
        """How long so much waiting work takes to be let in; 0 while nothing is known."""
        return tokens * self._seconds / self._tokens if self._tokens else 0.0
