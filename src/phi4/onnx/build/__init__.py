"""Building the graphs of a model straight from its weights; needs the extra `export`, never torch.

Nothing is imported here, so that the runtime may use `quantise` (numpy only) where onnx-ir is absent.
"""
