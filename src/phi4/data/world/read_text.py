"""Pictures with text to read: words, words with numbers, invented words, letters, numbers.

The answer is the exact text; lines are joined by one space. Random letters are never of a kind that a
face may draw alike (O and 0, l and 1 and I) and never only such whose case cannot be told from their
shape, so that the picture alone always decides.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from phi4.data.fonts import faces
from phi4.data.records import Record, Split, assistant, listed, stream, user
from phi4.data.render import NOISE, text_picture
from phi4.data.splits import draw, pick
from phi4.data.world.words import CONTENT_WORDS
from phi4.types import ImagePart, TextPart

QUESTIONS = (
    "What does it say?",
    "Read the text in the image.",
    "What is written here?",
    "Read this.",
    "What text is in the picture?",
    "Which words do you see?",
    "Read the sign.",
    "What does the picture say?",
    "Type out the text.",
    "What is the text?",
)
HELD_OUT_QUESTIONS = (
    "What does the sign say?",
    "Please read the text.",
    "Read what is written in the picture.",
)
CASELESS = "abdefghijmnqrt"
"""Lower-case letters whose shape differs from their capital's."""
CLEAR_LETTERS = "abcdefghijkmnpqrstuvwxyz"
CLEAR_CAPITALS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
LABELS = (
    "Room",
    "Gate",
    "Exit",
    "Platform",
    "Seat",
    "Bus",
    "Flight",
    "Page",
    "Box",
    "Floor",
    "Code",
    "Track",
)
ONSETS = listed("b d f g h k m n p r s t v z bl br dr fl gr pl st tr sh ch")
VOWELS = listed("a e i o u ai ee oo")
CODAS = (*listed("b d g k m n p r s t nd st rk mp"), "")


READABLE_WORDS = tuple(word for word in CONTENT_WORDS if set(word) & set(CASELESS))
"""Words whose case can be seen: "cow" in capitals looks like "cow" in small letters."""


def questions(split: Split) -> tuple[str, ...]:
    """Returns the questions a split may ask; the held-out ones are half of those outside training."""
    return QUESTIONS if split == "train" else QUESTIONS[:3] + HELD_OUT_QUESTIONS


def read_text(split: Split, seed: int, index: int, difficulty: float = 1.0) -> Record:
    """A picture of text with a typed question; the answer is the text.

    Args:
        split: Which content and fonts may be used.
        seed: Seed of the whole data set.
        index: Position in it.
        difficulty: 0 gives at most five characters with little noise, 1 the full mixture.
    """
    rng = stream("read_text", split, seed, index)
    kind, text = draw(rng, split, "read_text", lambda r: _content(r, difficulty), lambda made: made[1])
    face = pick(rng, faces(split))
    picture, made = text_picture(text, face, rng, noise=NOISE[split] * (0.3 + 0.7 * difficulty))
    prompt = user(ImagePart(picture), TextPart(pick(rng, questions(split))))
    facts: dict[str, Any] = {"kind": kind, "texts": [text]} | made
    return Record("read_text", split, index, (prompt,), assistant(text), (text,), metadata=facts)


def _content(rng: np.random.Generator, difficulty: float) -> tuple[str, str]:
    kind = pick(rng, ("words", "words", "words", "mixed", "mixed", "invented", "letters", "number"))
    text = {
        "words": lambda: words(rng, 1 + int(rng.integers(0, 1 + round(4 * difficulty)))),
        "mixed": lambda: mixed(rng),
        "invented": lambda: invented(rng),
        "letters": lambda: letters(rng, 2 + int(rng.integers(0, 2 + round(5 * difficulty)))),
        "number": lambda: number(rng, 1 + round(7 * difficulty)),
    }[kind]()
    if len(text) > 5 + 45 * difficulty:
        return "letters", letters(rng, int(rng.integers(2, 5)))
    return kind, text


def words(rng: np.random.Generator, count: int) -> str:
    """Returns words in one of the usual ways of writing them: small, Title, CAPITALS, Sentence."""
    text = " ".join(pick(rng, READABLE_WORDS) for _ in range(count))
    return pick(rng, (str.lower, str.lower, str.title, str.upper, str.capitalize))(text)


def mixed(rng: np.random.Generator) -> str:
    """Returns words beside a number, as signs have them."""
    form = int(rng.integers(5))
    if form == 0:
        return f"{pick(rng, LABELS)} {int(rng.integers(1, 1000))}"
    if form == 1:
        return f"{words(rng, 1)} {int(rng.integers(1, 10000))}"
    if form == 2:
        return f"{words(rng, 1)} {int(rng.integers(1, 24))}:{int(rng.integers(0, 60)):02d}"
    if form == 3:
        return f"{words(rng, 2)} {int(rng.integers(1, 100))}"
    return f"{words(rng, 1)} ${int(rng.integers(1, 100))}.{int(rng.integers(0, 100)):02d}"


def invented(rng: np.random.Generator) -> str:
    """Returns a word that exists nowhere, so that it has to be read letter by letter."""
    syllables = int(rng.integers(2, 4))
    text = "".join(pick(rng, ONSETS) + pick(rng, VOWELS) for _ in range(syllables)) + pick(rng, CODAS)
    return pick(rng, (str.lower, str.title, str.upper))(text)


def letters(rng: np.random.Generator, count: int) -> str:
    """Returns random letters, all small or all capital, at least one of them of a clear case."""
    small = bool(rng.random() < 0.5)
    alphabet = CLEAR_LETTERS if small else CLEAR_CAPITALS
    sure = CASELESS if small else CASELESS.upper().replace("I", "")
    chosen = [alphabet[int(i)] for i in rng.integers(0, len(alphabet), count)]
    chosen[int(rng.integers(count))] = sure[int(rng.integers(len(sure)))]
    return "".join(chosen)


def number(rng: np.random.Generator, digits: int) -> str:
    """Returns a whole number of at most `digits` digits, each length equally likely."""
    length = int(rng.integers(1, digits + 1))
    return str(int(rng.integers(10 ** (length - 1), 10**length)))
