"""How long a turn of the engine may honestly take, measured on this machine when the engine starts.

A turn is one step of the engine: at most one medium through its encoder, then a chunk of a prompt or a token
for every row. On a small model that takes milliseconds; on a large one and a slow machine the largest picture
takes a minute. A turn counts as hung when it takes four times what such a turn was seen to take, and never
before the limit the operator gave. Steps go on being timed, as they take longer the longer prompts become;
what was slow once is forgotten over some hundred turns. Read by another thread than the one that writes.
"""

from __future__ import annotations

MARGIN = 4.0
_KEPT = 0.99


class Pace:
    """What turns take here.

    Args:
        hang_s: The operator's limit.

    Attributes:
        allowed_s: Longest the present turn may take.
        step_s: Slowest step seen at start.
        media_s_per_token: Slowest encoding seen, per position of a medium.
    """

    def __init__(self, hang_s: float) -> None:
        self.allowed_s = hang_s
        self.step_s = 0.0
        self.media_s_per_token = 0.0
        self._hang_s = hang_s
        self._turn_s = 0.0
        self._largest: dict[int, int] = {}

    def saw_step(self, seconds: float) -> None:
        """A step took so long, at start."""
        self.step_s = max(self.step_s, seconds)
        self._judge()

    def saw_turn(self, seconds: float) -> None:
        """A turn of an engine that answers took so long; a medium may have been encoded in it."""
        self._turn_s = max(seconds - self._media_s(), _KEPT * self._turn_s)
        self._judge()

    def saw_encoding(self, seconds: float, num_tokens: int) -> None:
        """Encoding a medium of so many positions took so long."""
        self.media_s_per_token = max(self.media_s_per_token, seconds / max(num_tokens, 1))
        self._judge()

    def began(self, number: int, largest_medium: int) -> None:
        """An answer is under way whose largest medium has so many positions; it may have to be encoded."""
        if largest_medium:
            self._largest[number] = largest_medium
            self._judge()

    def ended(self, number: int) -> None:
        """That answer is over."""
        if self._largest.pop(number, None) is not None:
            self._judge()

    def _judge(self) -> None:
        self.allowed_s = max(self._hang_s, MARGIN * (max(self.step_s, self._turn_s) + self._media_s()))

    def _media_s(self) -> float:
        """What the largest medium under way is expected to take."""
        return self.media_s_per_token * max(self._largest.values(), default=0)
