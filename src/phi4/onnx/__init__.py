"""The same network as ONNX graphs, built from the weights and run by ONNX Runtime, without torch.

    package = open_package("nano-onnx")
    runner = open_ort_runner(package)          # from phi4.onnx.opening

A package is a folder: config, tokenizer, graphs, their weights, and `phi4_onnx.json` that says how they
belong together. `package/` reads and checks one, `build/` writes one, `calibrate/` chooses its weights,
`serving/` runs one behind the `ModelRunner` protocol. Importing this room imports neither onnxruntime nor
onnx-ir.
"""

from phi4.onnx.package import (
    Description,
    EmbeddingLayout,
    OnnxPackage,
    is_package,
    open_package,
    write_description,
)

__all__ = [
    "Description",
    "EmbeddingLayout",
    "OnnxPackage",
    "is_package",
    "open_package",
    "write_description",
]
