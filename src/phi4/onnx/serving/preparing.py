"""Preparing a package for this machine: graph by graph into the user's cache, never into the package.

    prepare(package, progress)
    remove_prepared(package.path)

A preparation is written under another name, and renamed when it is whole and has computed the same as the
package itself. One process at a time writes, so what stands under such a name otherwise is what a killed one
left, and goes.
"""

from __future__ import annotations

import gc
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import onnxruntime

from phi4.checkpoint.manifest import read_manifest, write_manifest
from phi4.checkpoint.room import check_room
from phi4.errors import InvalidArtifact, InvalidRequest, Phi4Error
from phi4.onnx.package import OnnxPackage
from phi4.onnx.package.external_data import packed_offsets
from phi4.onnx.package.parts import plain_form
from phi4.onnx.package.verified import VARIABLE, VerifiedFiles, cache_folder
from phi4.onnx.serving.comparing import computed
from phi4.onnx.serving.prepared import FOLDER, Preparation, basis_of, read_preparation, write_record
from phi4.onnx.serving.session import choose_session, store_session

if sys.platform != "win32":
    import fcntl

Told = Callable[[str, int, int], None]
"""Told how far a graph is: (its name, bytes written, bytes there will be)."""
GROWTH = 2.5
"""Most bytes a prepared graph takes for a byte of its weights: both forms, the second with a sum for each
block, half as much again where 16 weights of 4 bits share a scale."""
ALIGNMENT = 64
"""Kernels lay arranged weights out by the place of their memory, which is a multiple of this otherwise.
ONNX Runtime stores large weights at whole pages but small ones right behind each other, and maps them as they
lie: of nano, whose vision tower has some at odd places, features were 16,844 off."""
_PART, _LOCK = ".part", "lock"
_LOOK_S = 0.2

_log = logging.getLogger(__name__)


def prepare(package: OnnxPackage, told: Told) -> Preparation:
    """Store the graphs of a package as this machine computes them.

    What is there for the same package, ONNX Runtime and processor is replaced; what was made of the same
    folder for this processor from other files, or for another ONNX Runtime, is removed afterwards.

    Args:
        package: Opened with everything that is going to be used.
        told: Told about the progress of every graph.

    Raises:
        InvalidRequest: No room, no place for it, or another process is preparing.
        InvalidArtifact: ONNX Runtime cannot run a graph.
        OutOfMemory: The weights of a graph do not fit.
        Phi4Error: What was stored does not compute the same.
    """
    with _alone() as home:
        for left in home.glob(f"*{_PART}"):
            shutil.rmtree(left)
        sizes = _sizes(package)
        check_room(home, sum(sizes.values()), "preparing the package")
        basis = basis_of(package.path)
        part, folder = home / f"{basis.key}{_PART}", home / basis.key
        part.mkdir()
        try:
            for name, size in sizes.items():
                _store(package.graph(name), part, size, partial(told, name))
            write_record(part, package.path, basis)
            write_manifest(part)
            _check_same(package, read_preparation(part))
            shutil.rmtree(folder, ignore_errors=True)
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        _remember(folder)
        found = read_preparation(folder)
        for other in _made_of(home, package.path):
            if other.folder != folder and other.basis.processor == basis.processor:
                shutil.rmtree(other.folder)
        return found


def remove_prepared(package: Path) -> list[Path]:
    """Remove everything that was prepared of a package, for whatever ONNX Runtime and processor.

    Args:
        package: Its folder.

    Returns:
        The folders that are gone.

    Raises:
        InvalidArtifact: The package's manifest is missing or broken.
        InvalidRequest: There is no place for preparations, or another process is preparing.
    """
    with _alone() as home:
        fitting = home / basis_of(package).key  # also of a copy of this package, or broken
        found = {each.folder for each in _made_of(home, package)} | ({fitting} if fitting.is_dir() else set())
        for folder in found:
            shutil.rmtree(folder)
    return sorted(found)


def _sizes(package: OnnxPackage) -> dict[str, int]:
    """Graphs that are opened where the user gives no adapter, and the most bytes each may take."""
    return {
        plain_form(name) if name in package.plain_graphs else name: int(GROWTH * package.loaded_bytes(name))
        for name in package.graphs
    }


def _store(graph: Path, folder: Path, size: int, told: Callable[[int, int], None]) -> None:
    """Store one graph; ONNX Runtime tells nothing on the way, so the growing file does."""
    target = folder / graph.name
    data = target.with_name(f"{target.name}.data")
    with ThreadPoolExecutor(1) as pool:
        storing = pool.submit(store_session, graph, target)
        while not wait([storing], timeout=_LOOK_S).done:
            told(min(size, data.stat().st_size if data.is_file() else 0), size)
        storing.result()
    written = [path for path in (target, data) if path.is_file()]
    size = sum(path.stat().st_size for path in written)
    if any(offset % ALIGNMENT for offset in packed_offsets(target.read_bytes())):
        _log.info("%s is left out: its weights would not lie in memory as kernels expect", graph)
        for path in written:
            path.unlink()
    else:
        for path in written:
            with path.open("rb") as file:
                os.fsync(file.fileno())  # digests are remembered: nobody reads it to compare after a crash
    told(size, size)


def _check_same(package: OnnxPackage, found: Preparation) -> None:
    """Compute with the package and with what was prepared of it, one after the other.

    Raises:
        Phi4Error: The results differ.
    """
    choice = choose_session()
    expected = computed(package, choice)
    gc.collect()  # a runner refers to itself, and two at once might not fit
    if computed(package, replace(choice, prepared=found)) != expected:
        raise Phi4Error(
            f"{package.path}: as ONNX Runtime {onnxruntime.__version__} stores its graphs here they compute "
            "something else, so nothing is kept; they are opened as ever"
        )


def _remember(folder: Path) -> None:
    """Keep in mind that the files are as they were written, so that opening does not read them for that."""
    verified = VerifiedFiles(cache_folder())
    for name, stated in read_manifest(folder).items():
        verified.remember(folder / name, stated.sha256)


def _made_of(home: Path, package: Path) -> Iterator[Preparation]:
    """Preparations of a package's folder."""
    for folder in sorted(home.iterdir()):
        try:
            found = read_preparation(folder) if folder.is_dir() else None
        except InvalidArtifact:
            continue
        if found is not None and found.package == package.resolve():
            yield found


@contextmanager
def _alone() -> Iterator[Path]:
    """The folder of all preparations, of which no other process writes meanwhile.

    Raises:
        InvalidRequest: There is no place for it, or another process writes.
    """
    cache = cache_folder()
    if cache is None:
        raise InvalidRequest(f"no home folder to keep prepared graphs in; set {VARIABLE} to a folder")
    home = cache / FOLDER
    home.mkdir(parents=True, exist_ok=True)
    with (home / _LOCK).open("a") as file:
        if sys.platform != "win32":
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise InvalidRequest(f"{home}: another phi4 prepare is at work; wait until it ends") from None
        yield home
