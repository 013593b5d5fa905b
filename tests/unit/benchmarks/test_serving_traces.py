"""Rates and percentiles of made-up timestamps, and figures of soaks and overloads that never were."""

from __future__ import annotations

import pytest
from load.client.asking import GIVEN_UP
from load.client.traces import (
    Trace,
    first_tokens,
    gaps,
    met_deadline,
    outcomes,
    percentile,
    spread,
    steady_rate,
    summary,
)
from load.metrics import numbers
from load.overload import judged
from load.soak import growth


def trace(
    sent_s: float, *pieces_s: float, status: int = 200, tokens: int | None = None, error: str = ""
) -> Trace:
    ended_s = pieces_s[-1] if pieces_s else sent_s + 0.01
    return Trace(
        sent_s, sent_s, pieces_s, ended_s, status, len(pieces_s) if tokens is None else tokens, 7, error
    )


@pytest.mark.parametrize(
    ("percent", "value"), [(0, 1.0), (1, 1.0), (50, 3.0), (60, 3.0), (61, 4.0), (99, 5.0), (100, 5.0)]
)
def test_percentile_is_a_measured_value(percent: float, value: float) -> None:
    assert percentile([5.0, 1.0, 4.0, 2.0, 3.0], percent) == value


def test_percentile_of_a_hundred_leaves_one_out() -> None:
    values = [float(number) for number in range(1, 101)]
    assert percentile(values, 99) == 99.0 and percentile(values, 50) == 50.0


def test_percentile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_first_token_counts_from_when_the_request_was_due() -> None:
    late = Trace(10.0, 10.5, (11.0, 12.0), 12.0, 200, 2)
    assert first_tokens([late, trace(0.0)]) == [1.0]
    assert late.seconds == 2.0


def test_gaps_are_within_an_answer_and_never_between_two() -> None:
    assert gaps([trace(0.0, 1.0, 1.5, 3.5), trace(3.0, 4.0)]) == [0.5, 2.0]


def test_rates_are_of_the_whole_time_and_of_whole_answers() -> None:
    broken = trace(0.0, 1.0, status=200, error="broke off")
    found = summary([trace(0.0, 1.0, 2.0), trace(2.0, 3.0, 4.0, tokens=6), broken])
    assert found["seconds"] == 4.0 and found["requests"] == 3
    assert found["tokens"] == 8 and found["tokens_per_s"] == 2.0
    assert found["requests_per_s"] == 0.5 and found["pieces"] == 4 and found["prompt_tokens"] == 14
    assert found["first_token_p50_ms"] == 1000.0 and found["gap_p99_ms"] == 1000.0
    assert found["outcomes"] == {"whole": 2, "broke off": 1}


def test_steady_rate_counts_only_while_all_are_being_written() -> None:
    first = trace(0.0, *(float(second) for second in range(1, 12)))
    second = trace(0.0, 5.0, 6.0, 7.0, 8.0, 9.0)
    assert steady_rate([first, second]) == 2.0  # from 5 to 9: four pieces of each


def test_pieces_of_several_tokens_count_for_as_many() -> None:
    assert steady_rate([trace(0.0, 1.0, 2.0, 3.0, tokens=6)]) == 2.0


def test_answers_that_never_ran_together_have_no_steady_rate() -> None:
    with pytest.raises(ValueError, match="longer answers"):
        steady_rate([trace(0.0, 1.0, 2.0), trace(0.0, 3.0, 4.0)])


def test_deadline_is_met_by_whole_answers_in_time_and_in_the_window() -> None:
    traces = [
        trace(0.0, 1.0, 2.0),  # good
        trace(0.0, 1.0, 9.0),  # took too long
        trace(9.0, 10.5, 11.0),  # whole after the window
        trace(0.0, 1.0, error="broke off"),
        trace(0.0, status=503),
    ]
    assert met_deadline(traces, ended_s=10.0, deadline_s=5.0) == 1


def test_outcomes_name_errors_before_statuses() -> None:
    found = outcomes([trace(0.0, 1.0), trace(0.0, status=503, error="overloaded"), trace(0.0, status=404)])
    assert found == {"whole": 1, "overloaded": 1, "404": 1}


def test_nothing_measured_is_no_zero() -> None:
    assert spread("gap", []) == {"gap_p50_ms": None, "gap_p99_ms": None}


def test_overload_tells_answers_refusals_and_what_was_lost_apart() -> None:
    refused = [
        Trace(0.0, 0.25, (), 0.5, 503, error="overloaded"),
        Trace(0.0, 0.0, (), 0.25, 429, error="rate_limit_exceeded"),
    ]
    late, lost = trace(0.0, 1.0, 8.0), trace(0.0, 1.0, error="broke off")
    traces = [trace(0.0, 1.0, 4.0), late, lost, *refused, trace(9.0, status=0, error=GIVEN_UP)]
    found = judged(traces, began=0.0, window_s=10.0, deadline_s=5.0)
    assert found["goodput_per_s"] == pytest.approx(0.1)
    assert found["refused"] == 2 and found["lost"] == 1 and found["requests"] == 6
    assert found["refusal_p99_ms"] == 500.0 and found["client_late_p99_ms"] == 250.0
    assert found["answer_p99_ms"] == 8000.0 and found["first_token_p50_ms"] == 1000.0


def test_growth_is_of_all_processes_from_the_second_fifth_to_the_last() -> None:
    memory = [
        (float(second), {"server": 10_000_000, "engine": (500 if second == 0 else 30 + second) * 1_000_000})
        for second in range(10)
    ]
    found = growth(memory)
    assert (found["early_MB"], found["late_MB"], found["most_MB"]) == (42.5, 48.5, 510.0)
    assert found["grown_percent"] == pytest.approx(100 * (48.5 / 42.5 - 1))
    assert found["at_s"] == [0, 5] and found["resident_MB"]["engine"] == [500.0, 39.0]


def test_process_that_is_gone_for_a_while_counts_as_nothing_then() -> None:
    found = growth([(0.0, {"server": 1_000_000}), (1.0, {"server": 1_000_000, "engine": 2_000_000})])
    assert found["resident_MB"] == {"server": [1.0], "engine": [2.0]}


def test_metrics_are_read_by_name_and_labels_are_added_up() -> None:
    page = (
        "# HELP vllm:num_requests_running x\n"
        'vllm:num_requests_running{model_name="nano"} 2.0\n'
        'vllm:num_requests_running{model_name="other"} 1e0\n'
        "vllm:num_requests_running_more 9\n"
        "plain 4\n"
    )
    assert numbers(page, ["vllm:num_requests_running", "plain"]) == {
        "vllm:num_requests_running": 3.0,
        "plain": 4.0,
    }
