"""Typed twins of the tasks with media: a chart as lines of words, a spoken question as a typed one.

The decoder learns on them what it has to do with a chart or a question, at a fraction of the price of
doing so through an encoder; with media only the eyes and ears are left to learn. Content is held out
as in the tasks they are twins of.
"""

from __future__ import annotations

from phi4.data.records import Record, Split, assistant, stream, user
from phi4.data.splits import draw
from phi4.data.world.charts import Chart, conversation, draw_chart, most_bars
from phi4.data.world.spoken import draw_question


def table_lines(chart: Chart) -> tuple[str, ...]:
    """Returns a chart as words, in the order in which a picture of it is read: label, value, colour."""
    bars = zip(chart.labels, chart.values, chart.colours, strict=True)
    return tuple(f"{label} {value} {colour}" for label, value, colour in bars)


def table_qa(split: Split, seed: int, index: int, difficulty: float = 1.0) -> Record:
    """A chart as lines of words and a question about it. In training, eight questions."""
    rng = stream("table_qa", split, seed, index)
    most = most_bars(difficulty)
    chart = draw(rng, split, "chart", lambda r: draw_chart(r, most), lambda c: c.key)
    kind, prompt, answer = conversation(chart, rng, split, 8, ("\n".join((*table_lines(chart), "")),))
    facts = {"kind": kind} | chart.facts
    return Record("table_qa", split, index, prompt, assistant(answer), (answer,), metadata=facts)


def number_qa(split: Split, seed: int, index: int, difficulty: float = 1.0) -> Record:
    """A question of `speech_qa` in typed words."""
    rng = stream("number_qa", split, seed, index)
    numbers, spoken, answer = draw_question(rng, split)
    facts = {"numbers": numbers}
    return Record("number_qa", split, index, (user(spoken),), assistant(answer), (answer,), metadata=facts)
