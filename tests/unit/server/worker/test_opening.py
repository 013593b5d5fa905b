"""An engine is warm and timed before it takes work, and has counted nothing yet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from phi4.checkpoint import LoadedAdapter, adapter_shapes, save_adapter
from phi4.configs import AdapterConfig, Phi4Config
from phi4.errors import InvalidRequest, ModelNotFound
from phi4.server.settings import ServerSettings
from phi4.server.worker.opening import open_engine, warm_up
from phi4.server.worker.pace import Pace


def test_warming_up_times_every_part_and_is_no_work_of_clients(served_model: Path) -> None:
    opened, pace = open_engine(ServerSettings(model=str(served_model))), Pace(5.0)
    assert warm_up(opened, pace) > 0
    assert pace.step_s > 0 and pace.media_s_per_token > 0
    stats = opened.core.stats()
    assert (stats.prompt_tokens, stats.generation_tokens, stats.steps, stats.encoder_queries) == (0, 0, 0, 0)
    assert stats.cache_usage == 0.0


def test_registered_adapters_are_read_under_their_names(
    served_model: Path, served_config: Phi4Config, tmp_path: Path
) -> None:
    config = AdapterConfig("written", 2, 4)
    random = np.random.default_rng(0)
    shapes = adapter_shapes(served_config.decoder, config).items()
    tensors = {name: random.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes}
    save_adapter(tmp_path / "lora", LoadedAdapter(config, tensors))
    adapters = tuple((name, str(tmp_path / "lora")) for name in ("legal", "poet"))
    opened = open_engine(ServerSettings(model=str(served_model), adapters=adapters))
    assert opened.card.user_adapters == ("legal", "poet")
    assert {"legal", "poet"} <= set(opened.runner.info.adapters)


def test_what_cannot_be_opened_is_told_as_phi4_load_tells_it(served_model: Path) -> None:
    with pytest.raises(ModelNotFound):
        open_engine(ServerSettings(model="./nowhere"))
    with pytest.raises(InvalidRequest, match="speech"):
        open_engine(ServerSettings(model=str(served_model), adapters=(("speech", "x"),)))
