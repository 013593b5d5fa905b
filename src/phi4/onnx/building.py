"""The door to `phi4.onnx.build`, which needs packages that running a model does not.

options = ExportOptions(precision="int4")
check_export(checkpoint, out, options)         # what can be refused before rows are made
export_package(checkpoint, out, options)
"""

from __future__ import annotations

from phi4.errors import MissingExtra

try:
    import onnx_ir  # noqa: F401
except ImportError:
    raise MissingExtra(
        "writing ONNX graphs needs onnx-ir; install the extra, from the checkout: pip install '.[export]'"
    ) from None

from phi4.onnx.build.export import ExportOptions, already_exported, check_export, export_package
from phi4.onnx.calibrate.measuring import measure_layers

__all__ = ["ExportOptions", "already_exported", "check_export", "export_package", "measure_layers"]
