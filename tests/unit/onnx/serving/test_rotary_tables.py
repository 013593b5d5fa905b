"""Rotary tables and the order of a head's dimensions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from phi4.configs import NANO, PHI4_MINI, DecoderConfig, inverse_frequencies
from phi4.errors import InvalidConfig
from phi4.onnx.package.rotary_order import head_order, padded_half, qkv_row_order
from phi4.onnx.serving.tables import FIRST_CAPACITY, RotaryTables

DECODERS = [NANO.decoder, PHI4_MINI.decoder]


@pytest.mark.parametrize(("decoder", "half"), [(NANO.decoder, 16), (PHI4_MINI.decoder, 48)])
def test_half_is_rounded_up_to_a_multiple_of_eight(decoder: DecoderConfig, half: int) -> None:
    assert padded_half(decoder) == half


def test_released_model_keeps_its_order() -> None:
    assert (qkv_row_order(PHI4_MINI.decoder) == np.arange(PHI4_MINI.decoder.qkv_dim)).all()


def test_each_row_of_queries_and_keys_stays_in_its_head_and_values_stay_where_they_are() -> None:
    decoder = NANO.decoder
    order = qkv_row_order(decoder)
    turning = (decoder.num_attention_heads + decoder.num_key_value_heads) * decoder.head_dim
    assert sorted(order.tolist()) == list(range(decoder.qkv_dim))
    assert (order[:turning] // decoder.head_dim == np.arange(turning) // decoder.head_dim).all()
    assert (order[turning:] == np.arange(turning, decoder.qkv_dim)).all()
    assert (order[:turning] != np.arange(turning)).any()


def test_partners_of_the_model_are_partners_in_the_graph() -> None:
    decoder = NANO.decoder
    order, half, real = head_order(decoder), padded_half(decoder), decoder.num_frequencies
    assert (order[:real] == np.arange(real)).all()
    assert (order[half : half + real] == order[:real] + real).all()
    untouched = np.concatenate((order[real:half], order[half + real :]))
    assert untouched.min() >= decoder.rotary_dim


def test_head_too_narrow_for_the_padding_is_refused() -> None:
    ones = (1.0,) * 4
    narrow = replace(
        NANO.decoder, hidden_size=96, partial_rotary_factor=0.7, short_factor=ones, long_factor=ones
    )
    assert (narrow.head_dim, narrow.rotary_dim) == (12, 8)
    with pytest.raises(InvalidConfig, match=r"head_dim = 12.*at least 16"):
        padded_half(narrow)


@pytest.mark.parametrize("decoder", DECODERS)
def test_tables_hold_both_regimes_with_the_attention_factor(decoder: DecoderConfig) -> None:
    tables = RotaryTables(decoder)
    real = decoder.num_frequencies
    for regime in ("short", "long"):
        rows = tables.positions(100, 3, regime)
        angles = np.arange(100, 103, dtype=np.float64)[:, None] * inverse_frequencies(decoder, regime)
        for table, function in ((tables.cos, np.cos), (tables.sin, np.sin)):
            expected = function(angles) * decoder.attention_factor
            np.testing.assert_allclose(table[rows][:, :real], expected, atol=1e-5)
    assert tables.cos.dtype == tables.sin.dtype == np.float32


def test_padding_turns_nothing() -> None:
    tables = RotaryTables(NANO.decoder)
    real = NANO.decoder.num_frequencies
    assert (tables.cos[:, real:] == 1).all()
    assert (tables.sin[:, real:] == 0).all()
    assert tables.cos.shape == (2 * tables.capacity, 16)


def test_tables_double_and_keep_what_they_said() -> None:
    tables = RotaryTables(NANO.decoder)
    before = tables.cos[tables.positions(7, 20, "long")]
    tables.grow(FIRST_CAPACITY)
    assert tables.capacity == FIRST_CAPACITY
    tables.grow(FIRST_CAPACITY + 1)
    assert tables.capacity == 2 * FIRST_CAPACITY
    assert tables.positions(7, 20, "long")[0] == 7 + 2 * FIRST_CAPACITY
    np.testing.assert_array_equal(tables.cos[tables.positions(7, 20, "long")], before)


def test_tables_reach_no_further_than_the_context() -> None:
    decoder = replace(NANO.decoder, max_position_embeddings=700)
    tables = RotaryTables(decoder)
    tables.grow(600)
    assert tables.capacity == 700
    assert len(RotaryTables(replace(decoder, max_position_embeddings=40)).cos) == 80
