"""The door to `phi4.onnx.build`, which needs packages that running a model does not.

export_package(open_checkpoint(folder), out, ExportOptions(precision="int4"))
layers = mixed_layers(checkpoint, options, inputs, percent=10)
"""

from __future__ import annotations

from phi4.errors import MissingExtra

try:
    import onnx_ir  # noqa: F401
except ImportError:
    raise MissingExtra(
        "writing ONNX graphs needs onnx-ir; install the extra, from the checkout: pip install '.[export]'"
    ) from None

from phi4.onnx.build.export import ExportOptions, export_package
from phi4.onnx.calibrate.measuring import measure_layers, mixed_layers

__all__ = ["ExportOptions", "export_package", "measure_layers", "mixed_layers"]
