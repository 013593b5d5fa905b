"""What an export has finished, in a hidden file of its folder, so that a stopped one goes on.

A finished graph is recorded with the digests of its files; one that was damaged since is written again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from phi4.checkpoint import Checkpoint
from phi4.checkpoint.manifest import sha256_file
from phi4.configs.jsonfile import read_json_object
from phi4.errors import InvalidRequest
from phi4.onnx.build.options import ExportOptions
from phi4.onnx.description import EmbeddingLayout
from phi4.version import __version__

STATE_NAME = ".export.json"


@dataclass
class Unfinished:
    """A folder that is being written.

    Attributes:
        folder: The folder; made by the first `finished`.
        identity: What is exported; see `begin`.
        graphs: Finished graph -> file -> digest.
        layout: Where the head's graph put the embedding table, once it is finished.
    """

    folder: Path
    identity: dict[str, Any]
    graphs: dict[str, dict[str, str]]
    layout: dict[str, Any] | None

    @classmethod
    def begin(
        cls, folder: Path, checkpoint: Checkpoint, options: ExportOptions, rows: str | None = None
    ) -> Unfinished:
        """Look at a folder; nothing is written yet.

        Args:
            folder: The folder.
            checkpoint: What is exported.
            options: How.
            rows: Digest of the rows it is calibrated with; None = it is not.

        Raises:
            InvalidRequest: It is in use, or holds an unfinished export of something else.
            InvalidArtifact: Its record is broken.
        """
        identity = {
            "source": _fingerprint(checkpoint),
            "options": options.as_dict(),
            "rows": rows,
            "phi4": __version__,
        }
        where = folder / STATE_NAME
        if where.is_file():
            raw = read_json_object(where)
            if raw.get("identity") != identity:
                raise InvalidRequest(
                    f"{folder}: holds an unfinished export of another model or with other options; "
                    "delete the folder or choose another"
                )
            return cls(folder, identity, raw.get("graphs", {}), raw.get("layout"))
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            what = "is not empty" if folder.is_dir() else "is a file"
            raise InvalidRequest(f"{folder}: {what}; delete it or choose another folder")
        return cls(folder, identity, {}, None)

    @property
    def embedding(self) -> EmbeddingLayout:
        """Where the head's graph put the table."""
        assert self.layout is not None, "the head is written before it is described"
        return EmbeddingLayout(**self.layout)

    def has(self, name: str) -> bool:
        """Whether a graph is finished and its files are as they were then; reads every byte of them."""
        stated = self.graphs.get(name)
        return stated is not None and all(
            (self.folder / file).is_file() and sha256_file(self.folder / file) == digest
            for file, digest in stated.items()
        )

    def finished(self, name: str, layout: EmbeddingLayout | None) -> None:
        """Record a graph."""
        self.graphs[name] = {file: sha256_file(self.folder / file) for file in graph_files(name)}
        if layout is not None:
            self.layout = asdict(layout)
        self.save()

    def save(self) -> None:
        """Write the record; makes the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        raw = {"identity": self.identity, "graphs": self.graphs, "layout": self.layout}
        part = self.folder / f"{STATE_NAME}.part"
        part.write_text(json.dumps(raw), encoding="utf-8")
        part.replace(self.folder / STATE_NAME)

    def forget(self) -> None:
        """The package is whole: take the record away."""
        (self.folder / STATE_NAME).unlink()


def graph_files(name: str) -> tuple[str, str]:
    """Files of a graph: itself and its weights."""
    return f"{name}.onnx", f"{name}.onnx.data"


def _fingerprint(checkpoint: Checkpoint) -> dict[str, list[int]]:
    """Files of a checkpoint with size and time of change: enough to notice that it is another one."""
    files = sorted({entry.file for entry in checkpoint.entries.values()})
    found = ((file.resolve(), file.stat()) for file in files)
    return {str(path): [stat.st_size, stat.st_mtime_ns] for path, stat in found}
