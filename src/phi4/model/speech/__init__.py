"""Recordings to decoder vectors: subsampling, conformer blocks and the two projectors."""

from phi4.model.speech.embedder import SpeechEmbedder

__all__ = ["SpeechEmbedder"]
