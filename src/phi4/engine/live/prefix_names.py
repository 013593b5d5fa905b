"""Names of the beginnings of a row: equal names mean equal caches.

A row is cut into blocks of some positions, and each whole block gets the hash of its content chained to the
block before. The chain begins with all that a cache depends on besides its positions: tenant, adapters, audio
projector, LongRoPE regime. Media count by their digest, their length and the place inside them, never by the
placeholder ids that stand for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from phi4.configs.rope import Regime
from phi4.configs.routing import AudioProjector
from phi4.shapes import IntArray
from phi4.types import ModelInputs

BLOCK_POSITIONS = 32
"""Beginnings are shared in steps of so many positions: fewer cost more hashes, more share less."""
_NAME_BYTES = 32


def root_name(salt: str, adapters: tuple[str, ...], projector: AudioProjector, regime: Regime) -> bytes:
    """The name of the empty row of a tenant with these adapters and factors."""
    return _hash(repr((salt, adapters, projector, regime)).encode("utf-8", "backslashreplace"))


class PrefixNames:
    """Names of the whole blocks of one prompt and what follows it, computed once each.

    Args:
        root: From `root_name`.
        inputs: The prompt.
        block: Positions of a block.
    """

    def __init__(self, root: bytes, inputs: ModelInputs, block: int = BLOCK_POSITIONS) -> None:
        self._root = root
        self._block = block
        self._codes = _codes(inputs)
        self._media = _media_of_blocks(inputs, block)
        self._names: list[bytes] = []

    def names(self, tokens: Sequence[int], positions: int) -> list[bytes]:
        """Names of the blocks that lie whole in the first `positions` of the prompt and `tokens` behind it.

        Args:
            tokens: Known tokens after the prompt; from one call to the next it may only grow at its end.
            positions: Where to stop; what is not known yet has no name.
        """
        known = min(positions, len(self._codes) + len(tokens))
        for number in range(len(self._names), known // self._block):
            piece = self._piece(tokens, number * self._block)
            last = self._names[-1] if self._names else self._root
            self._names.append(_hash(last + piece.tobytes() + self._media.get(number, b"")))
        return self._names[: known // self._block]

    def _piece(self, tokens: Sequence[int], start: int) -> IntArray:
        stop, prompt = start + self._block, len(self._codes)
        if stop <= prompt:
            return self._codes[start:stop]
        behind = np.asarray(tokens[max(start - prompt, 0) : stop - prompt], np.int64)
        return np.concatenate([self._codes[start:], behind])


def _codes(inputs: ModelInputs) -> IntArray:
    """Token ids, and -1, -2, ... at the positions of each medium, which no token has."""
    codes = np.array(inputs.token_ids, np.int64)
    for span in inputs.spans:
        codes[span.start : span.start + span.length] = -1 - np.arange(span.length)
    return codes


def _media_of_blocks(inputs: ModelInputs, block: int) -> dict[int, bytes]:
    """Names of the media in each block, in order; where one begins and ends shows in the codes."""
    found: dict[int, bytes] = {}
    for span in inputs.spans:
        medium = (inputs.images if span.kind == "image" else inputs.audios)[span.index]
        name = _hash(repr((span.kind, medium.digest, medium.num_tokens)).encode("utf-8", "backslashreplace"))
        for number in range(span.start // block, (span.start + span.length - 1) // block + 1):
            found[number] = found.get(number, b"") + name
    return found


def _hash(content: bytes) -> bytes:
    return blake2b(content, digest_size=_NAME_BYTES).digest()
