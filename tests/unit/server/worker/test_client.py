"""The client with real processes behind it: preparers and an engine that serve the tiny model."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

import phi4
from phi4.errors import ContextOverflow, InvalidMedia, InvalidRequest, ModelNotFound, Phi4Error
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.server.failures import (
    DeadlineExceeded,
    Draining,
    EngineRestarted,
    NotReady,
    Overloaded,
    PreparationFailed,
)
from phi4.server.settings import ServerSettings
from phi4.server.worker.client import EngineClient
from phi4.server.worker.values import GenerateOptions, PrepareRequest, ServerEvent
from phi4.testing.media import audio_bytes, chirp, image_bytes, ramp_picture
from phi4.types import SamplingParams

Found = TypeVar("Found")
Run = Callable[[Coroutine[Any, Any, Found]], Found]
CANARY = PrepareRequest("chat", ({"role": "user", "content": "what does the sign say?"},))
CANARY_OPTIONS = GenerateOptions(max_new_tokens=12)
STALE_S = 2.0
"""What the engine counts is known here within this time."""


class Served:
    """A started client on a loop of its own, which turns only while a test runs something on it."""

    def __init__(self, settings: ServerSettings) -> None:
        self.runner = asyncio.Runner()
        self.client = EngineClient(settings)
        self.runner.run(self.client.start())

    def run(self, work: Coroutine[Any, Any, Found]) -> Found:
        async def bounded() -> Found:
            async with asyncio.timeout(120):
                return await work

        return self.runner.run(bounded())

    def close(self) -> None:
        self.runner.run(self.client.close())
        self.runner.close()


def settings(model: Path, **options: Any) -> ServerSettings:
    return ServerSettings(**{"model": str(model), "preparers": 1} | options)


@pytest.fixture(scope="module")
def served(served_model: Path) -> Iterator[Served]:
    found = Served(settings(served_model, preparers=2, max_running=8, speculate=False))
    yield found
    found.close()


@pytest.fixture
def serve(served_model: Path) -> Iterator[Callable[..., Served]]:
    """Starts a client with settings of its own."""
    started: list[Served] = []

    def start(**options: Any) -> Served:
        started.append(Served(settings(served_model, **options)))
        return started[-1]

    yield start
    for one in started:
        one.close()


async def ask(
    client: EngineClient, request: PrepareRequest = CANARY, options: GenerateOptions = CANARY_OPTIONS
) -> list[ServerEvent]:
    """All events of one request."""
    with client.enter("") as ticket:
        prepared = await client.prepare(request, ticket)
        async with aclosing(client.generate(prepared, options, ticket)) as events:
            return [event async for event in events]


def text(events: list[ServerEvent], index: int = 0) -> str:
    return "".join(event.text for event in events if event.index == index)


def endless(tokenizer: Phi4Tokenizer, tokens: int = 3000) -> GenerateOptions:
    """An answer that goes on until its limit."""
    bias = dict.fromkeys(tokenizer.tokens.stop_ids, -100.0)
    return GenerateOptions(SamplingParams(logit_bias=bias), tokens, loop_guard=False)


def held(client: EngineClient) -> float:
    """What is under way or in use, in this process and in the engine, as last heard of it."""
    stats = client.stats()
    here = stats.under_way + stats.running + stats.waiting + stats.preparing + stats.held_bytes
    there = sum(stats.engine.get(name, 1.0) for name in ("running", "waiting", "cache_usage"))
    return here + stats.held_tokens + there


async def idle(client: EngineClient, still_s: float = STALE_S) -> None:
    """Wait until nothing is held, for longer than what is known of the engine is old."""
    since = None
    async with asyncio.timeout(10):
        while since is None or time.monotonic() - since < still_s:
            since = None if held(client) else since or time.monotonic()
            await asyncio.sleep(0.02)  # between two looks


def test_an_answer_is_the_one_the_model_gives_in_process(served: Served, served_model: Path) -> None:
    events = served.run(ask(served.client))
    alone = phi4.load(served_model).chat("what does the sign say?", max_new_tokens=12)
    assert text(events) == alone.text
    assert events[-1].usage is not None
    assert events[-1].usage.completion_tokens == alone.usage.completion_tokens


def test_every_answer_ends_once_and_carries_its_index(served: Served) -> None:
    request = PrepareRequest("completion", prompts=("the red house", "turn on"))
    options = GenerateOptions(SamplingParams(temperature=1.0, seed=5), 6, n=2)
    events = served.run(ask(served.client, request, options))
    ends = [event.index for event in events if event.finish_reason is not None]
    assert sorted(ends) == [0, 1, 2, 3]
    again = served.run(ask(served.client, request, options))
    assert [text(events, i) for i in range(4)] == [text(again, i) for i in range(4)]


def test_pictures_and_recordings_reach_the_model(served: Served) -> None:
    content = [
        {"type": "image", "image": image_bytes("PNG", ramp_picture(90, 60))},
        {"type": "audio", "audio": audio_bytes(chirp(0.5), 16000)},
        {"type": "text", "text": "?"},
    ]
    request = PrepareRequest("chat", ({"role": "user", "content": content},))
    usage = served.run(ask(served.client, request))[-1].usage
    assert usage is not None and usage.image_tokens > 0 and usage.audio_tokens > 0


def test_the_form_of_an_answer_is_kept(served: Served) -> None:
    form = {"type": "choice", "choice": ["open", "closed"]}
    request = PrepareRequest("chat", CANARY.messages, response_format=form)
    assert text(served.run(ask(served.client, request))) in ("open", "closed")


def test_silence_is_answered_with_nothing(served: Served) -> None:
    silence = audio_bytes(np.zeros(16000, np.float32), 16000)
    assert served.run(ask(served.client, PrepareRequest("transcribe", audio=silence))) == []


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (GenerateOptions(n=0), InvalidRequest),
        (GenerateOptions(n=17), InvalidRequest),
        (GenerateOptions(max_new_tokens=0), InvalidRequest),
        (GenerateOptions(max_new_tokens=50_000), ContextOverflow),
        (GenerateOptions(SamplingParams(temperature=9.0)), InvalidRequest),
        (GenerateOptions(SamplingParams(seed=2**70)), InvalidRequest),
        (GenerateOptions(SamplingParams(logit_bias={10**6: 1.0})), InvalidRequest),
    ],
)
def test_options_that_cannot_be_are_refused_and_leave_nothing(
    served: Served, options: GenerateOptions, error: type[Exception]
) -> None:
    with pytest.raises(error):
        served.run(ask(served.client, options=options))
    served.run(idle(served.client, 0.0))


def test_choices_of_many_prompts_are_counted_together(serve: Callable[..., Served]) -> None:
    served = serve(max_rows=16)
    eight = PrepareRequest("completion", prompts=("a",) * 8)
    short = GenerateOptions(max_new_tokens=1, n=2)
    assert len(served.run(ask(served.client, eight, short))) >= 16
    with pytest.raises(InvalidRequest, match="3 answers to each of 8 prompts"):
        served.run(ask(served.client, eight, GenerateOptions(max_new_tokens=1, n=3)))


def test_health_asks_the_engine(served: Served) -> None:
    health = served.run(served.client.health())
    assert health.ready and health.engine_pid > 0 and health.restarts == 0
    assert health.answered_ms is not None and health.answered_ms < 1000
    assert served.client.card.runner == "onnx" and "vision" in served.client.card.modalities


def test_leaving_early_frees_the_engine(served: Served, served_tokenizer: Phi4Tokenizer) -> None:
    async def leave() -> None:
        client = served.client
        with client.enter("") as ticket:
            prepared = await client.prepare(CANARY, ticket)
            async with aclosing(client.generate(prepared, endless(served_tokenizer), ticket)) as events:
                async for _ in events:
                    break
        assert client.stats().running == 0
        await idle(client)

    served.run(leave())


def disconnects(served: Served, tokenizer: Phi4Tokenizer, count: int) -> None:
    """Clients that leave at random moments, from before the preparation to after the last token."""
    dice = random.Random(7)

    async def one() -> None:
        tokens = dice.choice((1, 30, 200))
        task = asyncio.create_task(ask(served.client, CANARY, endless(tokenizer, tokens)))
        await asyncio.sleep(dice.random() ** 2 * 0.5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def all_of_them() -> None:
        for _ in range(count // 10):
            await asyncio.gather(*(one() for _ in range(10)))
        await idle(served.client)

    pid = served.run(served.client.health()).engine_pid
    expected = text(served.run(ask(served.client)))
    served.run(all_of_them())
    assert text(served.run(ask(served.client))) == expected
    assert served.run(served.client.health()).engine_pid == pid


def test_thirty_clients_that_leave_at_random_moments_leave_nothing_behind(
    served: Served, served_tokenizer: Phi4Tokenizer
) -> None:
    disconnects(served, served_tokenizer, 30)


@pytest.mark.slow
def test_three_hundred_clients_that_leave_at_random_moments_leave_nothing_behind(
    served: Served, served_tokenizer: Phi4Tokenizer
) -> None:
    disconnects(served, served_tokenizer, 300)


def kills(served: Served, tokenizer: Phi4Tokenizer, count: int) -> None:
    """The engine is killed under load; every client gets an answer or a typed error, the next an answer."""
    dice = random.Random(11)
    client = served.client

    async def load() -> list[float | None]:
        async def one() -> float | None:
            try:
                await ask(client, CANARY, endless(tokenizer))
            except (EngineRestarted, NotReady):
                return time.monotonic()
            return None

        return await asyncio.gather(*(one() for _ in range(6)))

    async def kill_once() -> None:
        asking = asyncio.create_task(load())
        while client.stats().running < 6:
            await asyncio.sleep(0.01)
        await asyncio.sleep(dice.random() * 0.2)
        killed = time.monotonic()
        os.kill((await client.health()).engine_pid, signal.SIGKILL)
        for answered in await asyncio.wait_for(asking, 20):
            assert answered is None or answered - killed < 2.0
        async with asyncio.timeout(20):
            while not (await client.health()).ready:
                await asyncio.sleep(0.05)

    expected = text(served.run(ask(client)))
    restarts = client.stats().engine_restarts_total
    for _ in range(count):
        served.run(kill_once())
        assert text(served.run(ask(client))) == expected
    assert client.stats().engine_restarts_total == restarts + count
    served.run(idle(client))


def test_a_killed_engine_leaves_no_client_without_an_answer(
    served: Served, served_tokenizer: Phi4Tokenizer
) -> None:
    kills(served, served_tokenizer, 2)


@pytest.mark.slow
def test_twenty_killed_engines_leave_no_client_without_an_answer(
    served: Served, served_tokenizer: Phi4Tokenizer
) -> None:
    kills(served, served_tokenizer, 20)


def test_requests_that_wait_for_their_turn_survive_a_killed_engine(
    serve: Callable[..., Served], served_tokenizer: Phi4Tokenizer
) -> None:
    served = serve(max_running=1, speculate=False)
    client = served.client

    async def check() -> None:
        first = asyncio.create_task(ask(client, CANARY, endless(served_tokenizer)))
        while not client.stats().running:
            await asyncio.sleep(0.01)
        waiting = asyncio.create_task(ask(client))
        while not client.stats().waiting:
            await asyncio.sleep(0.01)
        os.kill((await client.health()).engine_pid, signal.SIGKILL)
        with pytest.raises(EngineRestarted) as told:
            await first
        assert told.value.retry_after_s
        assert (await waiting)[-1].finish_reason is not None

    served.run(check())


def is_stopped(pid: int) -> bool:
    """Whether a process stands still after SIGSTOP, all its threads."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return all((task / "stat").read_text().rpartition(")")[2].split()[0] == "T" for task in tasks)


