"""From a checkpoint and prompts to what its layers lose with 4 bits, and to a choice of layers for 8.

    losses = measure_layers(checkpoint, ExportOptions(), inputs)
    layers = mixed_layers(checkpoint, ExportOptions(), inputs, percent=10)
    export_package(checkpoint, folder, replace(options, layers=layers))

For what an export with these options makes of the decoder: its parts, its merged adapter, its block size.
Layers are measured with searched scales, since calibrating each would take longer than it tells more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from phi4.checkpoint import Checkpoint
from phi4.errors import InvalidRequest
from phi4.onnx.build.linear import Precision
from phi4.onnx.build.options import ExportOptions, PrecisionName, exported_config
from phi4.onnx.calibrate.divergence import Fidelity
from phi4.onnx.calibrate.mixed import decoder_bytes, eight_bits
from phi4.onnx.calibrate.quantiser import make_quantiser
from phi4.onnx.calibrate.rows import make_rows
from phi4.onnx.calibrate.sensitivity import sensitivity
from phi4.onnx.calibrate.walk import DecoderWeights
from phi4.onnx.session import choose_session
from phi4.types import ModelInputs

MEASURED_TOKENS = 512
"""Positions the choice of `mixed_layers` is made on: enough to tell a bad layer from a good one."""


def measure_layers(
    checkpoint: Checkpoint,
    options: ExportOptions,
    inputs: Sequence[ModelInputs],
    layers: range | None = None,
) -> dict[str, Fidelity]:
    """What next-token distributions lose when one linear layer of the decoder has 4 bits; see `sensitivity`.

    Args:
        checkpoint: The model.
        options: Parts, merged adapter and block size.
        inputs: Prompts to judge on.
        layers: Decoder layers to measure; None = all.

    Raises:
        InvalidRequest: Options that cannot be, or prompts the model cannot read.
    """
    config, choice = exported_config(checkpoint.config, options), choose_session()
    rows = make_rows(checkpoint, config, inputs, choice)
    weights = DecoderWeights(checkpoint, config, options.merge_adapter)
    precision = Precision("int4", options.block_size, make_quantiser("search"))
    return sensitivity(weights, rows, precision, choice, layers)


def mixed_layers(
    checkpoint: Checkpoint,
    options: ExportOptions,
    inputs: Sequence[ModelInputs],
    percent: float,
) -> dict[str, PrecisionName]:
    """Measure all layers and give the most sensitive ones 8 bits; for `ExportOptions.layers`.

    Args:
        checkpoint: The model.
        options: As it will be exported, but for `layers`.
        inputs: Prompts; the first ones are used, up to about `MEASURED_TOKENS` positions.
        percent: How much larger the decoder's matrices may become than with 4 bits alone.

    Raises:
        InvalidRequest: A decoder that has not 4 bits, or a share that is not above 0.
    """
    if options.of("decoder").kind != "int4":
        raise InvalidRequest("8 bits for sensitive layers: the others must have 4; choose precision int4")
    if not 0 < percent <= 100:
        raise InvalidRequest(f"{percent} percent more bytes for sensitive layers: must be above 0, up to 100")
    config = exported_config(checkpoint.config, replace(options, layers={}))
    more = int(decoder_bytes(config, options.block_size) * percent / 100)
    found = measure_layers(checkpoint, options, first_rows(inputs, MEASURED_TOKENS))
    losses = {name: fidelity.nats for name, fidelity in found.items()}
    return dict.fromkeys(eight_bits(losses, config, options.block_size, more), "int8")


def first_rows(inputs: Sequence[ModelInputs], tokens: int) -> Sequence[ModelInputs]:
    """The first rows that have so many positions together; at least one row where there is any."""
    total = 0
    for count, one in enumerate(inputs, 1):
        total += len(one.token_ids)
        if total >= tokens:
            return inputs[:count]
    return inputs
