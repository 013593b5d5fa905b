"""Prepare the prompt of the multimodal cells: `python -P -m peers.write_media MODEL OUT.npz SECONDS`.

A picture of three by two crops (1344 x 896 pixels at the released crop size), noise of so many seconds, and
30 words. What they show changes nothing about the time.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from peers.media_file import Media, write_media
from phi4.configs import read_config
from phi4.processing.messages import parse_messages
from phi4.processing.processor import Processor
from phi4.processing.tokenizer import Phi4Tokenizer

WORDS = (
    "Please listen to the recording first, then look at the picture and tell me in two or three short "
    "sentences whether what is said there fits what can be seen."
)
COLUMNS, ROWS = 3, 2
RATE_HZ = 16_000


def prepare(folder: Path, seconds: float) -> Media:
    """The prompt for a model's config and tokenizer."""
    config = read_config(folder)
    assert config.vision is not None and config.speech is not None, "a multimodal model"
    tokenizer = Phi4Tokenizer.load(folder, config.decoder.vocab_size)
    processor = Processor(config, tokenizer)
    random = np.random.default_rng(0)
    crop = config.vision.crop_size
    picture = random.integers(0, 256, (ROWS * crop, COLUMNS * crop, 3), np.uint8)
    sound = random.normal(0, 0.1, round(seconds * RATE_HZ)).astype(np.float32)
    start = time.perf_counter()
    inputs = processor.prepare(parse_messages([{"role": "user", "content": WORDS}], picture, sound))
    prepare_s = time.perf_counter() - start
    spans = {span.kind: np.array([span.start, span.length]) for span in inputs.spans}
    image, audio = inputs.images[0], inputs.audios[0]
    return Media(
        token_ids=inputs.token_ids,
        pixels=image.pixels,
        patch_mask=image.patch_mask,
        size_px=np.array(image.size_px),
        features=audio.features,
        image_span=spans["image"],
        audio_span=spans["audio"],
        prepare_s=np.array(prepare_s),
    )


if __name__ == "__main__":
    write_media(Path(sys.argv[2]), prepare(Path(sys.argv[1]), float(sys.argv[3])))
