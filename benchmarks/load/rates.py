"""Cells of answers by the second: many users, rows written together, the engine alone, llama.cpp's server."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from harness.environments import OURS as OUR_ENVIRONMENT
from harness.records import CellResult
from harness.workers import Worker, WorkerError

from load import llamacpp
from load.bench import PLAIN, Bench, Reply, Takes
from load.cells import BARE, CLIENT, ECHO_USERS, LLAMA, OURS, OVERHEAD_USERS, Cell
from load.client.asking import chat, completion, fixed_length
from load.client.traces import steady_rate
from load.client.users import keep_asking
from load.driving import all_whole, completions, loaded, note, prompts, told, under_load, warm
from load.metrics import engine_steps
from load.models import Served
from load.servers import Server

ECHO_ROUNDS, ECHO_PIECES = 20, 128
LONGEST_S = 1800.0


@contextmanager
def client(bench: Bench, cell: Cell, result: CellResult) -> Iterator[Takes]:
    """How many pieces a second the client can take when nobody computes them."""
    command = [sys.executable, "-P", "-m", "load.client.echo", "{port}", str(ECHO_PIECES)]
    variables = bench.environments.variables(OUR_ENVIRONMENT)
    with Server(CLIENT, command, variables, bench.scratch / "logs" / "echo.log", "/") as server:
        note(result, CLIENT, server.facts)
        request = chat("", {})

        def take(turn: int) -> Reply:
            reply = loaded(server, [[request] * ECHO_ROUNDS] * ECHO_USERS)
            pieces = reply["pieces"]
            reply["pieces_per_s"] = pieces / reply["seconds"]
            reply["client_us_per_piece"] = 1e6 * reply["cpu_s"]["client"] / pieces
            return reply

        yield dict.fromkeys(cell.series, take)


@contextmanager
def users(bench: Bench, cell: Cell, result: CellResult) -> Iterator[Takes]:
    """Users who ask again as soon as they are answered."""
    served = cell.model
    with bench.ours(served, *PLAIN) as server:
        note(result, OURS, server.facts)
        warm(server, served)

        def take(count: int, turn: int) -> Reply:
            return loaded(server, completions(served, count, served.sizes.rounds[count], turn))

        yield {
            label: partial(take, count) for label, count in zip(cell.series, served.sizes.rounds, strict=True)
        }


@contextmanager
def rows(bench: Bench, cell: Cell, result: CellResult) -> Iterator[Takes]:
    """One answer alone, and several at a time, while all of them are being written."""
    served, sizes = cell.model, cell.model.sizes
    with bench.ours(served, *PLAIN) as server:
        note(result, OURS, server.facts)
        warm(server, served)

        def take(count: int, turn: int) -> Reply:
            prompts = [served.token_ids(f"rows {turn} {user} of {count}") for user in range(count)]
            wave = [[completion(ids, sizes.steady_answer, served.ends)] for ids in prompts]
            traces, cpu = under_load(server, lambda: keep_asking(server.address, wave))
            try:
                rate = steady_rate(all_whole(traces))
            except ValueError as error:
                raise WorkerError(str(error)) from None
            return {**told(traces, cpu), "steady_tokens_per_s": rate}

        yield {label: partial(take, count) for label, count in zip(cell.series, (1, sizes.rows), strict=True)}


@contextmanager
def engine(bench: Bench, cell: Cell, result: CellResult) -> Iterator[Takes]:
    """The same requests over HTTP, and straight into an engine in a process of its own."""
    served, rounds = cell.model, cell.model.sizes.rounds[OVERHEAD_USERS]
    python = bench.environments.python(OUR_ENVIRONMENT)
    command = [str(python), "-P", "-m", "peers.serving", "bare_engine"]
    variables = bench.environments.variables(OUR_ENVIRONMENT)
    with ExitStack() as stack:
        server = stack.enter_context(bench.ours(served, *PLAIN))
        note(result, OURS, server.facts)
        warm(server, served)
        worker = Worker(command, variables, bench.scratch / "logs" / f"engine-{served.name}.log")
        stack.callback(worker.close)
        worker.facts |= worker.ask("load", LONGEST_S, path=served.path)
        note(result, BARE, worker.facts)
        worker.pause()

        def in_process(turn: int) -> Reply:
            asked = prompts(served, OVERHEAD_USERS, rounds, turn)
            worker.resume()
            try:
                reply = worker.ask(
                    "keep_asking", LONGEST_S, prompts=asked, answers=_lengths(served, rounds, turn)
                )
            finally:
                worker.pause()
            return reply | {"tokens_per_s": reply["tokens"] / reply["seconds"]}

        def over_http(turn: int) -> Reply:
            asked = prompts(served, OVERHEAD_USERS, rounds, turn)
            lengths = _lengths(served, rounds, turn)
            questions = [
                [completion(ids, tokens, served.ends) for ids, tokens in zip(*user, strict=True)]
                for user in zip(asked, lengths, strict=True)
            ]
            before = engine_steps(server)
            reply = loaded(server, questions)
            return reply | {"steps": engine_steps(server) - before}

        yield {"over HTTP": over_http, "in process": in_process}


@contextmanager
def beside_llamacpp(bench: Bench, cell: Cell, result: CellResult) -> Iterator[Takes]:
    """The same questions by the chat route, to our server and to llama.cpp's."""
    served, sizes = cell.model, cell.model.sizes
    with ExitStack() as stack:
        theirs = stack.enter_context(llamacpp.server(bench, served))
        ours = stack.enter_context(bench.ours(served, *PLAIN))
        takes: dict[str, Callable[[int], Reply]] = {}
        fields = {
            OURS: fixed_length(sizes.answer, served.ends),
            LLAMA: llamacpp.fixed_length(sizes.answer),
        }
        for program, server in ((OURS, ours), (LLAMA, theirs)):
            note(result, program, server.facts)

            def take(server: Server, program: str, count: int, turn: int) -> Reply:
                asked = _texts(served, count, turn)
                return loaded(server, [[chat(text, fields[program]) for text in user] for user in asked])

            loaded(server, [[chat(f"warm {user}", fields[program])] for user in range(max(sizes.rounds))])
            takes |= {
                label: partial(take, server, program, count)
                for label, count in zip(_of(cell, program), sizes.rounds, strict=True)
            }
        yield takes


def _texts(served: Served, count: int, turn: int) -> list[list[str]]:
    rounds = served.sizes.rounds[count]
    return [
        [served.text(f"turn {turn}, user {user} of {count}, round {number}") for number in range(rounds)]
        for user in range(count)
    ]


def _lengths(served: Served, rounds: int, turn: int) -> list[list[int]]:
    """How long each answer to each user is."""
    return [
        [served.answer_tokens(f"turn {turn}, user {user}, round {number}") for number in range(rounds)]
        for user in range(OVERHEAD_USERS)
    ]


def _of(cell: Cell, program: str) -> list[str]:
    """Series of a program."""
    return [label for label, who in cell.series.items() if who == program]
