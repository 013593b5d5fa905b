"""What a checkpoint lacks, has too much, or has in another shape: always told together.

`compare_shapes(found, expected, optional)` gives `Differences`, which are false when there are none;
`raise_for` turns them into one error, `phi4 show` prints them. Works on names and shapes alone, so a
header is enough. Types are left out on purpose: weights are converted when they are loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from phi4.errors import CheckpointMismatch

_SHOWN = 8


@dataclass(frozen=True)
class Misshapen:
    """A tensor whose stored shape is not the one its config implies."""

    name: str
    stored: tuple[int, ...]
    expected: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {list(self.stored)} (the config says {list(self.expected)})"


@dataclass(frozen=True)
class Differences:
    """Everything by which tensors and config disagree.

    Attributes:
        missing: Our names of tensors that should be there.
        unexpected: Names nobody asks for: ours where the layout's table knows them, stored ones otherwise.
        misshapen: Tensors of another shape.
    """

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    misshapen: tuple[Misshapen, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.misshapen)

    def __str__(self) -> str:
        parts = [
            _listed("missing", self.missing),
            _listed("unexpected", self.unexpected),
            _listed("misshapen", [str(item) for item in self.misshapen]),
        ]
        return "; ".join(part for part in parts if part)

    def raise_for(self, what: str) -> None:
        """Raise when there is any difference.

        Raises:
            CheckpointMismatch: Names all three kinds at once.
        """
        if self:
            raise CheckpointMismatch(
                f"{what}: the tensors do not fit the config: {self}. "
                "`phi4 show` lists them all; config.json and weights must be of the same model"
            )


def _listed(kind: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)} {kind} ({', '.join(names[:_SHOWN])}{more})"


def compare_shapes(
    found: Mapping[str, tuple[int, ...]],
    expected: Mapping[str, tuple[int, ...]],
    optional: Mapping[str, tuple[int, ...]],
    unexpected: Iterable[str] = (),
) -> Differences:
    """Compare stored shapes with those a config implies; optional tensors may be absent.

    Args:
        found: Stored shapes by our name; names in neither mapping count as unexpected.
        expected: Shapes that must be there.
        optional: Shapes that may be there.
        unexpected: Further names to report as unexpected.
    """
    known = {**optional, **expected}
    return Differences(
        missing=tuple(name for name in expected if name not in found),
        unexpected=(*(name for name in found if name not in known), *unexpected),
        misshapen=tuple(
            Misshapen(name, shape, known[name])
            for name, shape in found.items()
            if name in known and shape != known[name]
        ),
    )
