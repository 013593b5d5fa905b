"""Numbers as people say them: 0 to 999 in words."""

from __future__ import annotations

from phi4.data.records import listed

ONES = listed(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
TENS = listed("zero ten twenty thirty forty fifty sixty seventy eighty ninety")


def number_words(number: int) -> str:
    """Returns the words of a number from 0 to 999, as in "three hundred and forty two"."""
    assert 0 <= number <= 999, number
    if number < 20:
        return ONES[number]
    if number < 100:
        return TENS[number // 10] + (f" {ONES[number % 10]}" if number % 10 else "")
    rest = f" and {number_words(number % 100)}" if number % 100 else ""
    return f"{ONES[number // 100]} hundred{rest}"
