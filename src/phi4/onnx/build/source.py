"""A checkpoint's tensors on their way into a package: merged where asked, counted as they are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from phi4.checkpoint import Checkpoint
from phi4.onnx.build.merge import Merged
from phi4.onnx.build.plan import PlannedGraph
from phi4.shapes import AnyArray

Progress = Callable[[int, int], None]
"""Called with (done, in all): bytes of the source, or passes of rows; what an earlier run did counts too."""


class Source:
    """The tensors of an export.

    Args:
        checkpoint: Where they come from.
        merge_adapter: Adapter to add to the decoder's weights; None = none.
        graphs: All graphs of the package: what they are made of is the whole of the progress.
        progress: Told how far it is.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        merge_adapter: str | None,
        graphs: Sequence[PlannedGraph],
        progress: Progress | None,
    ) -> None:
        self._checkpoint = checkpoint
        self._merged = Merged(checkpoint, merge_adapter)
        self._progress = progress
        self._total = sum(self._bytes(graph) for graph in graphs)
        self._done = 0
        self._count(0)

    def read(self, name: str) -> AnyArray:
        """One tensor, by its canonical name."""
        array = self._merged.read(name)
        self._count(self._checkpoint.entries[name].nbytes)
        return array

    def skip(self, graph: PlannedGraph) -> None:
        """Count a graph that is there already."""
        self._count(self._bytes(graph))

    def _bytes(self, graph: PlannedGraph) -> int:
        return sum(self._checkpoint.entries[name].nbytes for name in graph.shapes)

    def _count(self, nbytes: int) -> None:
        self._done += nbytes
        if self._progress is not None:
            self._progress(self._done, self._total)
