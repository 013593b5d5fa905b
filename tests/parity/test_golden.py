"""The network against reference values on file, no other package needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from phi4.configs import PHI4_MINI
from phi4.model import Phi4Model, Rotary, make_batch

CASES: dict[str, tuple[tuple[int | str, ...], tuple[str, ...], int]] = {
    "text_short": (tuple(range(5, 25)), (), 4096),
    "image_448_full": ((5, 6, "full", 7, 8), (), 4096),
    "image_2x1_padded_rows_22": ((5, 6, "padded", 7, 8), (), 4096),
    "audio_98_frames": ((5, 6, "second", 7, 8), (), 4096),
    "audio_4080_frames_windowed": ((5, 6, "long", 7, 8), (), 4096),
    "image_and_audio": ((5, 6, "full", "second", 7, 8), (), 4096),
    "text_len16_orig16_max64_short_factor": (tuple(range(5, 21)), (), 16),
    "text_len20_orig16_max64_long_factor": (tuple(range(5, 25)), (), 16),
    "text_with_vision_lora": (tuple(range(5, 25)), ("vision",), 4096),
    "text_with_speech_lora": (tuple(range(5, 25)), ("speech",), 4096),
}


@pytest.mark.parity
@pytest.mark.parametrize("case", CASES)
def test_logits_equal_golden_values(
    case: str,
    golden: dict[str, Any],
    ours: Callable[..., Phi4Model],
    prompt: Any,
    media: Any,
    parity_table: Any,
) -> None:
    items, adapters, original_max = CASES[case]
    model = ours(original_max, 64 if original_max == 16 else 131072)
    row = prompt(*(media.get(item, item) for item in items)).row
    regime = "long" if len(row.token_ids) > original_max else "short"
    with torch.no_grad():
        logits = model.logits(model(make_batch([row], [regime], [adapters])))
    known = golden["tiny_model"]["cases"][case]
    assert list(logits.shape) == known["shape"]
    assert int(logits[0, -1].argmax()) == known["argmax_last"]
    measured = torch.cat((logits[0, -1, :8], logits[0, 0, :4])).numpy()
    expected = np.array(known["last_row_first8"] + known["row0_first4"])
    parity_table.add(f"golden {case}", float(np.abs(measured - expected).max()), 2e-5)
    assert float(logits.mean()) == pytest.approx(known["mean"], abs=1e-6)
    assert float(logits.std()) == pytest.approx(known["std"], rel=1e-5)
    assert float(logits.abs().sum()) == pytest.approx(known["abs_sum"], rel=1e-5)


def test_rotary_angles_of_the_released_model_equal_golden_values(golden: dict[str, Any]) -> None:
    rotary = Rotary(PHI4_MINI.decoder)
    checked = 0
    for key, known in golden["longrope_cos_sin"].items():
        if key == "note":
            continue
        regime, _, position = key.split("_")
        regimes = torch.tensor([0 if regime == "short" else 1])
        cos, sin = rotary(torch.tensor([[int(position)]]), regimes, torch.float32)
        for index in known["cos"]:
            checked += 1
            # Golden values: float64, six decimals. An angle in fp32 is off by 1.2e-7 of itself at most.
            limit = 1e-6 + 1.2e-7 * int(position)
            assert float(cos[0, 0, int(index)]) == pytest.approx(known["cos"][index], abs=limit)
            assert float(sin[0, 0, int(index)]) == pytest.approx(known["sin"][index], abs=limit)
    assert checked == 25