def test_a_stopped_engine_is_noticed_and_replaced(
    serve: Callable[..., Served], served_tokenizer: Phi4Tokenizer
) -> None:
    served = serve(hang_s=2.0, speculate=False)
    client = served.client

    async def check() -> None:
        asking = asyncio.create_task(ask(client, CANARY, endless(served_tokenizer)))
        while not client.stats().running:
            await asyncio.sleep(0.01)
        pid = (await client.health()).engine_pid
        began = time.monotonic()
        os.kill(pid, signal.SIGSTOP)
        while not is_stopped(pid):  # until the signal has come
            await asyncio.sleep(0.001)
        assert not (await client.health()).ready
        with pytest.raises(EngineRestarted):
            await asking
        assert time.monotonic() - began < 2.5
        async with asyncio.timeout(30):
            while not (await client.health()).ready:
                await asyncio.sleep(0.05)
        assert (await ask(client))[-1].finish_reason is not None

    served.run(check())


def test_the_wait_for_a_turn_is_told_with_the_last_piece_of_an_answer(
    serve: Callable[..., Served], served_tokenizer: Phi4Tokenizer
) -> None:
    served = serve(max_running=1, speculate=False)
    client = served.client

    async def check() -> None:
        first = asyncio.create_task(ask(client, CANARY, endless(served_tokenizer)))
        while not client.stats().running:
            await asyncio.sleep(0.01)
        waiting = asyncio.create_task(ask(client))
        while not client.stats().waiting:
            await asyncio.sleep(0.01)
        seen = time.monotonic()
        await asyncio.sleep(0.1)  # a wait that can be told from none
        waited_s = time.monotonic() - seen
        first.cancel()
        assert (await waiting)[-1].waited_s >= waited_s

    served.run(check())


