"""The methods of quantising to 4 bits behind one call: name, weight, bits and block size to blocks.

    quantise = make_quantiser("gptq", grams)

Matrices of the decoder's layers are calibrated. Others of 4 bits (large adapters, encoders or a head that
were asked for in 4 bits) have their scales searched, for want of inputs to calibrate with. With 8 bits the
error is a 256th: those are rounded to nearest, whatever the method.
"""

from __future__ import annotations

import numpy as np

from phi4.onnx.build.options import CALIBRATED, Method
from phi4.onnx.calibrate.gptq import gptq_blocks
from phi4.onnx.calibrate.grams import Grams
from phi4.onnx.calibrate.search import best_scales, weighted_scales
from phi4.onnx.package.description import layer_of
from phi4.onnx.package.quantise import Blocks, Quantise, quantise_blocks, round_to_nearest
from phi4.shapes import AnyArray


def make_quantiser(method: Method, grams: Grams | None = None) -> Quantise:
    """How weights of a package become blocks.

    Args:
        method: One of `METHODS`.
        grams: Of the inputs, for the calibrated methods; their diagonals alone for "weighted".
    """
    if method == "rtn":
        return round_to_nearest
    assert (grams is not None) == (method in CALIBRATED), method

    def quantise(name: str, weight: AnyArray, bits: int, block_size: int) -> Blocks:
        if bits != 4:
            return quantise_blocks(weight, bits, block_size)
        layer = layer_of(name)
        if grams is None or name != f"{layer}.weight":
            return quantise_blocks(weight, bits, block_size, best_scales)
        if method == "weighted":
            return quantise_blocks(weight, bits, block_size, weighted_scales(grams.of(layer), block_size))
        return gptq_blocks(np.asarray(weight, np.float32), grams.of(layer), block_size)

    return quantise
