"""Which linear layers get 8 bits where the others have 4: the ones that lose most for their size.

    chosen = eight_bits(losses, config, block_size=128, more_bytes=100_000_000)
    options = replace(options, layers=dict.fromkeys(chosen, "int8"))

Losses of single layers are added up as if none influenced another, which holds while they are small.
"""

from __future__ import annotations

from collections.abc import Mapping

from phi4.configs import Phi4Config
from phi4.onnx.build.network.linear import Precision, stored_bytes
from phi4.onnx.build.options import layer_shapes


def decoder_bytes(config: Phi4Config, block_size: int) -> int:
    """Bytes of the decoder's matrices with 4 bits each."""
    return sum(stored_bytes(shape, Precision("int4", block_size)) for shape in layer_shapes(config).values())


def eight_bits(
    losses: Mapping[str, float], config: Phi4Config, block_size: int, more_bytes: int
) -> tuple[str, ...]:
    """Choose layers, those first that lose most for each byte their other half takes.

    Args:
        losses: What each layer loses with 4 bits, by name; of any unit, such as nats. What it would lose
            with 8 is a 256th of that.
        config: The model.
        block_size: Weights that share a scale.
        more_bytes: How much larger the decoder may become.

    Returns:
        Names in forward order; layers that no longer fit are passed over for smaller ones.
    """
    shapes, left = layer_shapes(config), more_bytes
    small, large = Precision("int4", block_size), Precision("int8", block_size)
    costs = {name: stored_bytes(shapes[name], large) - stored_bytes(shapes[name], small) for name in losses}
    chosen = set()
    for name in sorted(losses, key=lambda name: (-losses[name] / costs[name], name)):
        if losses[name] > 0 and costs[name] <= left:
            left -= costs[name]
            chosen.add(name)
    return tuple(name for name in shapes if name in chosen)
