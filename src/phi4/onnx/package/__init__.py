"""A package on disk: what it says about itself, how its blocks lie, and whether to trust its files.

    package = open_package("nano-onnx")

`description.py` is `phi4_onnx.json` both ways, `quantise.py` the blocks, `checking.py` what is compared
before ONNX Runtime opens anything. Both who writes packages (`build/`) and who serves them know this room.
"""

from phi4.onnx.package.description import Description, EmbeddingLayout, write_description
from phi4.onnx.package.folder import OnnxPackage, is_package, open_package

__all__ = [
    "Description",
    "EmbeddingLayout",
    "OnnxPackage",
    "is_package",
    "open_package",
    "write_description",
]
