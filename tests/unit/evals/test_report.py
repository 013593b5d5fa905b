"""A report says in JSON, table, Markdown and picture what was measured."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from phi4.evals.extras import Extra
from phi4.evals.picture import draw
from phi4.evals.report import Report, cells, markdown, table, verdict
from phi4.evals.run import Settings, evaluate


@pytest.fixture
def report(senser, both_task, text_task) -> Report:
    return Report("tiny", tuple(evaluate(senser, [both_task, text_task], Settings(n=12))), "torch on cpu")


def test_json_holds_rows_intervals_controls_and_answers(report: Report, tmp_path: Path) -> None:
    report.write(tmp_path / "deep" / "report.json")
    read = json.loads((tmp_path / "deep" / "report.json").read_text())
    row = read["rows"][0]
    assert (row["task"], row["n"], row["score"]["value"], row["needs_its_media"]) == ("both", 12, 1.0, True)
    assert 0.7 < row["score"]["low"] < 1.0
    assert [c["name"] for c in row["controls"]][:2] == ["blind (image)", "blind (audio)"]
    assert row["answers"][0]["given"] == row["answers"][0]["expected"]
    assert read["rows"][1]["needs_its_media"] is None
    assert not list(tmp_path.glob("**/*.part"))


def test_table_shows_every_task_and_control(report: Report) -> None:
    out = io.StringIO()
    Console(file=out, width=140).print(table(report))
    shown = out.getvalue()
    for word in ("both", "text", "blind (image)", "wrong audio", "adapter off", "100.0%", "+100.0"):
        assert word in shown


def test_page_has_a_line_a_task_with_the_controls_of_each_medium_side_by_side(report: Report) -> None:
    lines = markdown(report).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + 2
    assert all(line.count("|") == table[0].count("|") for line in table)
    both = [cell.strip() for cell in table[2].split("|")[1:-1]]
    assert both[0].startswith("both: ") and both[4] == "0.0% image / 0.0% audio"
    assert both[5].startswith("+100.0 (") and both[6].startswith("0.0% image / ") and both[7] == "0.0%"
    assert [cell.strip() for cell in table[3].split("|")[5:-1]] == [""] * 4  # a text task has no controls
    assert lines[-1] == verdict(report)


def test_page_line_of_one_medium_names_no_medium(senser, colour_task) -> None:
    page = markdown(Report("tiny", tuple(evaluate(senser, [colour_task], Settings(n=8)))))
    (line,) = [line for line in page.splitlines() if line.startswith("| colour")]
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    assert cells[3:5] == ["90.0%", "0.0%"] and cells[6:] == ["0.0%", "0.0%"]
    assert cells[5].startswith("+100.0 (")


def test_extras_stand_below_their_task_with_score_interval_and_n(senser, text_task, colour_task) -> None:
    extra = Extra("red ones", "pictures that are red", lambda sample: sample.expected.text == "red")
    tasks = [replace(colour_task, extras=(extra,)), text_task]
    made = Report("tiny", tuple(evaluate(senser, tasks, Settings(n=8))))
    (in_json,) = made.to_json()["rows"][0]["extras"]
    assert (in_json["name"], in_json["n"], in_json["score"]["value"]) == ("red ones", 2, 1.0)
    assert made.to_json()["rows"][1]["extras"] == ()

    lines = cells(made)
    assert [line[0] for line in lines if line[0]] == ["colour", "  red ones", "text"]
    (line,) = [line for line in lines if line[0] == "  red ones"]
    assert line[1:] == ("2", "100.0% (34.2 to 100.0)", "", "", "", "", "")

    page = [line for line in markdown(made).splitlines() if line.startswith("| ")]
    found = [cell.strip() for cell in page[3].split("|")[1:-1]]
    assert found == ["- red ones: pictures that are red", "2", "100.0% (34.2 to 100.0)", *[""] * 5]
    assert page[4].startswith("| text: ")
    assert "All 1 media tasks" in verdict(made)


def test_verdict_names_the_tasks_that_fail(report: Report, guesser, colour_task) -> None:
    assert "All 1 media tasks" in verdict(report)
    guessed = Report("tiny", tuple(evaluate(guesser, [colour_task], Settings(n=12))))
    assert verdict(guessed).endswith("excluding zero: colour.")


def test_picture_is_drawn(report: Report, tmp_path: Path) -> None:
    draw(report, tmp_path / "report.png")
    with Image.open(tmp_path / "report.png") as picture:
        assert picture.width > 800
        assert (
            len(picture.convert("RGB").getcolors(1 << 24)) > 50
        )  # bars, intervals and letters, not a blank page
