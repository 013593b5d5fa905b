"""What our server tells of itself: `/metrics`, read when what the engine counts has reached it."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from load.servers import Server

SETTLED_S = 15.0
STALE_S = 2.0
"""What the engine counts reaches the metrics within this time."""
GAUGES = (
    "phi4:requests_under_way",
    "phi4:requests_preparing",
    "phi4:held_bytes",
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
)
"""What must be 0 when nobody asks."""
USAGE = "vllm:kv_cache_usage_perc"
RESTARTS = "phi4:engine_restarts_total"
_COUNTS = (RESTARTS, "phi4:preparer_deaths_total", "phi4:requests_rejected_total")
_STEPS = "phi4:engine_steps_total"


def settled(server: Server) -> dict[str, float]:
    """What the server says it holds once nobody asks; waits until it is nothing, for a while."""
    until = time.monotonic() + SETTLED_S
    names = (*GAUGES, USAGE, *_COUNTS)
    while any(numbers(server.page("/metrics"), GAUGES).values()) and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(STALE_S)
    return numbers(server.page("/metrics"), names)


def engine_steps(server: Server) -> int:
    """Steps its engine has taken since it was started."""
    time.sleep(STALE_S)
    return int(numbers(server.page("/metrics"), [_STEPS])[_STEPS])


def numbers(page: str, names: Sequence[str]) -> dict[str, float]:
    """Values of metrics, those of several labels together."""
    return {
        name: sum(
            float(value) for value in re.findall(rf"^{re.escape(name)}(?:{{.*}})? (\S+)$", page, re.MULTILINE)
        )
        for name in names
    }
