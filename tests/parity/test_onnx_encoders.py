"""The encoder graphs give the features the torch encoders give, at tiny and at nano sizes.

Weights are random and the media pass through the real tiler, so that padding is what users meet. Quantised
graphs are held to a relative error that a wrong layout of the stored weights would exceed many times.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from phi4.configs import Phi4Config, tiny_multimodal
from phi4.configs.presets import NANO
from phi4.configs.routing import AudioProjector
from phi4.model import Phi4Model, audio_batch, build_model, image_batch
from phi4.onnx.build.network.linear import Precision
from phi4.onnx.build.network.speech import build_speech, build_subsampling
from phi4.onnx.build.network.vision import build_vision
from phi4.onnx.package.quantise import dequantise_blocks, quantise_blocks, quantise_channels
from phi4.onnx.serving.encoders import Encoders
from phi4.processing.tiles import tile_image
from phi4.shapes import FloatArray
from phi4.testing.tiny import tiny_tensors
from phi4.types import AudioArrays, ImageArrays

pytestmark = pytest.mark.parity
LIMIT = 1e-4
FP32 = Precision("fp32")
QUANTISED = (
    Precision("fp16"), Precision("int8"), Precision("int8", 32), Precision("rows8"), Precision("int4"),
    Precision("int4", 32),
)  # fmt: skip
RELATIVE = "relative Frobenius error"


def unusual(base: Phi4Config) -> Phi4Config:
    """Values no released model has: every field the graphs read differs from its default."""
    assert base.vision is not None and base.speech is not None
    vision = replace(
        base.vision, crop_size=96, patch_size=8, layer_norm_eps=0.01, feature_layer=2, num_attention_heads=2
    )
    speech = replace(
        base.speech, bias_max_distance=5, max_window_tokens=20, kernel_size=4, input_size=77, num_blocks=3
    )
    return replace(base, vision=vision, speech=speech)


CONFIGS = {"tiny": tiny_multimodal(), "nano": NANO, "unusual": unusual(tiny_multimodal())}
PICTURES = {
    "square": (1.0, 1.0),
    "padded below": (0.6, 1.9),
    "padded right": (2.0, 0.7),
    "2x3 crops": (2.0, 3.0),
}
FRAMES = {
    "2 s": 200,
    "odd": 333,
    "one frame": 1,
    "a window": 4000,
    "over a window": 4001,
    "three pieces": 5207,
}


@dataclass(frozen=True)
class Pair:
    """The same weights as a torch model and as graphs."""

    config: Phi4Config
    model: Phi4Model
    encoders: Encoders

    def features(
        self, media: ImageArrays | AudioArrays, projector: AudioProjector = "speech"
    ) -> tuple[FloatArray, FloatArray]:
        """What the graphs give and what torch gives."""
        with torch.inference_mode():
            if isinstance(media, ImageArrays):
                expected, _ = self.model.encode_images(image_batch([media]))
            else:
                expected, _ = self.model.encode_audios(audio_batch([media], [projector]))
        found = self.encoders.encode(media, projector)
        assert found.dtype == np.float32
        assert found.shape == expected.shape == (media.num_tokens, self.config.decoder.hidden_size)
        return found, expected.numpy()


Make = Callable[..., Pair]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Builds a pair once: `pair("nano", Precision("int8"))`."""
    made: dict[tuple[str, Precision], Pair] = {}

    def build(size: str, precision: Precision = FP32) -> Pair:
        if (size, precision) not in made:
            made[size, precision] = make_pair(CONFIGS[size], precision, tmp_path_factory.mktemp(size))
        return made[size, precision]

    return build


def make_pair(config: Phi4Config, precision: Precision, folder: Path) -> Pair:
    tensors = dict(tiny_tensors(config))
    read, width = tensors.__getitem__, config.decoder.hidden_size
    assert config.vision is not None and config.speech is not None
    build_vision(config.vision, width, read, folder / "vision.onnx", precision)
    build_subsampling(config.speech, read, folder / "subsampling.onnx", precision)
    build_speech(config.speech, width, read, folder / "speech.onnx", precision)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1

    def open_session(name: str) -> onnxruntime.InferenceSession:
        return onnxruntime.InferenceSession(
            str(folder / f"{name}.onnx"), options, providers=["CPUExecutionProvider"]
        )

    model = build_model(config, read, dtype=torch.float32)
    return Pair(config, model, Encoders(open_session, config.vision, config.speech))


def picture(config: Phi4Config, height_crops: float, width_crops: float, seed: int = 0) -> ImageArrays:
    """A tiled picture of noise, its size given in crops."""
    assert config.vision is not None
    size = [round(side * config.vision.crop_size) for side in (height_crops, width_crops)]
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return tile_image(noise, config.vision)


