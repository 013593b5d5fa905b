"""`--force`: a package is written beside the one that it replaces, which stays until the new one is whole.

fresh = beside(folder)
...                               # export into it
replace_package(folder, fresh)
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, get_args

from phi4.errors import InvalidArtifact, InvalidRequest
from phi4.onnx.build.genai import CONFIG_NAME, GRAPH_NAME, TOKENIZER_CONFIG_NAME
from phi4.onnx.build.unfinished import STATE_NAME, TOKENIZER_FILES, Unfinished, graph_files
from phi4.onnx.package.description import DESCRIPTION_NAME
from phi4.onnx.package.parts import decoder_forms, graph_names, plain_form
from phi4.types import Modality

_GRAPHS = graph_names(get_args(Modality), prefill=True)
_FILES = {
    *(file for graph in _GRAPHS for file in graph_files(graph)),
    *(f"{plain_form(graph)}.onnx" for graph in decoder_forms(prefill=True)),
    *(GRAPH_NAME, CONFIG_NAME, TOKENIZER_CONFIG_NAME, *TOKENIZER_FILES),
    *("config.json", "manifest.json", DESCRIPTION_NAME, STATE_NAME),
}
"""All that any export writes; `.part` comes after the name, or in place of `.onnx`."""


def check_replaceable(folder: Path) -> None:
    """Refuse to replace what is no package, or holds more than one does.

    Raises:
        InvalidRequest: As said; names what is in the way.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not folder.is_dir():
        raise InvalidRequest(f"{folder}: is a file; delete it or choose another folder")
    known = _FILES | {Path(name).stem for name in _FILES}
    strange = sorted(p.name for p in folder.iterdir() if p.name.removesuffix(".part") not in known)
    if strange or not any((folder / name).is_file() for name in (DESCRIPTION_NAME, STATE_NAME)):
        what = f"holds {strange[0]!r}, which no export writes" if strange else "holds no package"
        raise InvalidRequest(
            f"{folder}: {what}, and --force replaces packages alone; move it away or choose another folder"
        )


def beside(folder: Path) -> Path:
    """Where the new package is written: a hidden folder on the same disk."""
    folder = folder.resolve()
    return folder.with_name(f".{folder.name}.new")


def begin_beside(fresh: Path, identity: dict[str, Any]) -> Unfinished:
    """Go on with what a stopped `--force` left there, when it is the same; else begin anew."""
    try:
        state = Unfinished.begin(fresh, identity)
    except (InvalidRequest, InvalidArtifact):
        state = None
    if state is not None and not state.whole:
        return state
    shutil.rmtree(fresh, ignore_errors=True)
    return Unfinished.begin(fresh, identity)


def replace_package(folder: Path, fresh: Path) -> None:
    """Put a new package in the place of an old one, which is deleted when that is done."""
    folder = folder.resolve()
    former = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(former, ignore_errors=True)
    if folder.exists():
        folder.rename(former)
    fresh.rename(folder)
    shutil.rmtree(former, ignore_errors=True)
