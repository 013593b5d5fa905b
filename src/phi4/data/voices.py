"""Who speaks: espeak-ng voice variants and dialects, and which of them are held out.

A voice is a dialect plus a variant, with speaking rate and pitch drawn for each utterance. Training
never hears the held-out variants (nor another variant of the same person) nor the held-out dialect.
Left out of both: variants that whisper, croak or imitate machines, since a person could not always make
out the words.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phi4.data.records import Split, listed
from phi4.data.splits import pick

DIALECTS: dict[str, str] = {
    "en-us": "gmw/en-US",
    "en-us-nyc": "gmw/en-US-nyc",
    "en-gb": "gmw/en",
    "en-gb-x-rp": "gmw/en-GB-x-rp",
    "en-gb-scotland": "gmw/en-GB-scotland",
    "en-gb-x-gbcwmd": "gmw/en-GB-x-gbcwmd",
    "en-029": "gmw/en-029",
    "en-gb-x-gbclan": "gmw/en-GB-x-gbclan",
}
"""Dialect name to its file below `espeak-ng-data/lang`."""

HELD_OUT_DIALECT = "en-gb-x-gbclan"
HELD_OUT_VARIANTS = ("Andy", "Alicia", "f4", "m5", "steph", "linda", "grandma", "pablo")
TRAIN_VARIANTS = listed(
    "Alex Andrea Annie Denis Diogo Gene Henrique Hugo Jacky Lee Marco Mario Michael Mike RicishayMax "
    "Storm Tweaky adam anika announcer antonio aunty belinda benjamin boris david ed edward f1 f2 "
    "f3 f5 grandpa gustave iven iven4 john kaukovalta klatt klatt2 klatt4 m1 m2 m3 m4 m6 "
    "m7 m8 marcelo max michel miguel norbert paul pedro quincy rob robert sandro shelby travis "
    "victor zac"
)


@dataclass(frozen=True)
class Voice:
    """One way of speaking.

    Attributes:
        dialect: A key of `DIALECTS`.
        variant: File name below `voices/!v`.
        rate_wpm: Words per minute, 80 to 450; people speak at 130 to 200.
        pitch: 0 to 99, 50 is the variant's own.
    """

    dialect: str
    variant: str
    rate_wpm: int = 165
    pitch: int = 50

    @property
    def name(self) -> str:
        """The name espeak-ng knows it by, such as "en-us+f3"."""
        return f"{self.dialect}+{self.variant}"


def variants(split: Split) -> tuple[str, ...]:
    """Returns the voice variants a split may use; "examples" uses held-out ones as "test" does."""
    return TRAIN_VARIANTS if split == "train" else HELD_OUT_VARIANTS


def dialects(split: Split) -> tuple[str, ...]:
    """Returns the dialects a split may use: all but the held-out one for training, all otherwise."""
    return tuple(d for d in DIALECTS if split != "train" or d != HELD_OUT_DIALECT)


def draw_voice(rng: np.random.Generator, split: Split) -> Voice:
    """Draws a voice: dialect, variant, 130 to 200 words a minute, pitch 30 to 70."""
    return Voice(
        pick(rng, dialects(split)),
        pick(rng, variants(split)),
        int(rng.integers(130, 201)),
        int(rng.integers(30, 71)),
    )
