"""Plain documents for pre-training: the language, numbers and habits of the small world.

Sentences as print has them, lists to copy, spelled words, counting, number words, sums, facts about
the world and short dialogues; tables with questions and questions about numbers, in the words of the
tasks with pictures and recordings. No media, no control tokens.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from phi4.data.records import Record, Split, assistant, stream
from phi4.data.splits import draw, pick
from phi4.data.world import read_text
from phi4.data.world.charts import ask, draw_chart
from phi4.data.world.numbers import number_words
from phi4.data.world.sentences import salad, sentence
from phi4.data.world.spoken import draw_question
from phi4.data.world.sums import pair_key
from phi4.data.world.typed import table_lines
from phi4.data.world.words import CONTENT_WORDS, POOLS
from phi4.verify.sums import worked_lines

_KINDS_OF = {
    "animal": "animal",
    "food": "food",
    "colour": "colour",
    "place": "place",
    "day": "day of the week",
    "month": "month",
    "season": "season",
    "vehicle": "vehicle",
}


def text(split: Split, seed: int, index: int, difficulty: float = 1.0) -> Record:
    """A plain document of 5 to 80 words for next-token training; `record.document` holds it.

    Args:
        split: Which content may be used.
        seed: Seed of the whole data set.
        index: Position in it.
        difficulty: At 0 there is nothing but lists said again and pairs to look up, at 1 every kind equally.
    """
    rng = stream("text", split, seed, index)
    kinds = _KINDS if rng.random() < difficulty else _REPEATING
    kind, make = pick(rng, tuple(kinds.items()))
    document = draw(rng, split, "document", lambda r: make(r, split))
    return Record("text", split, index, (), assistant(document), (document,), metadata={"kind": kind})


def printed(plain: str) -> str:
    """Returns a lower-case sentence as print has it: capitals for names and days, a full stop."""
    proper = {w for kind in ("name", "day", "month") for w in POOLS[kind]} | {"i"}
    words = [w.capitalize() if w in proper else w for w in plain.split()]
    asks = words[0] in {"did", "where", "how", "can", "who", "what", "when", "is"}
    first = words[0][0].upper() + words[0][1:]
    return " ".join([first, *words[1:]]) + ("?" if asks else ".")


def _story(rng: np.random.Generator, split: Split) -> str:
    return " ".join(printed(sentence(rng, split)[0]) for _ in range(int(rng.integers(2, 6))))


def _plain(rng: np.random.Generator, split: Split) -> str:
    """Transcripts as the speech tasks write them."""
    return "\n".join(
        sentence(rng, split)[0] if rng.random() < 0.5 else salad(rng, split)
        for _ in range(int(rng.integers(1, 4)))
    )


def _spelling(rng: np.random.Generator, split: Split) -> str:
    word = pick(rng, CONTENT_WORDS) if rng.random() < 0.6 else read_text.letters(rng, int(rng.integers(3, 8)))
    return pick(rng, ("{0} is spelled {1}.", "{1} spells {0}.", "{0}: {1}")).format(word, " ".join(word))


def _copying(rng: np.random.Generator, split: Split) -> str:
    """The habit that reading, commands and sums all rest on: say again what stands before."""
    items = [
        pick(rng, CONTENT_WORDS) if rng.random() < 0.6 else read_text.number(rng, 4)
        for _ in range(int(rng.integers(3, 9)))
    ]
    line = " ".join(items)
    return pick(
        rng, ("{0}\nagain: {0}", "Say: {0}\n{0}", 'He said "{0}" and she said "{0}".', "{0}\n{0}")
    ).format(line)


def _pairs(rng: np.random.Generator, split: Split) -> str:
    """Names with something beside each, three times in another order: what stood beside it before?"""
    names = [CONTENT_WORDS[int(i)] for i in rng.choice(len(CONTENT_WORDS), int(rng.integers(2, 6)), False)]
    lines = [
        f"{name} {read_text.number(rng, 3) if rng.random() < 0.6 else pick(rng, CONTENT_WORDS)}"
        for name in names
    ]
    return "\n".join(lines[int(i)] for _ in range(3) for i in rng.permutation(len(lines)))


def _backwards(rng: np.random.Generator, split: Split) -> str:
    items = [pick(rng, CONTENT_WORDS) for _ in range(int(rng.integers(3, 7)))]
    return f"{' '.join(items)}\nbackwards: {' '.join(reversed(items))}"


def _counting(rng: np.random.Generator, split: Split) -> str:
    start, step = int(rng.integers(0, 900)), int(rng.integers(1, 11))
    return " ".join(str(start + step * i) for i in range(int(rng.integers(4, 10))))


def _number_words(rng: np.random.Generator, split: Split) -> str:
    lines = []
    for _ in range(int(rng.integers(2, 6))):
        # Names below a hundred are vocabulary, the longer ones are made of them and are held out.
        n = int(rng.integers(100))
        if rng.random() < 0.6:
            n = draw(rng, split, "number", lambda r: int(r.integers(100, 1000)))
        lines.append(pick(rng, ("{0} is {1}", "{1} is {0}", "{0} = {1}")).format(n, number_words(n)))
    return "\n".join(lines)


def _digit_facts(rng: np.random.Generator, split: Split) -> str:
    lines = []
    for _ in range(int(rng.integers(3, 8))):
        a, b, c = int(rng.integers(0, 10)), int(rng.integers(0, 10)), int(rng.integers(0, 2))
        low, high = sorted((a, b))
        lines.append(
            f"{a} + {b} + {c} = {a + b + c}"
            if rng.random() < 0.5
            else f"{high + 10} - {low} - {c} = {high + 10 - low - c}"
        )
    return "\n".join(lines)


def _worked(rng: np.random.Generator, split: Split) -> str:
    """A worked sum, of operands that belong to this split."""
    top = int(pick(rng, (10, 100, 1000)))

    def make(rng: np.random.Generator) -> tuple[int, int]:
        return int(rng.integers(top)), int(rng.integers(1000))

    a, b = draw(rng, split, "sum", make, pair_key)
    return "\n".join(worked_lines(a, "+" if rng.random() < 0.5 else "-", b))


def _comparing(rng: np.random.Generator, split: Split) -> str:
    lines = []
    for _ in range(int(rng.integers(2, 5))):
        a, b = (int(n) for n in rng.choice(1000, 2, replace=False))
        lines.append(f"{a} is {'larger' if a > b else 'smaller'} than {b}.")
    return " ".join(lines)


def _facts(rng: np.random.Generator, split: Split) -> str:
    lines = []
    for _ in range(int(rng.integers(2, 5))):
        kind = pick(rng, tuple(_KINDS_OF))
        word = pick(rng, POOLS[kind])
        lines.append(printed(f"{word} is {'an' if kind == 'animal' else 'a'} {_KINDS_OF[kind]}"))
    return " ".join(lines)


def _table(rng: np.random.Generator, split: Split) -> str:
    """A chart as words and questions about it; charts belong to a split."""
    chart = draw(rng, split, "chart", draw_chart, lambda c: c.key)
    lines = [*table_lines(chart)]
    for _ in range(int(rng.integers(1, 4))):
        _, question, answer = ask(chart, rng, split)
        said = question if rng.random() < 0.5 else question.lower().rstrip("?")
        lines += [said, answer]
    return "\n".join(lines)


def _asked(rng: np.random.Generator, split: Split) -> str:
    """Questions about numbers in the words of `speech_qa`, of numbers that belong to this split."""
    asked = (draw_question(rng, split) for _ in range(int(rng.integers(1, 5))))
    return "\n".join(f"{spoken}\n{answer}" for _, spoken, answer in asked)


def _dialogue(rng: np.random.Generator, split: Split) -> str:
    first, second = (
        POOLS["name"][int(i)].capitalize() for i in rng.choice(len(POOLS["name"]), 2, replace=False)
    )
    colour, thing, place = pick(rng, POOLS["colour"]), pick(rng, POOLS["thing"]), pick(rng, POOLS["place"])
    return "\n".join(
        (
            f"{first}: {pick(rng, ('Hello', 'Good morning', 'Hi'))} {second}. Where is my {colour} {thing}?",
            f"{second}: Your {colour} {thing} is in the {place}.",
            f"{first}: {pick(rng, ('Thank you', 'Thanks', 'Good'))}. I will go to the {place}.",
        )
    )


_KINDS: dict[str, Callable[[np.random.Generator, Split], str]] = {
    "story": _story,
    "plain": _plain,
    "spelling": _spelling,
    "copying": _copying,
    "copying more": _copying,
    "pairs": _pairs,
    "backwards": _backwards,
    "counting": _counting,
    "number words": _number_words,
    "digit facts": _digit_facts,
    "worked": _worked,
    "comparing": _comparing,
    "facts": _facts,
    "table": _table,
    "more tables": _table,
    "asked": _asked,
    "dialogue": _dialogue,
}
_REPEATING = {kind: _KINDS[kind] for kind in ("copying", "copying more", "pairs")}
