"""Recordings to decoder vectors: subsampling, conformer blocks and the two projectors.

`SpeechEmbedder(config, output_size)` takes an `AudioBatch` and gives its vectors, one recording after
the other. It starts at log-mel frames: sound is read and resampled in `phi4.processing`.
"""

from phi4.model.speech.embedder import SpeechEmbedder

__all__ = ["SpeechEmbedder"]