def recording(config: Phi4Config, num_frames: int, seed: int = 0) -> AudioArrays:
    """A recording of random log-mel frames."""
    assert config.speech is not None
    shape = (num_frames, config.speech.input_size)
    features = np.random.default_rng(seed).normal(-8, 2, shape).astype(np.float32)
    return AudioArrays(features, -(-num_frames // 8), num_frames / 100, str(seed))


def stored(name: str, array: FloatArray, precision: Precision) -> FloatArray:
    """What a tensor of the encoders stands for once it is stored at a precision."""
    kept = ("decoder.", "patch_embedding", "position_embedding", ".conv.", "bias_values", "norm")
    if not name.endswith(".weight") or any(part in name for part in kept):
        return array
    if precision.kind == "fp16":
        return array.astype(np.float16).astype(np.float32)
    if precision.kind == "rows8":
        steps, scales = quantise_channels(array)
        return steps * scales[:, None]
    bits = 4 if precision.kind == "int4" else 8
    packed, scales = quantise_blocks(array, bits, precision.block_size)
    return dequantise_blocks(packed, scales, bits, array.shape[1])


def relative_error(found: FloatArray, expected: FloatArray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("size", CONFIGS)
@pytest.mark.parametrize("name", PICTURES)
def test_pictures_give_torchs_features(name: str, size: str, pair: Make, parity_table: Any) -> None:
    made = pair(size)
    image = picture(made.config, *PICTURES[name])
    assert image.patch_mask.all() == (not name.startswith("padded"))
    found, expected = made.features(image)
    parity_table.add(f"onnx vision, {size}, {name}", np.abs(found - expected).max().item(), LIMIT)


@pytest.mark.parametrize("size", CONFIGS)
def test_crop_of_padding_alone_gives_torchs_features(size: str, pair: Make, parity_table: Any) -> None:
    made = pair(size)
    whole = picture(made.config, 1.0, 2.0)
    mask = whole.patch_mask.copy()
    mask[2] = False
    assert made.config.vision is not None
    grid = made.config.vision.grid
    image = ImageArrays(whole.pixels, mask, whole.size_px, made.config.vision.num_tokens(grid, grid), "")
    found, expected = made.features(image)
    assert np.isfinite(found).all()
    parity_table.add(f"onnx vision, {size}, empty crop", np.abs(found - expected).max().item(), LIMIT)


@pytest.mark.parametrize("size", CONFIGS)
@pytest.mark.parametrize("projector", ["speech", "vision"])
@pytest.mark.parametrize("name", FRAMES)
def test_recordings_give_torchs_features(
    name: str, projector: AudioProjector, size: str, pair: Make, parity_table: Any
) -> None:
    made = pair(size)
    found, expected = made.features(recording(made.config, FRAMES[name]), projector)
    difference = np.abs(found - expected).max().item()
    parity_table.add(f"onnx speech, {size}, {name}, projector {projector}", difference, LIMIT)


@pytest.mark.parametrize("size", CONFIGS)
@pytest.mark.parametrize("precision", QUANTISED, ids=repr)
def test_quantised_features_are_those_of_the_stored_weights(
    precision: Precision, size: str, pair: Make, parity_table: Any
) -> None:
    # What is left of the error comes from activations in 8 bits; a wrong layout errs by more than 1.
    made = pair(size, precision)
    tensors = {name: stored(name, array, precision) for name, array in tiny_tensors(made.config)}
    rounded = replace(made, model=build_model(made.config, tensors.__getitem__, dtype=torch.float32))
    for media in (picture(made.config, 0.6, 1.9), recording(made.config, 333)):
        case = f"onnx {type(media).__name__}, {size}, {precision.kind}-{precision.block_size}, same weights"
        limit = LIMIT if precision.kind == "fp16" else 0.06
        parity_table.add(case, relative_error(*rounded.features(media)), limit, note=RELATIVE)


@pytest.mark.parametrize("size", CONFIGS)
@pytest.mark.parametrize(("kind", "limit"), [("fp16", 2e-3), ("int8", 0.06), ("rows8", 0.06)])
def test_eight_bits_keep_the_features(
    kind: Any, limit: float, size: str, pair: Make, parity_table: Any
) -> None:
    made = pair(size, Precision(kind))
    for media in (picture(made.config, 0.6, 1.9), recording(made.config, 333)):
        case = f"onnx {type(media).__name__}, {size}, {kind}"
        parity_table.add(case, relative_error(*made.features(media)), limit, note=RELATIVE)