def test_draining_finishes_what_is_under_way_and_takes_nothing_new(
    serve: Callable[..., Served], served_tokenizer: Phi4Tokenizer
) -> None:
    served = serve(max_running=2)
    client = served.client

    async def check() -> None:
        under_way = [
            asyncio.create_task(ask(client, CANARY, endless(served_tokenizer, 100))) for _ in range(5)
        ]
        while client.stats().running < 2:
            await asyncio.sleep(0.01)
        pid = (await client.health()).engine_pid
        draining = asyncio.create_task(client.drain())
        await asyncio.sleep(0)
        assert (await client.health()).state == "draining"
        with pytest.raises(Draining):
            client.enter("")
        assert await draining
        for events in await asyncio.gather(*under_way):
            assert events[-1].finish_reason == "length"
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        assert client.state == "stopped"

    served.run(check())


def test_a_drain_that_takes_too_long_tells_those_it_cuts_off(
    serve: Callable[..., Served], served_tokenizer: Phi4Tokenizer
) -> None:
    served = serve(max_running=1, speculate=False)
    client = served.client

    async def check() -> None:
        under_way = [asyncio.create_task(ask(client, CANARY, endless(served_tokenizer))) for _ in range(3)]
        while client.stats().waiting < 2:
            await asyncio.sleep(0.01)
        assert not await client.drain(0.05)
        found = await asyncio.gather(*under_way, return_exceptions=True)
        assert all(isinstance(error, Draining) for error in found)

    served.run(check())


