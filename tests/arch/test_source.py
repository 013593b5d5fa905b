"""What may not stand in the source: ways to run code from data, oversized functions and files, loose ends."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

BANNED_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
BANNED_CALLS = {"eval", "exec", "torch.load", "torch.save", "os.system", "yaml.load", "np.load", "numpy.load"}
MAX_BODY_LINES = 60
MAX_FILE_LINES = 500


def sources(repository: Path) -> list[Path]:
    found = sorted((repository / "src" / "phi4").rglob("*.py"))
    assert len(found) > 40, "the scan must find the package"
    return found


def violations(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of everything in a syntax tree that can run code from data."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (
                (node.lineno, a.name) for a in node.names if a.name.partition(".")[0] in BANNED_MODULES
            )
        elif isinstance(node, ast.ImportFrom):
            if (node.module or "").partition(".")[0] in BANNED_MODULES:
                yield node.lineno, str(node.module)
            yield from (
                (node.lineno, a.name) for a in node.names if f"{node.module}.{a.name}" in BANNED_CALLS
            )
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in BANNED_CALLS:
            yield node.lineno, ast.unparse(node.func)
        elif isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "shell"):
            switched_off = isinstance(node.value, ast.Constant) and node.value.value is False
            yield from [] if switched_off else [(node.value.lineno, f"{node.arg}=")]


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from dill import loads",
        "import torch\ntorch.load('x')",
        "from torch import load",
        "eval('1')",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "run('ls', shell=True)",
    ],
)
def test_scan_finds_what_it_looks_for(code: str) -> None:
    assert list(violations(ast.parse(code)))


def test_scan_leaves_ordinary_code_alone() -> None:
    assert not list(violations(ast.parse("import json\nmodel.eval()\njson.load(f)\nself.exec('x')")))


def test_source_never_runs_code_from_data(repository: Path) -> None:
    found = [
        f"{path.name}:{line} {name}"
        for path in sources(repository)
        for line, name in violations(ast.parse(path.read_text()))
    ]
    assert not found


def test_functions_stay_readable(repository: Path) -> None:
    long = []
    for path in sources(repository):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
                if lines > MAX_BODY_LINES:
                    long.append(f"{path.name}:{node.lineno} {node.name} ({lines} lines)")
    assert not long


def too_long(paths: list[Path]) -> dict[str, int]:
    """Lines of the files that have too many; a name alone would stand for several files."""
    lengths = {str(path): len(path.read_text().splitlines()) for path in paths}
    return {name: lines for name, lines in lengths.items() if lines > MAX_FILE_LINES}


def test_files_stay_readable(repository: Path) -> None:
    assert not too_long(sources(repository))


def test_every_file_of_a_name_is_measured(tmp_path: Path) -> None:
    paths = [tmp_path / "one" / "opening.py", tmp_path / "two" / "opening.py"]
    for path, lines in zip(paths, (MAX_FILE_LINES + 1, 1), strict=True):
        path.parent.mkdir()
        path.write_text("pass\n" * lines)
    assert too_long(paths) == {str(paths[0]): MAX_FILE_LINES + 1}


def test_every_module_says_what_it_is(repository: Path) -> None:
    silent = [str(p) for p in sources(repository) if not ast.get_docstring(ast.parse(p.read_text()))]
    assert not silent


def test_no_vague_file_names(repository: Path) -> None:
    vague = {"utils", "util", "common", "helpers", "helper", "misc", "base"}
    assert not [str(p) for p in sources(repository) if p.stem in vague or p.parent.name in vague]


def test_no_loose_ends(repository: Path) -> None:
    words = ("TO" + "DO", "FIX" + "ME", "XX" + "X:")
    found = [
        f"{path}:{number}"
        for folder in ("src", "tests", "scripts", "benchmarks")
        for path in sorted((repository / folder).rglob("*.py"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if any(word in line for word in words)
    ]
    assert not found
