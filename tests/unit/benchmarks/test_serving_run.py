"""The server's benchmark on the real server and the real nano, tiny: the shape of results, no times."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import pytest
from harness.environments import Environments
from harness.records import CellResult, Store
from load.bars import BARS, judged
from load.bench import Bench
from load.cells import Cell, all_cells, done
from load.models import NANO, Served, Sizes
from load.report import write_report
from serving import KINDS

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="processes are found in /proc"),
    pytest.mark.skipif(importlib.util.find_spec("uvicorn") is None, reason="needs the extra serve"),
]
TINY = Sizes(
    prompt=16,
    answer=8,
    rounds={1: 1, 2: 2, 8: 1},
    steady_answer=32,
    rows=2,
    turns=1,
    overload_turns=1,
    window_s=0.5,
    overload=2,
)
CELLS = {cell.kind: cell for cell in all_cells([Served(NANO, NANO, TINY)], 0.02)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("serving")


def measured(folder: Path, kind: str) -> CellResult:
    """The cell of a kind, measured for real and kept."""
    cell = dataclasses.replace(CELLS[kind], turns=1)
    result = Bench(Environments(folder / "peers", 1), folder, "test", KINDS).measure(cell)
    Store(folder).write(result)
    return result


def told(result: CellResult, label: str) -> dict[str, Any]:
    series = result[label]
    assert len(series.samples) == len(series.replies) == 1, (series.error, result.skipped)
    return series.replies[0]


def test_users_are_answered_and_counted(folder: Path) -> None:
    result = measured(folder, "users")
    reply = told(result, "2 users")
    assert reply["outcomes"] == {"whole": 4} and reply["requests"] == 4
    assert reply["tokens"] == 4 * TINY.answer and reply["prompt_tokens"] == 4 * TINY.prompt
    assert 0 < reply["pieces"] <= reply["tokens"]
    assert 0 < reply["first_token_p50_ms"] <= reply["first_token_p99_ms"]
    assert {"server", "engine", "preparer", "client"} == reply["cpu_s"].keys()
    assert "--no-speculation" in result["2 users"].facts["command"]
    assert set(told(result, "1 user")) == set(reply)


def test_rows_are_written_together(folder: Path) -> None:
    reply = told(measured(folder, "rows"), "2 rows")
    assert reply["tokens"] == 2 * TINY.steady_answer and reply["steady_tokens_per_s"] > 0


def test_engine_alone_writes_as_many_tokens_as_the_server(folder: Path) -> None:
    result = measured(folder, "engine")
    over_http, in_process = told(result, "over HTTP"), told(result, "in process")
    assert over_http["tokens"] == in_process["tokens"] > 8 * TINY.answer // 2
    assert over_http["steps"] > 0 and in_process["steps"] > 0


def test_overload_accounts_for_every_request(folder: Path) -> None:
    result = measured(folder, "overload")
    for label in ("1x", "2x"):
        reply = told(result, label)
        assert sum(reply["outcomes"].values()) == reply["requests"] > 0 and not reply["lost"]
    assert told(result, "2x")["offered_per_s"] == 2 * told(result, "1x")["offered_per_s"]


def test_soak_of_a_second_leaves_nothing_behind(folder: Path) -> None:
    result = measured(folder, "soak")
    reply = told(result, "memory")
    assert {"server", "engine", "preparer"} <= reply["resident_MB"].keys() and reply["early_MB"] > 50
    assert sum(reply["outcomes"].values()) > 0 and len(reply["canary_answers"]) == 1
    odd = next(bar for bar in BARS if bar.what.startswith("unexpected"))
    assert judged(odd, result)[1] == "met", reply["outcomes"]


def test_peer_that_is_not_installed_is_left_out_with_the_reason(folder: Path) -> None:
    assert "make bench-peers" in measured(folder, "llamacpp").skipped


def test_kept_results_are_done_and_make_a_report(folder: Path) -> None:
    store = Store(folder)
    kinds = [name for name in CELLS if store.read(CELLS[name].name) is not None]
    assert kinds, "this one comes after the others"
    for name in kinds:
        cell: Cell = dataclasses.replace(CELLS[name], turns=1)
        kept = store.read(cell.name)
        assert kept is not None and done(cell, kept) == (not kept.skipped)
    assert [path.name for path in write_report(store, {**kept.machine})][:2] == ["table.md", "serving.json"]
