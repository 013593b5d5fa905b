"""Pictures to decoder vectors: the SigLIP-shaped tower, token order and the projector."""

from phi4.model.vision.embedder import VisionEmbedder

__all__ = ["VisionEmbedder"]
