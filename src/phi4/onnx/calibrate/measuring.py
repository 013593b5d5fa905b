"""From a checkpoint and prompts to what its layers lose with 4 bits, and to a choice of layers for 8.

    losses = measure_layers(checkpoint, ExportOptions(), inputs)
    export_package(checkpoint, folder, ExportOptions(sensitive=10), rows=inputs)    # measures and chooses

For what an export with these options makes of the decoder: its parts, its merged adapter, its block size.
Layers are measured with searched scales, since calibrating each would take longer than it tells more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from phi4.checkpoint import Checkpoint
from phi4.configs import DECODER_TARGETS, Phi4Config
from phi4.onnx.build.network.linear import Precision
from phi4.onnx.build.options import ExportOptions, PrecisionName, exported_config
from phi4.onnx.calibrate.divergence import Fidelity
from phi4.onnx.calibrate.mixed import decoder_bytes, eight_bits
from phi4.onnx.calibrate.quantiser import make_quantiser
from phi4.onnx.calibrate.rows import make_rows
from phi4.onnx.calibrate.sensitivity import num_passes, sensitivity
from phi4.onnx.calibrate.walk import DecoderWeights
from phi4.onnx.serving.session import choose_session
from phi4.types import ModelInputs

MEASURED_TOKENS = 512
"""Positions the choice of `mixed_layers` is made on: enough to tell a bad layer from a good one."""
LAYERS_AT_ONCE = 8
"""Decoder layers measured in one walk of `measure_in_turns`: 201 MB of states in the released models, and
four walks in all where one layer at a time would take thirty-two."""


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
    return sensitivity(weights, rows, _searched(options), choice, layers)


def measure_in_turns(
    checkpoint: Checkpoint,
    options: ExportOptions,
    inputs: Sequence[ModelInputs],
    known: Collection[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[dict[str, float]]:
    """The same for all decoder layers, `LAYERS_AT_ONCE` at a time, on the first of the prompts.

    Args:
        checkpoint: The model.
        options: Parts, merged adapter and block size.
        inputs: Prompts; the first ones are used, up to about `MEASURED_TOKENS` positions.
        known: Names of linear layers that were measured before.
        progress: Told (passes of the rows through a layer done with, passes in all).

    Yields:
        Linear layers with their losses in nats, as soon as they are measured.
    """
    config, choice = exported_config(checkpoint.config, options), choose_session()
    count = config.decoder.num_hidden_layers
    turns = [range(first, min(first + LAYERS_AT_ONCE, count)) for first in range(0, count, LAYERS_AT_ONCE)]
    left = [turn for turn in turns if f"decoder.layers.{turn[0]}.{DECODER_TARGETS[0]}" not in known]
    if not left:
        return
    total = sum(num_passes(count, turn) for turn in turns)
    done = total - sum(num_passes(count, turn) for turn in left)

    def passed(passes: int) -> None:
        nonlocal done
        done += passes
        if progress is not None:
            progress(done, total)

    rows = make_rows(checkpoint, config, first_rows(inputs, MEASURED_TOKENS), choice)
    weights = DecoderWeights(checkpoint, config, options.merge_adapter)
    for turn in left:
        found = sensitivity(weights, rows, _searched(options), choice, turn, passed)
        yield {name: fidelity.nats for name, fidelity in found.items()}


def mixed_layers(
    config: Phi4Config, options: ExportOptions, losses: Mapping[str, float]
) -> dict[str, PrecisionName]:
    """The layers that get 8 bits; for `ExportOptions.layers`.

    Args:
        config: The model.
        options: Block size, and how much larger the decoder may become (`sensitive`).
        losses: Of all linear layers, by name.
    """
    assert options.sensitive is not None, "asked for, or there is nothing to choose"
    more = int(decoder_bytes(config, options.block_size) * options.sensitive / 100)
    return dict.fromkeys(eight_bits(losses, config, options.block_size, more), "int8")


def first_rows(inputs: Sequence[ModelInputs], tokens: int) -> Sequence[ModelInputs]:
    """The first rows that have so many positions together; at least one row where there is any."""
    total = 0
    for count, one in enumerate(inputs, 1):
        total += len(one.token_ids)
        if total >= tokens:
            return inputs[:count]
    return inputs


def _searched(options: ExportOptions) -> Precision:
    return Precision("int4", options.block_size, make_quantiser("search"))
