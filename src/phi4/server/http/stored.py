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
        items: What it was asked with, without what went before.
        messages: All turns up to and with its own, without the instructions.
        num_bytes: What it takes, about.
        until_s: When it is forgotten, on the store's clock.
    """

    body: dict[str, Any]
    items: list[dict[str, Any]]
    messages: list[dict[str, Any]]
    num_bytes: int
    until_s: float


class StoredResponses:
    """The store.

    Args:
        max_bytes: What all together may take; one may take a quarter.
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
        self._items: dict[tuple[str, str], dict[str, Any]] = {}
        self.num_bytes = 0

    def keep(
        self,
        key: str,
        body: dict[str, Any],
        items: list[dict[str, Any]],
        messages: list[dict[str, Any]],
    ) -> bool:
        """Keep a response; False = it is too large for that.

        Args:
            key: Whose it is.
            body: The response.
            items: What it was asked with, each with an id.
            messages: Turns up to and with its own.
        """
        # Text dominates and is counted as it stands, that of items once more than it takes, since turns share
        # it; what a dictionary takes beside it is not counted.
        size = sum(len(json.dumps(part)) for part in (body, items, messages))
        if size > self._max_bytes // 4:
            return False
        name = (key, str(body["id"]))
        self._forget(name)
        self._kept[name] = StoredResponse(body, items, messages, size, self._clock() + self._max_age_s)
        self._items |= {(key, item["id"]): item for item in (*items, *body["output"])}
        self.num_bytes += size
        while self.num_bytes > self._max_bytes:
            self._forget(next(iter(self._kept)))
        return True

    def find(self, key: str, response_id: str) -> StoredResponse:
        """A response by its id.

        Raises:
            UnknownResponse: It was never kept for this key, or is gone.
        """
        self._forget_old()
        found = self._kept.get((key, response_id))
        if found is None:
            raise UnknownResponse(
                "no response of this id is kept; they are kept for an hour, if there is room"
            )
        return found

    def find_item(self, key: str, item_id: str) -> dict[str, Any] | None:
        """An item that a response of this key was asked with or put out; None = there is none, or no more."""
        self._forget_old()
        return self._items.get((key, item_id))

    def delete(self, key: str, response_id: str) -> None:
        """Forget a response at once.

        Raises:
            UnknownResponse: As `find`.
        """
        self.find(key, response_id)
        self._forget((key, response_id))

    def _forget_old(self) -> None:
        while self._kept and next(iter(self._kept.values())).until_s <= self._clock():
            self._forget(next(iter(self._kept)))

    def _forget(self, name: tuple[str, str]) -> None:
        gone = self._kept.pop(name, None)
        if gone is None:
            return
        self.num_bytes -= gone.num_bytes
        for item in (*gone.items, *gone.body["output"]):
            # A later response may have been asked with the same item, and then that one is kept.
            own = (name[0], item["id"])
            if self._items.get(own) is item:
                del self._items[own]
