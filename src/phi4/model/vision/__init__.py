"""Pictures to decoder vectors: the SigLIP-shaped tower, token order and the projector.

`VisionEmbedder(config, output_size)` takes an `ImageBatch` and gives its vectors, one picture after
the other. It starts at crops of pixels: pictures are read and cut in `phi4.processing`.
"""

from phi4.model.vision.embedder import VisionEmbedder

__all__ = ["VisionEmbedder"]
