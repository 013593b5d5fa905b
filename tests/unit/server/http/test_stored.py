"""Kept responses: apart for each key, bounded in bytes and time, gone when deleted."""

from __future__ import annotations

from typing import Any

import pytest

from phi4.server.http.errors import UnknownResponse
from phi4.server.http.stored import StoredResponses


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def body(name: str, size: int = 10) -> dict[str, Any]:
    return {"id": name, "output": [item(f"msg_{name}", size)]}


def item(name: str, size: int = 0) -> dict[str, Any]:
    return {"id": name, "type": "message", "role": "user", "content": "x" * size}


def test_key_finds_its_own_only() -> None:
    store = StoredResponses()
    assert store.keep("alice", body("r1"), [], [{"role": "user", "content": "hi"}])
    assert store.find("alice", "r1").messages == [{"role": "user", "content": "hi"}]
    for key, name in (("bob", "r1"), ("alice", "r2"), ("", "r1")):
        with pytest.raises(UnknownResponse):
            store.find(key, name)
    with pytest.raises(UnknownResponse):
        store.delete("bob", "r1")
    store.delete("alice", "r1")
    with pytest.raises(UnknownResponse):
        store.find("alice", "r1")
    assert store.num_bytes == 0


def test_oldest_make_room_and_memory_stays_bounded() -> None:
    store = StoredResponses(max_bytes=10_000)
    for number in range(1000):
        assert store.keep("k", body(f"r{number}", 900), [], [])
        assert store.num_bytes <= 10_000
    with pytest.raises(UnknownResponse):
        store.find("k", "r0")
    assert store.find("k", "r999")


def test_one_that_is_too_large_is_not_kept() -> None:
    store = StoredResponses(max_bytes=10_000)
    assert not store.keep("k", body("r", 2500), [], [])
    assert store.num_bytes == 0


def test_same_id_takes_the_place_of_the_old_one() -> None:
    store = StoredResponses()
    store.keep("k", body("r", 10), [], [])
    store.keep("k", body("r", 20), [], [])
    assert len(store.find("k", "r").body["output"][0]["content"]) == 20
    assert store.num_bytes == store.find("k", "r").num_bytes


def test_time_runs_out(clock: Clock) -> None:
    store = StoredResponses(max_age_s=60, clock=clock)
    store.keep("k", body("r"), [], [])
    clock.now_s = 59.0
    assert store.find("k", "r")
    clock.now_s = 60.0
    with pytest.raises(UnknownResponse):
        store.find("k", "r")
    assert store.num_bytes == 0


def test_an_item_is_found_by_its_own_key_as_long_as_its_response_is_kept() -> None:
    store = StoredResponses()
    store.keep("alice", body("r1"), [item("asked")], [])
    assert store.find_item("alice", "asked") == item("asked")
    assert store.find_item("alice", "msg_r1") == item("msg_r1", 10)
    assert store.find_item("bob", "asked") is None and store.find_item("alice", "other") is None
    store.delete("alice", "r1")
    assert store.find_item("alice", "asked") is None and store.find_item("alice", "msg_r1") is None


def test_an_item_that_was_sent_again_outlives_the_first_response(clock: Clock) -> None:
    store = StoredResponses(max_age_s=60, clock=clock)
    store.keep("k", body("r1"), [item("asked")], [])
    clock.now_s = 30.0
    store.keep("k", body("r2"), [item("asked"), item("msg_r1", 10)], [])
    clock.now_s = 60.0
    assert store.find_item("k", "asked") and store.find_item("k", "msg_r1")
    clock.now_s = 90.0
    assert store.find_item("k", "asked") is None and store._items == {}


def test_items_count_as_memory() -> None:
    store = StoredResponses(max_bytes=10_000)
    assert not store.keep("k", body("r"), [item("asked", 2500)], [])
