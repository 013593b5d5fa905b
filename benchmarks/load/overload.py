"""More requests than can be answered: what is still answered in time, and how fast the others are told.

The cell finds first what the server can do, by as many users as it computes for at a time. Then requests come
evenly spaced, as many as that (1x) or a multiple of it, whatever becomes of them. What counts is answers that
were whole within their time, by the second; a refusal costs the server work too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from harness.records import CellResult
from harness.workers import WorkerError

from load.bench import PLAIN, Bench, Reply, Takes
from load.cells import OURS, Cell
from load.client.asking import GIVEN_UP, completion
from load.client.traces import MS, Trace, first_tokens, met_deadline, outcomes, percentile, spread, summary
from load.client.users import ask_at_rate, keep_asking
from load.driving import completions, note, under_load, warm
from load.models import Served

REFUSED = (429, 503)


@contextmanager
def overload(bench: Bench, cell: Cell, result: CellResult) -> Iterator[Takes]:
    """As much as the server can do, and a multiple of it."""
    served, sizes = cell.model, cell.model.sizes
    with bench.ours(served, *PLAIN) as server:
        note(result, OURS, server.facts)
        warm(server, served)
        most = max(sizes.rounds)
        asked = completions(served, most, sizes.rounds[most], turn=0)
        traces, _ = under_load(server, lambda: keep_asking(server.address, asked))
        capacity = summary(traces)["requests_per_s"]
        if not capacity:
            raise WorkerError(f"nothing was answered: {outcomes(traces)}")

        def take(factor: int, turn: int) -> Reply:
            rate = factor * capacity
            question = partial(_question, served, f"{factor}x, turn {turn}")
            (began, traces), cpu = under_load(
                server, lambda: ask_at_rate(server.address, question, rate, sizes.window_s, sizes.deadline_s)
            )
            told = judged(traces, began, sizes.window_s, sizes.deadline_s)
            return {**told, "capacity_per_s": capacity, "offered_per_s": rate, "cpu_s": cpu}

        yield {
            label: partial(take, factor)
            for label, factor in zip(cell.series, (1, sizes.overload), strict=True)
        }


def judged(traces: Sequence[Trace], began: float, window_s: float, deadline_s: float) -> Reply:
    """Figures of requests that came at a steady rate for so long.

    Answers that were whole after the last request was due do not count: the queue is emptied then. Answers
    that were not whole when their time had passed after that were given up by their users, and are not lost.
    """
    refused = [trace for trace in traces if trace.status in REFUSED]
    whole = [trace for trace in traces if trace.whole]
    given_up = [trace for trace in traces if trace.error == GIVEN_UP]
    good = met_deadline(traces, began + window_s, deadline_s)
    return {
        "requests": len(traces),
        "outcomes": outcomes(traces),
        "goodput_per_s": good / window_s,
        "refused": len(refused),
        "lost": len(traces) - len(refused) - len(whole) - len(given_up),
        **spread("refusal", [trace.seconds for trace in refused]),
        **spread("first_token", first_tokens(whole)),
        **spread("answer", [trace.seconds for trace in whole]),
        "client_late_p99_ms": MS * percentile((trace.sent_s - trace.due_s for trace in traces), 99),
    }


def _question(served: Served, seed: str, number: int) -> bytes:
    ids = served.token_ids(f"{seed}, {number}")
    return completion(ids, served.sizes.answer, served.ends)