def test_a_client_that_does_not_read_is_cut_off_and_the_engine_freed(
    serve: Callable[..., Served], served_tokenizer: Phi4Tokenizer
) -> None:
    served = serve(send_buffer_events=16)
    client = served.client

    async def check() -> None:
        with client.enter("") as ticket:
            prepared = await client.prepare(CANARY, ticket)
            async with aclosing(client.generate(prepared, endless(served_tokenizer), ticket)) as events:
                await anext(events)
                while client.stats().running:
                    await asyncio.sleep(0.01)
                with pytest.raises(DeadlineExceeded, match="reads too slowly"):
                    async for _ in events:
                        pass
        await idle(client)

    served.run(check())


def test_deadlines_end_requests_that_wait_and_requests_that_run(
    serve: Callable[..., Served], served_tokenizer: Phi4Tokenizer
) -> None:
    served = serve(max_running=1, queue_timeout_s=0.5, speculate=False)
    client = served.client

    async def check() -> None:
        long = endless(served_tokenizer)
        running = asyncio.create_task(
            ask(client, CANARY, GenerateOptions(long.sampling, 20_000, loop_guard=False, timeout_s=1.5))
        )
        while not client.stats().running:
            await asyncio.sleep(0.01)
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="its turn"):
            await ask(client)
        assert 0.4 < time.monotonic() - began < 1.2
        with pytest.raises(DeadlineExceeded, match="in the time it had"):
            await asyncio.wait_for(running, 20)
        await idle(client)

    served.run(check())


