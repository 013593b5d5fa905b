"""What a run measures, as the user chose it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from phi4.errors import InvalidRequest
from phi4.registry import with_provider
from phi4.types import Modality

MAX_REPEATS = 1000


@dataclass(frozen=True)
class Settings:
    """What to measure; what is not listed here as `phi4.load` takes it.

    Attributes:
        runners: Names of runners, measured in turns; empty = the one `phi4.load` chooses.
        repeats: Samples of each cell.
        prompts: Lengths of prompts, in tokens.
        steps: Tokens a sample of decoding appends to each row: by default enough to even out the clock, few
            enough to stay at one length.
        rows: How many sequences decode together.

    Raises:
        InvalidRequest: A number that cannot be, a runner twice, or a provider none of the runners has.
    """

    model: str = "nano"
    runners: tuple[str, ...] = ()
    repeats: int = 5
    modalities: Sequence[Modality] | None = None
    device: str | None = None
    dtype: str | None = None
    attention: str | None = None
    adapter: str | None = None
    provider: str | None = None
    prompts: tuple[int, ...] = (128, 512, 2048)
    steps: int = 16
    rows: tuple[int, ...] = (1, 2, 4, 8)

    def __post_init__(self) -> None:
        if not 1 <= self.repeats <= MAX_REPEATS:
            raise InvalidRequest(f"repeats is {self.repeats}; give a whole number from 1 to {MAX_REPEATS}")
        if len(set(self.runners)) < len(self.runners):
            raise InvalidRequest(f"runners are {', '.join(self.runners)}; name each once")
        for name, values in (("prompts", self.prompts), ("steps", (self.steps,)), ("rows", self.rows)):
            if not values or min(values) < 1 or len(set(values)) < len(values):
                given = ", ".join(map(str, values)) or "none"
                raise InvalidRequest(f"{name}: {given}; give whole numbers from 1, each once")
        others = [runner for runner in self.runners if runner != "onnx"]
        alone = others[0] if others and "onnx" not in self.runners else None
        with_provider(alone, None if others else self.device, self.provider)

    def device_of(self, runner: str) -> str | None:
        """Where a runner computes: a provider is the device of ONNX Runtime alone."""
        return self.provider if runner == "onnx" and self.provider is not None else self.device
