"""LongRoPE frequencies against the golden values, and the choice of the regime around the boundary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phi4.configs import PHI4_MINI, inverse_frequencies, regime_for, tiny_multimodal
from phi4.configs.rope import Regime
from phi4.errors import InvalidRequest

DECODER = PHI4_MINI.decoder


@pytest.mark.parametrize(
    "case", ["short_pos_0", "short_pos_1", "short_pos_100", "long_pos_1", "long_pos_5000"]
)
def test_cos_and_sin_equal_the_golden_values(repository: Path, case: str) -> None:
    golden: dict[str, Any] = json.loads((repository / "tests/data/golden/golden.json").read_text())
    regime: Regime = "short" if case.startswith("short") else "long"
    position = int(case.rsplit("_", 1)[1])
    # The golden values are float64; angles here are float32 as in the reference, off by up to half a step.
    tolerance = 1e-6 + position * 1.2e-7
    angles = np.float32(position) * inverse_frequencies(DECODER, regime)
    for name, turn in (("cos", np.cos), ("sin", np.sin)):
        for index, value in golden["longrope_cos_sin"][case][name].items():
            found = DECODER.attention_factor * turn(angles[int(index)])
            assert found == pytest.approx(value, abs=tolerance)


def test_inverse_frequencies_have_the_published_values() -> None:
    short = inverse_frequencies(DECODER, "short")
    assert short.dtype == np.float32 and short.shape == (48,)
    assert short[0] == 1.0
    assert short[1] == pytest.approx(0.8254, abs=5e-5)
    assert short[47] == pytest.approx(1.2115e-4, rel=1e-4)
    np.testing.assert_allclose(
        inverse_frequencies(DECODER, "long"), short / np.asarray(DECODER.long_factor), rtol=3e-7
    )


def test_attention_factor_is_the_published_one() -> None:
    assert DECODER.attention_factor == pytest.approx(1.1902380714238083, abs=1e-15)
    assert tiny_multimodal(16, 64).decoder.attention_factor == pytest.approx(1.5**0.5)


@pytest.mark.parametrize(
    ("tokens", "policy", "regime"),
    [
        (4095, "reference", "short"),
        (4096, "reference", "short"),
        (4097, "reference", "long"),
        (4096, "pin", "short"),
        (4097, "pin", "long"),
        (100_000, "short", "short"),
    ],
)
def test_regime_changes_after_the_original_length(tokens: int, policy: Any, regime: str) -> None:
    assert regime_for(DECODER, tokens, policy) == regime


def test_unknown_policy_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="rope_policy = 'fast'"):
        regime_for(DECODER, 1, "fast")  # type: ignore[arg-type]
