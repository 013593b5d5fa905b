"""What an export has finished, in a hidden file of its folder: a stopped one goes on, a whole one is known.

A finished graph is recorded with the digests of its files; one that was damaged since is written again.
What single layers lose is recorded as it is measured. Of a whole package only a digest of what was exported
stays, by which the same command finds that it is there already.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from phi4.checkpoint import Checkpoint
from phi4.checkpoint.manifest import sha256_file
from phi4.configs.jsonfile import read_json_object
from phi4.errors import InvalidRequest
from phi4.onnx.build.options import ExportOptions
from phi4.onnx.package.description import EmbeddingLayout
from phi4.processing.chat_template import source_template
from phi4.version import __version__

STATE_NAME = ".export.json"
TOKENIZER_FILES = ("tokenizer.json",)
"""Copied from the checkpoint as they are."""
_PART_NAME = f"{STATE_NAME}.part"


@dataclass
class Unfinished:
    """A folder that is being written, or that was.

    Attributes:
        folder: The folder; made by the first `save`.
        identity: What is exported; see `identity_of`.
        graphs: Finished graph -> file -> digest.
        layout: Where the head's graph put the embedding table, once it is finished.
        losses: What single linear layers lose with 4 bits, in nats, by name, as far as it was measured.
        whole: The package is finished; nothing else is known of it then.
    """

    folder: Path
    identity: dict[str, Any]
    graphs: dict[str, dict[str, str]] = field(default_factory=dict)
    layout: dict[str, Any] | None = None
    losses: dict[str, float] = field(default_factory=dict)
    whole: bool = False

    @classmethod
    def begin(cls, folder: Path, identity: dict[str, Any]) -> Unfinished:
        """Look at a folder; nothing is written yet.

        Raises:
            InvalidRequest: It is in use, or holds an export of something else, finished or not.
            InvalidArtifact: Its record is broken.
        """
        where = folder / STATE_NAME
        if not where.is_file():
            check_vacant(folder)
            return cls(folder, identity)
        raw = read_json_object(where)
        state = "a finished" if "finished" in raw else "an unfinished"
        if raw.get("finished") == _digest(identity):
            return cls(folder, identity, whole=True)
        if raw.get("identity") != identity:
            raise InvalidRequest(
                f"{folder}: holds {state} export of another model or with other options; "
                "delete the folder, choose another, or replace it (--force)"
            )
        return cls(folder, identity, raw.get("graphs", {}), raw.get("layout"), raw.get("losses", {}))

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

    def measured(self, losses: dict[str, float]) -> None:
        """Record what some layers lose."""
        self.losses |= losses
        self.save()

    def save(self) -> None:
        """Write the record; makes the folder."""
        state = {name: getattr(self, name) for name in ("identity", "graphs", "layout", "losses")}
        self._write(state)

    def finish(self) -> None:
        """The package is whole: keep a digest of what it is, which names no place of this machine."""
        self._write({"finished": _digest(self.identity)})
        self.whole = True

    def _write(self, raw: dict[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / _PART_NAME
        part.write_text(json.dumps(raw), encoding="utf-8")
        part.replace(self.folder / STATE_NAME)


def graph_files(name: str) -> tuple[str, str]:
    """Files of a graph: itself and its weights."""
    return f"{name}.onnx", f"{name}.onnx.data"


def check_vacant(folder: Path) -> None:
    """Refuse a folder with anything in it but what a kill leaves before the first record is there.

    Raises:
        InvalidRequest: It is in use.
    """
    if not folder.exists() or (folder.is_dir() and {path.name for path in folder.iterdir()} <= {_PART_NAME}):
        return
    what = "is not empty" if folder.is_dir() else "is a file"
    raise InvalidRequest(f"{folder}: {what}; delete it or choose another folder (--force replaces a package)")


def identity_of(checkpoint: Checkpoint, options: ExportOptions, rows: str | None = None) -> dict[str, Any]:
    """What is exported, enough to notice that it is something else.

    Weights count by size and time of change of their files: reading them all would take as long as exporting.

    Args:
        checkpoint: What is exported.
        options: How.
        rows: Digest of the rows it is calibrated with; None = it is not.
    """
    files = sorted({entry.file for entry in checkpoint.entries.values()})
    found = ((file.resolve(), file.stat()) for file in files)
    return {
        "weights": {str(path): [stat.st_size, stat.st_mtime_ns] for path, stat in found},
        "config": _digest(asdict(checkpoint.config)),
        "tokenizer": [sha256_file(checkpoint.path / name) for name in TOKENIZER_FILES],
        "template": source_template(checkpoint.path),
        "options": options.as_dict(),
        "rows": rows,
        "phi4": __version__,
    }


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
