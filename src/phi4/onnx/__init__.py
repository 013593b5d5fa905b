"""The same network as ONNX graphs, built from the weights and run by ONNX Runtime, without torch.

    package = open_package("nano-onnx")
    runner = open_ort_runner(package)          # from phi4.onnx.opening

A package is a folder: config, tokenizer, graphs, their weights, and `phi4_onnx.json` that says how they
belong together. `build/` writes one, `OrtRunner` (`runner.py`) serves one behind the `ModelRunner` protocol.
Importing this room imports neither onnxruntime nor onnx-ir.
"""

from __future__ import annotations

from phi4.onnx.description import Description, EmbeddingLayout, write_description
from phi4.onnx.package import OnnxPackage, is_package, open_package

__all__ = [
    "Description",
    "EmbeddingLayout",
    "OnnxPackage",
    "is_package",
    "open_package",
    "write_description",
]
