"""What a run measures, as the user chose it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from phi4.errors import InvalidRequest
from phi4.types import Modality

MAX_REPEATS = 1000


@dataclass(frozen=True)
class Settings:
    """What to measure; all but `runners` and `repeats` as `phi4.load` takes it.

    Attributes:
        runners: Names of runners, measured in turns; empty = the one `phi4.load` chooses.
        repeats: Samples of each cell.

    Raises:
        InvalidRequest: An impossible number of repeats, or a runner twice.
    """

    model: str = "nano"
    runners: tuple[str, ...] = ()
    repeats: int = 5
    modalities: Sequence[Modality] | None = None
    device: str | None = None
    dtype: str | None = None
    attention: str | None = None
    adapter: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.repeats <= MAX_REPEATS:
            raise InvalidRequest(f"repeats is {self.repeats}; give a whole number from 1 to {MAX_REPEATS}")
        if len(set(self.runners)) < len(self.runners):
            raise InvalidRequest(f"runners are {', '.join(self.runners)}; name each once")
