"""Responses kept for a while, so that the next one can continue them and a client can read them again.

In memory alone, bounded in bytes and in time, apart for each key, and never anything a client did not ask to
be kept (`store`, which OpenAI's route means when it is left out). What is gone is gone: the oldest first.
"""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from phi4.server.http.errors import UnknownResponse

MAX_BYTES = 64 * 2**20
MAX_AGE_S = 3600.0


@dataclass(frozen=True)
class StoredResponse:
    """What is kept.

    Attributes:
        body: The response as it was sent.
        messages: All turns up to and with its own, without the instructions.
        num_bytes: What it takes, about.
        until_s: When it is forgotten, on the store's clock.
    """

    body: dict[str, Any]
    messages: list[dict[str, Any]]
    num_bytes: int
    until_s: float


class StoredResponses:
    """The store.

    Args:
        max_bytes: What all together may take; one may take an eighth.
        max_age_s: How long one is kept.
        clock: Seconds that only go forward.
    """

    def __init__(
        self,
        max_bytes: int = MAX_BYTES,
        max_age_s: float = MAX_AGE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._clock = clock
        self._kept: OrderedDict[tuple[str, str], StoredResponse] = OrderedDict()
        self.num_bytes = 0

    def keep(self, key: str, body: dict[str, Any], messages: list[dict[str, Any]]) -> bool:
        """Keep a response; False = it is too large for that.

        Args:
            key: Whose it is.
            body: The response.
            messages: Turns up to and with its own.
        """
        # Text dominates and is counted as it stands; what a dictionary takes beside it is not.
        size = len(json.dumps(body)) + len(json.dumps(messages))
        if size > self._max_bytes // 8:
            return False
        name = (key, str(body["id"]))
        self._forget(name)
        self._kept[name] = StoredResponse(body, messages, size, self._clock() + self._max_age_s)
        self.num_bytes += size
        while self.num_bytes > self._max_bytes:
            self._forget(next(iter(self._kept)))
        return True

    def find(self, key: str, response_id: str) -> StoredResponse:
        """A response by its id.

        Raises:
            UnknownResponse: It was never kept for this key, or is gone.
        """
        while self._kept and next(iter(self._kept.values())).until_s <= self._clock():
            self._forget(next(iter(self._kept)))
        found = self._kept.get((key, response_id))
        if found is None:
            raise UnknownResponse(
                "no response of this id is kept; they are kept for an hour, if there is room"
            )
        return found

    def delete(self, key: str, response_id: str) -> None:
        """Forget a response at once.

        Raises:
            UnknownResponse: As `find`.
        """
        self.find(key, response_id)
        self._forget((key, response_id))

    def _forget(self, name: tuple[str, str]) -> None:
        gone = self._kept.pop(name, None)
        self.num_bytes -= 0 if gone is None else gone.num_bytes