def test_an_answer_that_does_not_begin_in_time_is_given_up(serve: Callable[..., Served]) -> None:
    served = serve(first_token_timeout_s=0.2, hang_s=10.0)
    client = served.client

    async def check() -> None:
        expected = text(await ask(client))
        pid = (await client.health()).engine_pid
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(DeadlineExceeded, match="did not begin"):
                await asyncio.wait_for(ask(client), 20)
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        await idle(client)
        assert text(await ask(client)) == expected
        assert (await client.health()).engine_pid == pid

    served.run(check())


def test_more_work_than_the_server_takes_is_refused_before_it_begins(
    serve: Callable[..., Served], served_tokenizer: Phi4Tokenizer
) -> None:
    served = serve(max_requests=3, max_waiting_tokens=4000)
    client = served.client

    async def check() -> None:
        with client.enter(""), client.enter(""), client.enter(""), pytest.raises(Overloaded) as refused:
            client.enter("")
        assert refused.value.retry_after_s
        first = asyncio.create_task(ask(client, CANARY, endless(served_tokenizer, 2500)))
        while not client.stats().running:
            await asyncio.sleep(0.01)
        with pytest.raises(Overloaded):
            await ask(client, CANARY, endless(served_tokenizer, 2500))
        await first
        assert client.stats().rejected_total == 2

    served.run(check())


def test_a_picture_that_takes_too_much_memory_fails_alone(serve: Callable[..., Served]) -> None:
    served = serve(preparer_memory_bytes=2**28)
    client = served.client
    large = image_bytes("PNG", np.zeros((5700, 5700, 4), np.uint8))
    request = PrepareRequest("chat", ({"role": "user", "content": [{"type": "image", "image": large}]},))

    async def check() -> None:
        expected = text(await ask(client))
        pid = (await client.health()).engine_pid
        with pytest.raises((PreparationFailed, InvalidMedia)):
            await ask(client, request)
        assert text(await ask(client)) == expected
        assert (await client.health()).engine_pid == pid

    served.run(check())


def test_one_key_cannot_keep_another_from_the_engine(
    serve: Callable[..., Served], served_tokenizer: Phi4Tokenizer
) -> None:
    served = serve(max_running=4, key_digests=("ab" * 32, "cd" * 32))
    client = served.client

    async def keyed(key: str, options: GenerateOptions) -> float:
        began = time.monotonic()
        with client.enter(key) as ticket:
            prepared = await client.prepare(CANARY, ticket)
            async with aclosing(client.generate(prepared, options, ticket)) as events:
                await anext(events)
                first = time.monotonic() - began
                async for _ in events:
                    pass
        return first

    async def check() -> None:
        short = GenerateOptions(max_new_tokens=4)
        flood = [asyncio.create_task(keyed("flood", endless(served_tokenizer, 300))) for _ in range(40)]
        while client.stats().running < 3:
            await asyncio.sleep(0.01)
        assert client.stats().running == 3  # a quarter of the engine is left
        quiet = [await keyed("quiet", short) for _ in range(3)]
        waited = await asyncio.gather(*flood)
        assert max(quiet) < sorted(waited)[len(waited) // 2]

    served.run(check())


def test_a_model_that_is_not_there_is_an_error_of_the_start() -> None:
    async def check() -> None:
        client = EngineClient(ServerSettings(model="no-such-model-anywhere"))
        with pytest.raises(ModelNotFound):
            await client.start()
        assert client.state == "stopped"
        with pytest.raises(Phi4Error):
            client.enter("")

    asyncio.run(check())
