"""Sentences of the small world: templates with slots, and salad.

A slot is a pool's name in braces; "{animal2}" draws from the pool "animal" again. Templates are
parted too: those whose number divides by `HELD_OUT_EVERY` occur in "test" and "examples" only.
"""

from __future__ import annotations

import re

import numpy as np

from phi4.data.records import Split
from phi4.data.splits import draw, pick
from phi4.data.world.words import POOLS, SALAD_WORDS

HELD_OUT_EVERY = 12

TEMPLATES: tuple[str, ...] = tuple(
    """
the {adjective} {animal} is {relation} the {thing}
the {person} {acted} the {adjective} {thing}
{name} {acted} a {colour} {thing} in the {place}
my {person} {does} in the {place} every {day}
please bring the {food} and the {food2} to the {place}
there are {number} {colour} boxes {relation} the {place}
the {weather} came from the {place} last {season}
{name} and {name2} will meet at the {place} on {day}
did the {person} find the {colour} {thing}
where is the {adjective} {thing}
the {animal} {acted} the {food} very {adverb}
i would like some {food} with {food2}
we have {number} cups of {food} for {name}
{name} {often} {does} after dinner
the {vehicle} to the {place} will leave at {number}
how many {colour} plates are in the {place}
put the {thing} on the {adjective} table
she {acted} the {thing} because it was {adjective}
he has a {adjective} {animal} and a {colour} {vehicle}
the {thing} and the {thing2} are {relation} the door
can you see the {animal} {relation} the {place}
{time} the {person} will open the {place}
in {month} there is much {weather} in the {place}
the {person} said that the {thing} is {adjective}
{name} wants to buy a {thing} for {number} pounds
our cat {does} here every {season}
my left {body} is {adjective} today
your {person} has {number} {adjective} horses
it is {adjective} and {adjective2} in the {place}
the {person} from the {place} {does} {adverb}
turn off the light in the {place} please
who {acted} my {colour} {thing} {time}
they walk from the {place} to the {place2}
{name} is learning {subject} at school
the {colour} {animal} ran across the {place}
a {person} with a {adjective} voice {does} at night
do not touch the {thing} in the {place}
the price of {food} is {number} pounds
we will travel by {vehicle} in {month}
before dinner {name} {acted} the {thing}
after the {weather} the {place} was {adjective}
the {person} has no {food} and no {food2}
this {thing} is very {adjective} but that one is {adjective2}
every {person} in the {place} likes {subject}
{number} people {acted} the {vehicle} on {day}
i think the {animal} is {adjective}
some {food} is on the {colour} plate
the {animal} without a name {does} {adverb}
what is {relation} the {adjective} {thing}
when does the {place} open on {day}
{name} will give the {thing} to the {person}
the {person} and the {person2} are {adjective}
it was a {adjective} morning in the {place}
he lost his {colour} {thing} at the {place}
she found her {thing} {relation} the {vehicle}
the {vehicle} was {adjective} and {colour}
give me the {thing} from the {place}
all the {food} in the {place} is {adjective}
we heard {weather} over the {place} {time}
the {place} is between the {place2} and the {place3}
hello {name} how is your {person}
thank you for the {food} and the {food2}
goodbye {name} we will speak on {day}
my {body} and my {body2} are cold
there was {feeling} in his voice
the {adjective} {person} {often} {does} in the {season}
{name} has {number} sisters and {number2} brothers
close the door of the {place} {adverb}
the {thing} costs {number} pounds in {month}
you should take the {vehicle} to the {place}
if the {weather} comes the {person} will wait
{name} {acted} {number} letters on {day}
the {animal} and the {animal2} live on a farm
i can hear a {thing} in the {place}
the story is about a {adjective} {animal}
a {colour} bird is {relation} the {thing}
his {person} {acted} the old {thing} {adverb}
the water in the {place} is {adjective}
{name} likes {food} more than {food2}
we are ready for the {season}
the {person} is as {adjective} as a {animal}
on {day} the {place} is full of {animal} pictures
look at the {colour} {thing} {relation} the wall
the {number} {adjective} soldiers walk to the {place}
she will finish the {subject} game at {number}
they never forgot the {thing}
where did {name} go with the {animal}
the king {acted} the {thing} of the queen
no {person} was in the {place} {time}
{name} put {number} spoons of {food} in the tea
a {adjective} wind came over the {place}
he speaks {adverb} to the {animal}
is the {food} for the {person} or the {person2}
the {place} has {number} windows and a {colour} door
my {person} is a {person2} in the city
you can play the {thing} {time}
the {vehicle} from the {place} is late again
we need {food} and {food2} for breakfast
{name} opened the window and {acted} the {thing}
the {adjective} {place} is near the {place2}
please help the {person} with the {adjective} {thing}
the first {thing} is {colour} and the last is {colour2}
in the {season} the {animal} {does} {relation} the tree
that {colour} {thing} was a gift from {name}
the {person} {does} and the {person2} {does2}
there is {feeling} in the {place} {time}
{name} would never sell the {adjective} {vehicle}
a {thing} and {number} {colour} cups are on the floor
the doctor looked at the {body} of the {person}
tell {name} that the {food} is {adjective}
he {acted} it {adverb} and then he {acted2} the {thing}
""".strip().splitlines()
)
_SLOT = re.compile(r"\{([a-z]+)\d?\}")


def templates(split: Split) -> tuple[tuple[int, str], ...]:
    """Returns (number, template) pairs a split may use; training never sees the held-out ones."""
    numbered = tuple(enumerate(TEMPLATES))
    if split == "train":
        return tuple(pair for pair in numbered if pair[0] % HELD_OUT_EVERY)
    return numbered


def fill(template: str, rng: np.random.Generator) -> str:
    """Returns the template with every slot drawn from its pool, no word twice from the same pool."""
    used: set[str] = set()

    def word(match: re.Match[str]) -> str:
        pool = tuple(w for w in POOLS[match.group(1)] if w not in used)
        chosen = pick(rng, pool)
        used.add(chosen)
        return chosen

    return re.sub(r"\ba (?=[aeiou])", "an ", _SLOT.sub(word, template))


def sentence(rng: np.random.Generator, split: Split) -> tuple[str, int]:
    """Returns a grammatical sentence in lower case without punctuation, and its template's number."""

    def make(rng: np.random.Generator) -> tuple[str, int]:
        number, template = pick(rng, templates(split))
        return fill(template, rng), number

    return draw(rng, split, "sentence", make, lambda made: made[0])


def salad(rng: np.random.Generator, split: Split, fewest: int = 3, most: int = 8) -> str:
    """Returns words drawn independently, so that grammar helps nobody to guess them."""

    def make(rng: np.random.Generator) -> str:
        return " ".join(pick(rng, SALAD_WORDS) for _ in range(int(rng.integers(fewest, most + 1))))

    return draw(rng, split, "sentence", make)
