"""Medians, ratios and tables of known samples; a picture that is well-formed whatever the names are."""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from phi4.bench.picture import draw, drawn_rows
from phi4.bench.report import MACHINE, Report, Row, cells, digits, headings, table

FAST = Row("answer", "answer, 1 row", "tokens/s", True, {"onnx": (30.0, 10.0, 20.0), "torch": (5.0,)})
SLOW = Row("start", "load", "s", False, {"onnx": (0.5,), "torch": (2.0, 1.0)})
LIMIT = Row("limits", "memory read, 1 thread", "GB/s", True, {MACHINE: (40.0, 50.0)})
SHARE = Row("answer", "share", "%", True, {"onnx": (50.0,), "torch": (25.0,)})
REPORT = Report(
    "nano",
    {"processor": "A & B <fast>", "threads": "2 threads on 4 CPUs", "system": "Linux"},
    {"onnx": "cpu, int8", "torch": "cpu, float32"},
    (LIMIT, SLOW, FAST, SHARE),
    ("left out: 'x' < \"y\"",),
)


def test_median_ignores_order_and_outliers() -> None:
    assert FAST.median("onnx") == 20.0 and SLOW.median("torch") == 1.5 and FAST.median("gguf") is None


def test_ratio_is_above_one_where_the_first_is_better() -> None:
    assert FAST.ratio("onnx", "torch") == 4.0 and FAST.ratio("torch", "onnx") == 0.25
    assert SLOW.ratio("onnx", "torch") == 3.0
    assert FAST.ratio("onnx", "gguf") is None
    assert SHARE.ratio("onnx", "torch") is None, "each runner has bytes of its own"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.000"),
        (0.01234, "0.012"),
        (1.234, "1.23"),
        (12.34, "12.3"),
        (123.4, "123"),
        (98765.4, "98,765"),
    ],
)
def test_numbers_have_three_digits_and_no_exponent(value: float, text: str) -> None:
    assert digits(value) == text


def test_cells_show_median_and_range_of_each_runner() -> None:
    both = list(REPORT.runners)
    assert headings(both) == ["", "unit", "onnx", "torch", "onnx / torch"]
    assert cells(FAST, both) == ["answer, 1 row", "tokens/s", "20.0 (10.0 to 30.0)", "5.00", "4.00x"]
    assert cells(LIMIT, both) == ["memory read, 1 thread", "GB/s", "45.0 (40.0 to 50.0)", "", ""]
    assert cells(replace(FAST, samples={"torch": (1.0,)}), both)[2:] == ["-", "1.00", ""]
    assert headings(["onnx"]) == ["", "unit", "onnx"] and len(cells(FAST, ["onnx"])) == 3


def test_table_holds_every_row() -> None:
    stream = io.StringIO()
    Console(file=stream, width=150).print(table(REPORT))
    for row in REPORT.rows:
        assert row.name in stream.getvalue()


def test_json_holds_every_sample_and_what_follows_from_them(tmp_path: Path) -> None:
    REPORT.write(tmp_path / "bench.json")
    found = json.loads((tmp_path / "bench.json").read_text())
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]
    assert found["model"] == "nano" and found["notes"] == list(REPORT.notes)
    rows = {row["name"]: row for row in found["rows"]}
    assert rows["answer, 1 row"]["samples"]["onnx"] == [30.0, 10.0, 20.0]
    assert rows["answer, 1 row"]["median"] == {"onnx": 20.0, "torch": 5.0}
    assert rows["answer, 1 row"]["ratio"] == 4.0
    assert "ratio" not in rows["memory read, 1 thread"]


def picture(report: Report, path: Path) -> ElementTree.Element:
    draw(report, path)
    return ElementTree.fromstring(path.read_bytes())


def texts(root: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in root.iter() if element.tag.endswith("}text")]


def test_picture_is_well_formed_and_says_what_the_report_does(tmp_path: Path) -> None:
    said = texts(picture(REPORT, tmp_path / "bench.svg"))
    assert "phi4 bench: nano" in said and "A & B <fast>, 2 threads on 4 CPUs, Linux" in said
    for row in REPORT.rows:
        assert row.name in said
    assert "from nothing to the first token, s (less is better)" in said
    assert "20.0 tokens/s" in said and REPORT.notes[0] in said


def test_bars_of_one_unit_are_as_long_as_their_medians(tmp_path: Path) -> None:
    root = picture(REPORT, tmp_path / "bench.svg")
    bars = [e for e in root.iter() if e.tag.endswith("}rect") and e.get("x") == "270.0"]
    lengths = [float(bar.get("width", "0")) for bar in bars]
    assert len(bars) == 7  # one of the machine, two of each row of the model
    load, first_load, answer, second_answer = lengths[1], lengths[2], lengths[3], lengths[4]
    assert first_load / load == pytest.approx(1.5 / 0.5, rel=0.01)
    assert answer / second_answer == pytest.approx(4.0, rel=0.01)
    edge = float(root.get("width", "0"))
    assert all(270 + length < edge for length in lengths)


def test_picture_survives_names_that_xml_does_not_allow(tmp_path: Path) -> None:
    odd = replace(REPORT, model="a\x00b\x1b[31m\ud800<&'\">", notes=("\x07" * 3, "long " * 100))
    said = texts(picture(odd, tmp_path / "bench.svg"))
    assert said[0].startswith("phi4 bench: a b [31m <&'\">")
    assert len([line for line in said if line.startswith("long")]) > 1, "long notes are wrapped"


def test_rows_without_samples_are_not_drawn() -> None:
    empty = replace(FAST, name="nobody could", samples={"onnx": ()})
    found = drawn_rows(replace(REPORT, rows=(*REPORT.rows, empty, replace(LIMIT, name="after"))))
    assert [row.name for row in found] == [LIMIT.name, "after", SLOW.name, FAST.name, SHARE.name]
