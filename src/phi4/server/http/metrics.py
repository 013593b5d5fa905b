"""Numbers for Prometheus, under the names vLLM uses, so that dashboards made for it work here.

What the engine counts is read from its statistics when somebody asks; what only routes see, the times a
client waited, is observed while answers pass. Labels hold names of served models, never what a client made
up. Each app has a registry of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from phi4.server.http.answers import Answer
from phi4.server.worker.values import ServerStats

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_FIRST_TOKEN_S = (
    0.005,
    0.01,
    0.02,
    0.04,
    0.08,
    0.15,
    0.25,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    10.0,
    20.0,
    40.0,
    80.0,
    160.0,
)
_GAP_S = (0.002, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0)
_LIFE_S = (0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 240.0, 480.0, 960.0)
_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)
_MODEL = ("model_name",)
_ENGINE_COUNTERS = (
    ("vllm:prompt_tokens", "prompt_tokens", "Prompt positions computed or copied."),
    ("vllm:generation_tokens", "generation_tokens", "Tokens drawn."),
    ("vllm:prefix_cache_queries", "prefix_queries", "Prompt positions looked up in the prefix cache."),
    ("vllm:prefix_cache_hits", "prefix_hits", "Prompt positions found in the prefix cache."),
    ("vllm:mm_cache_queries", "encoder_queries", "Media looked up in the encoder cache."),
    ("vllm:mm_cache_hits", "encoder_hits", "Media found in the encoder cache."),
    ("vllm:num_preemptions", "preemptions", "Answers that had to make room and went on later."),
    ("vllm:spec_decode_num_draft_tokens", "drafted", "Tokens guessed from what stood before."),
    ("vllm:spec_decode_num_accepted_tokens", "accepted", "Guessed tokens that were right."),
    ("phi4:rope_crossings", "rope_crossings", "Rows prefilled again at the LongRoPE boundary."),
    ("phi4:engine_steps", "steps", "Steps of the engine."),
)
"""Name of a counter, field of the engine's statistics, help."""
_ENGINE_GAUGES = (
    ("vllm:kv_cache_usage_perc", "cache_usage", "Part of the caches that requests use, 0 to 1."),
    (
        "phi4:kept_prefixes_perc",
        "kept_usage",
        "Part kept for beginnings of prompts; gives way, so it is free.",
    ),
)
_SERVER_COUNTERS = (
    ("phi4:requests_accepted", "accepted_total", "Requests that got a place."),
    ("phi4:requests_rejected", "rejected_total", "Requests refused for want of room."),
    ("phi4:engine_restarts", "engine_restarts_total", "Starts of the engine process after the first."),
    ("phi4:preparer_deaths", "preparer_deaths_total", "Preparer processes that died or were killed."),
)
_SERVER_GAUGES = (
    ("vllm:num_requests_running", "running", "Answers in the engine."),
    ("vllm:num_requests_waiting", "waiting", "Answers that wait for their turn."),
    ("phi4:requests_under_way", "under_way", "Requests that have a place."),
    ("phi4:requests_preparing", "preparing", "Requests that are being prepared."),
    ("phi4:held_bytes", "held_bytes", "Bodies and prepared prompts in memory."),
)


class Metrics:
    """All numbers of one server.

    Args:
        stats: Gives the statistics of processes and limits.
        name: Gives the base model's name for the engine's own numbers.
    """

    def __init__(self, stats: Callable[[], ServerStats], name: Callable[[], str]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Statistics(stats, name))
        self._ended = Counter(
            "vllm:request_success",
            "Answers that ended, by reason.",
            (*_MODEL, "finished_reason"),
            registry=self._registry,
        )
        self._first_token = self._histogram(
            "time_to_first_token_seconds", "Wait for the first piece.", _FIRST_TOKEN_S
        )
        self._gap = self._histogram("inter_token_latency_seconds", "Between two pieces.", _GAP_S)
        self._life = self._histogram("e2e_request_latency_seconds", "From request to last piece.", _LIFE_S)
        self._queue = self._histogram(
            "request_queue_time_seconds", "Wait for a turn, and in the engine.", _LIFE_S
        )
        self._prefill = self._histogram("request_prefill_time_seconds", "Reading of the prompt.", _LIFE_S)
        self._decode = self._histogram("request_decode_time_seconds", "Writing of the answer.", _LIFE_S)
        self._prompt = self._histogram("request_prompt_tokens", "Length of prompts.", _TOKENS)
        self._generation = self._histogram("request_generation_tokens", "Length of answers.", _TOKENS)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"vllm:{name}", text, _MODEL, buckets=buckets, registry=self._registry)

    def first_piece(self, model: str, seconds: float) -> None:
        """A request has got its first piece."""
        self._first_token.labels(model).observe(seconds)

    def next_piece(self, model: str, seconds: float) -> None:
        """An answer has got another piece, so long after the one before."""
        self._gap.labels(model).observe(seconds)

    def answer_ended(self, model: str, answer: Answer) -> None:
        """An answer is whole."""
        timing = answer.timing
        self._ended.labels(model, answer.finish_reason or "").inc()
        in_engine_s = max(0.0, timing.first_token_s - timing.encode_s - timing.prefill_s)
        self._queue.labels(model).observe(answer.waited_s + in_engine_s)
        self._prefill.labels(model).observe(timing.prefill_s)
        self._decode.labels(model).observe(max(0.0, timing.total_s - timing.first_token_s))
        self._prompt.labels(model).observe(answer.usage.prompt_tokens)
        self._generation.labels(model).observe(answer.usage.completion_tokens)

    def request_ended(self, model: str, seconds: float) -> None:
        """All answers of a request are whole."""
        self._life.labels(model).observe(seconds)

    def text(self) -> bytes:
        """Everything in Prometheus' text form."""
        return generate_latest(self._registry)


class _Statistics(Collector):
    """Reads the statistics of the processes when Prometheus asks."""

    def __init__(self, stats: Callable[[], ServerStats], name: Callable[[], str]) -> None:
        self._stats = stats
        self._name = name

    def describe(self) -> Iterator[Metric]:
        """Nothing: the processes may not have started when the collector is registered."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """All of them as they stand."""
        stats, label = self._stats(), [self._name()]
        for name, field, text in _ENGINE_COUNTERS:
            yield _family(CounterMetricFamily(name, text, labels=_MODEL), label, stats.engine.get(field, 0.0))
        for name, field, text in _SERVER_COUNTERS:
            yield _family(CounterMetricFamily(name, text, labels=_MODEL), label, getattr(stats, field))
        for name, field, text in _SERVER_GAUGES:
            yield _family(GaugeMetricFamily(name, text, labels=_MODEL), label, getattr(stats, field))
        for name, field, text in _ENGINE_GAUGES:
            yield _family(GaugeMetricFamily(name, text, labels=_MODEL), label, stats.engine.get(field, 0.0))


def _family(
    family: CounterMetricFamily | GaugeMetricFamily, label: list[str], value: float
) -> CounterMetricFamily | GaugeMetricFamily:
    family.add_metric(label, float(value))
    return family
