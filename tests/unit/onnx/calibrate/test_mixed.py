"""8 bits go where most is lost for a byte, and never beyond what was allowed."""

from __future__ import annotations

import pytest

from phi4.checkpoint import expected_shapes
from phi4.onnx.build.network.linear import Precision, stored_bytes
from phi4.onnx.build.options import layer_shapes
from phi4.onnx.calibrate.mixed import decoder_bytes, eight_bits
from phi4.testing.tiny import tiny_config

CONFIG = tiny_config(max_positions=512)
SHAPES = layer_shapes(CONFIG)
NAMES = tuple(SHAPES)


def cost(name: str, block: int = 32) -> int:
    large, small = (stored_bytes(SHAPES[name], Precision(kind, block)) for kind in ("int8", "int4"))
    return large - small


def test_layers_are_those_of_the_decoder_in_order() -> None:
    stored = expected_shapes(CONFIG, ("text",), ())
    assert {f"{name}.weight": shape for name, shape in SHAPES.items()} == {
        name: shape
        for name, shape in stored.items()
        if name.startswith("decoder.layers.") and len(shape) == 2
    }
    assert NAMES[:5:4] == tuple(f"decoder.layers.{layer}.self_attn.qkv_proj" for layer in (0, 1))
    whole = sum(stored_bytes(shape, Precision("int4", 32)) for shape in SHAPES.values())
    assert decoder_bytes(CONFIG, 32) == whole


def test_no_room_means_no_layer_and_enough_means_all() -> None:
    losses = dict.fromkeys(NAMES, 0.1)
    assert eight_bits(losses, CONFIG, 32, 0) == ()
    assert eight_bits(losses, CONFIG, 32, sum(map(cost, NAMES))) == NAMES
    assert eight_bits(dict.fromkeys(NAMES, 0.0), CONFIG, 32, 10**9) == ()


def test_loss_counts_by_the_byte() -> None:
    small, large = (f"decoder.layers.0.{target}" for target in ("self_attn.o_proj", "mlp.gate_up_proj"))
    assert cost(small) < cost(large)
    losses = dict.fromkeys(NAMES, 0.0) | {small: 1.0, large: 1.5}
    assert eight_bits(losses, CONFIG, 32, cost(large)) == (small,), "it gains more for each of its bytes"
    losses[large] = 100.0
    assert eight_bits(losses, CONFIG, 32, cost(large)) == (large,)


def test_layer_that_no_longer_fits_gives_way_to_a_smaller_one() -> None:
    small, large = (f"decoder.layers.0.{target}" for target in ("self_attn.o_proj", "mlp.gate_up_proj"))
    losses = dict.fromkeys(NAMES, 0.0) | {small: 0.001, large: 100.0}
    assert eight_bits(losses, CONFIG, 32, cost(large) - 1) == (small,)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.7])
def test_bytes_allowed_are_not_exceeded_and_hardly_left_unused(share: float) -> None:
    losses = {name: 1.0 / (1 + number) for number, name in enumerate(NAMES)}
    allowed = int(share * sum(map(cost, NAMES)))
    chosen = eight_bits(losses, CONFIG, 32, allowed)
    used = sum(map(cost, chosen))
    rest = [cost(name) for name in NAMES if name not in chosen]
    assert used <= allowed and all(used + more > allowed for more in rest)
    assert chosen == tuple(name for name in NAMES if name in chosen)


def test_equal_losses_are_decided_by_name_and_so_always_alike() -> None:
    losses = dict.fromkeys(NAMES, 1.0)
    backwards = dict(reversed(losses.items()))
    allowed = sum(map(cost, NAMES)) // 2
    assert eight_bits(losses, CONFIG, 32, allowed) == eight_bits(backwards, CONFIG, 32, allowed)
