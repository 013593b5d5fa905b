"""Where each program is installed, and the variables it runs with."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

OURS = "ours"
BENCHMARKS = Path(__file__).resolve().parents[1]
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PHI4_THREADS")


class NotHere(Exception):
    """Something cannot be measured on this machine as it stands; the message says why."""


@dataclass(frozen=True)
class Environments:
    """Virtual environments, one a peer, in one folder; `make bench-peers` makes them.

    Attributes:
        folder: The folder.
        threads: Threads everybody computes with.
    """

    folder: Path
    threads: int

    def missing(self, name: str) -> str:
        """Why an environment cannot be used; empty when it can."""
        if name == OURS or self._python(name).is_file():
            return ""
        return f"not installed ({self._python(name)} is missing): make bench-peers"

    def python(self, name: str) -> Path:
        """Its interpreter. Ours is the one that runs this, unless the folder has an environment for it.

        Raises:
            NotHere: It is not installed.
        """
        reason = self.missing(name)
        if reason:
            raise NotHere(reason)
        own = self._python(name)
        return own if own.is_file() else Path(sys.executable)

    def variables(self, name: str, inherited: Mapping[str, str] = os.environ) -> dict[str, str]:
        """Threads set for every library, no network, and the modules of `peers` within reach."""
        kept = {key: value for key, value in inherited.items() if not key.startswith("PYTHON")}
        paths = [str(BENCHMARKS)]
        if name == OURS and inherited.get("PYTHONPATH"):  # phi4 may come from there
            paths.append(inherited["PYTHONPATH"])
        return kept | {
            **dict.fromkeys(_THREAD_VARIABLES, str(self.threads)),
            "PYTHONPATH": os.pathsep.join(paths),
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }

    def _python(self, name: str) -> Path:
        return self.folder / name / "bin" / "python"
