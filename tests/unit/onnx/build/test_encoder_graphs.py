"""The encoder graphs and the arrays that go through them, without torch."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from phi4.checkpoint import expected_shapes
from phi4.configs import Phi4Config
from phi4.errors import InvalidRequest
from phi4.onnx.build.network.graph import INLINE_BYTES
from phi4.onnx.build.network.linear import Precision
from phi4.onnx.build.network.speech import build_speech, build_subsampling
from phi4.onnx.build.network.vision import build_vision
from phi4.onnx.serving import encoders as encoders_module
from phi4.onnx.serving.encoders import Encoders
from phi4.shapes import AnyArray, FloatArray
from phi4.testing.tiny import tiny_config, tiny_tensors
from phi4.types import AudioArrays, ImageArrays

GRAPHS = ("vision", "subsampling", "speech")
FP32 = Precision("fp32")
Read = Callable[[str], AnyArray]


def short_windows(config: Phi4Config) -> Phi4Config:
    """The config with windows of 7 tokens, so that a few seconds fill several."""
    assert config.speech is not None
    return replace(config, speech=replace(config.speech, max_window_tokens=7))


@pytest.fixture(scope="module")
def config() -> Phi4Config:
    return short_windows(tiny_config())


@pytest.fixture(scope="module")
def tensors(config: Phi4Config) -> dict[str, FloatArray]:
    return dict(tiny_tensors(config))


@pytest.fixture(scope="module")
def folder(
    config: Phi4Config, tensors: dict[str, FloatArray], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The three graphs in float32."""
    return build(config, tensors.__getitem__, tmp_path_factory.mktemp("graphs"))


@pytest.fixture
def encoders(config: Phi4Config, folder: Path) -> Encoders:
    return Encoders(lambda name: session(folder, name), config.vision, config.speech)


def build(config: Phi4Config, read: Read, folder: Path, precision: Precision = FP32) -> Path:
    width = config.decoder.hidden_size
    assert config.vision is not None and config.speech is not None
    build_vision(config.vision, width, read, folder / "vision.onnx", precision)
    build_subsampling(config.speech, read, folder / "subsampling.onnx", precision)
    build_speech(config.speech, width, read, folder / "speech.onnx", precision)
    return folder


def session(folder: Path, name: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    path = str(folder / f"{name}.onnx")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def picture(crop_rows: int, crop_cols: int, valid_rows: int, valid_cols: int) -> ImageArrays:
    """Noise in crops of 4 x 4 patches of 14 pixels, of which the first rows and columns are valid."""
    whole = np.zeros((4 * crop_rows, 4 * crop_cols), dtype=np.bool_)
    whole[:valid_rows, :valid_cols] = True
    cut = whole.reshape(crop_rows, 4, crop_cols, 4).transpose(0, 2, 1, 3).reshape(-1, 4, 4)
    mask = np.concatenate((np.ones((1, 4, 4), dtype=np.bool_), cut))
    pixels = np.random.default_rng(1).uniform(-1, 1, (len(mask), 3, 56, 56)).astype(np.float32)
    num_tokens = 7 + -(-valid_rows // 2) * (-(-valid_cols // 2) + 1)
    return ImageArrays(pixels, mask, (56 * crop_rows, 56 * crop_cols), num_tokens, "")


def recording(num_frames: int) -> AudioArrays:
    features = np.random.default_rng(2).normal(-8, 2, (num_frames, 80)).astype(np.float32)
    return AudioArrays(features, -(-num_frames // 8), num_frames / 100, "")


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_graphs_have_the_inputs_and_outputs_the_runner_feeds(folder: Path) -> None:
    found = {
        name: {
            value.name: (value.type, value.shape) for value in (*opened.get_inputs(), *opened.get_outputs())
        }
        for name in GRAPHS
        for opened in [session(folder, name)]
    }
    number, whole, flag = "tensor(float)", "tensor(int64)", "tensor(bool)"
    assert found == {
        "vision": {
            "pixels": (number, ["C", 3, 56, 56]),
            "position_ids": (whole, ["C", 16]),
            "seen": (flag, ["C", 16]),
            "index": (whole, ["N"]),
            "features": (number, ["N", 64]),
        },
        "subsampling": {"frames": (number, [1, "A", 80]), "vectors": (number, [1, "T", 32])},
        "speech": {
            "windows": (number, ["W", "w", 32]),
            "vision_projector": (flag, []),
            "features": (number, ["N", 64]),
        },
    }


@pytest.mark.parametrize("kind", ["fp32", "fp16", "int8", "int4", "rows8"])
def test_building_twice_gives_the_same_bytes(
    kind: str, config: Phi4Config, tensors: dict[str, FloatArray], tmp_path: Path
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        build(config, tensors.__getitem__, tmp_path / name, Precision(kind))
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert sorted(digests(tmp_path / "one")) == sorted(
        f"{graph}.onnx{end}" for graph in GRAPHS for end in ("", ".data")
    )


def test_every_tensor_of_the_encoders_is_read_once(
    config: Phi4Config, tensors: dict[str, FloatArray], tmp_path: Path
) -> None:
    names: list[str] = []

    def read(name: str) -> AnyArray:
        names.append(name)
        return tensors[name]

    build(config, read, tmp_path)
    expected = expected_shapes(config, ("vision", "speech"), ())
    assert sorted(names) == sorted(name for name in expected if not name.startswith("decoder."))


@pytest.mark.parametrize("kind", ["fp32", "int4"])
def test_a_build_holds_one_large_tensor_at_a_time(
    kind: str, config: Phi4Config, tensors: dict[str, FloatArray], tmp_path: Path
) -> None:
    alive: dict[str, int] = {}
    most = 0

    def read(name: str) -> AnyArray:
        nonlocal most
        array = tensors[name].copy()
        if array.nbytes > INLINE_BYTES:  # smaller ones stand in the graph itself
            alive[name] = array.nbytes
            weakref.finalize(array, alive.pop, name)
            most = max(most, len(alive))
        return array

    build(config, read, tmp_path, Precision(kind))
    assert most == 1
    assert not alive


def test_weights_in_bfloat16_give_the_graph_of_their_float32_values(
    config: Phi4Config, tensors: dict[str, FloatArray], tmp_path: Path
) -> None:
    rounded = {name: array.astype(ml_dtypes.bfloat16) for name, array in tensors.items()}
    widened = {name: array.astype(np.float32) for name, array in rounded.items()}
    for precision in (FP32, Precision("int4", 32)):
        found = []
        for source in (rounded, widened):
            target = tmp_path / f"{precision.kind}{len(found)}"
            target.mkdir()
            found.append(digests(build(config, source.__getitem__, target, precision)))
        assert found[0] == found[1]


def test_only_layers_of_attention_mlp_and_projector_are_quantised(
    config: Phi4Config, tensors: dict[str, FloatArray], tmp_path: Path
) -> None:
    build(config, tensors.__getitem__, tmp_path, Precision("int4"))
    stored = {
        name: value.dtype
        for graph in GRAPHS
        for name, value in ir.load(tmp_path / f"{graph}.onnx").graph.initializers.items()
    }
    quantised = {name.removesuffix(".q4") for name in stored if name.endswith(".q4")}
    kept = ("patch_embedding", "position_embedding", ".conv.", "bias_values", "norm")
    expected = {
        name
        for name in expected_shapes(config, ("vision", "speech"), ())
        if name.endswith(".weight") and not name.startswith("decoder.") and not any(k in name for k in kept)
    }
    assert quantised == expected
    for name in set(tensors) & set(stored):
        assert stored[name] == ir.DataType.FLOAT, name


def test_a_build_that_fails_leaves_no_graph(
    config: Phi4Config, tensors: dict[str, FloatArray], tmp_path: Path
) -> None:
    del (incomplete := dict(tensors))["vision.img_projection.2.weight"]
    assert config.vision is not None
    with pytest.raises(KeyError, match=r"img_projection\.2"):
        build_vision(config.vision, 64, incomplete.__getitem__, tmp_path / "vision.onnx", FP32)
    assert not list(tmp_path.iterdir())


def test_pixels_of_padding_do_not_matter(encoders: Encoders) -> None:
    # Pooling reads 2 x 2 blocks, so an even number of valid columns keeps padding out altogether.
    image = picture(1, 2, 4, 6)
    pixels = image.pixels.copy()
    pixels[2, :, :, 2 * 14 :] = 0.25
    first, second = encoders.encode(image), encoders.encode(replace(image, pixels=pixels))
    np.testing.assert_allclose(first, second, atol=1e-6)
    pixels[2, :, :, : 2 * 14] = 0.25
    assert np.abs(first - encoders.encode(replace(image, pixels=pixels))).max() > 1e-2


def test_crop_of_padding_alone_leaves_the_rest_finite(encoders: Encoders) -> None:
    image = picture(1, 2, 4, 4)
    assert not image.patch_mask[2].any()
    assert np.isfinite(encoders.encode(image)).all()
    assert len(encoders.encode(image)) == image.num_tokens


def test_patches_that_see_nothing_give_no_nan(folder: Path) -> None:
    feed = {
        "pixels": np.ones((1, 3, 56, 56), np.float32),
        "position_ids": np.zeros((1, 16), np.int64),
        "seen": np.zeros((1, 16), np.bool_),
        "index": np.arange(6),
    }
    assert np.isfinite(session(folder, "vision").run(None, feed)[0]).all()


@pytest.mark.parametrize("crops_at_once", [1, 2, 3])
@pytest.mark.parametrize("valid", [(12, 8), (9, 5), (4, 8)])
def test_crops_in_groups_give_the_features_of_one_pass(
    crops_at_once: int, valid: tuple[int, int], encoders: Encoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = picture(3, 2, *valid)
    whole = encoders.encode(image)
    monkeypatch.setattr(encoders_module, "PATCHES_AT_ONCE", 16 * crops_at_once)
    np.testing.assert_allclose(encoders.encode(image), whole, atol=1e-5)
    assert len(whole) == image.num_tokens


@pytest.mark.parametrize("num_frames", [64, 65, 136, 199, 200])
def test_frames_in_pieces_give_the_features_of_one_pass(
    num_frames: int, encoders: Encoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = encoders.encode(recording(num_frames))
    monkeypatch.setattr(encoders_module, "PIECE_FRAMES", 64)
    np.testing.assert_allclose(encoders.encode(recording(num_frames)), whole, atol=1e-5)
    assert len(whole) == -(-num_frames // 8)


def test_windows_in_groups_give_the_features_of_one_pass(
    encoders: Encoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio = recording(8 * 7 * 4 + 20)
    monkeypatch.setattr(encoders_module, "WINDOWS_AT_ONCE", 100)
    whole = encoders.encode(audio)
    monkeypatch.setattr(encoders_module, "WINDOWS_AT_ONCE", 2)
    np.testing.assert_allclose(encoders.encode(audio), whole, atol=1e-5)


def test_windows_of_a_long_recording_do_not_see_each_other(encoders: Encoders) -> None:
    audio = recording(8 * 7 * 3)
    features = audio.features.copy()
    features[8 * 14 + 8 :] = -4.0  # eight frames later, since the subsampling looks seven ahead
    first, second = encoders.encode(audio), encoders.encode(replace(audio, features=features))
    np.testing.assert_allclose(first[:14], second[:14], atol=1e-6)
    assert np.abs(first[14:] - second[14:]).max() > 1e-2


def test_the_two_projectors_differ(encoders: Encoders) -> None:
    for_speech, for_vision = (encoders.encode(recording(50), name) for name in ("speech", "vision"))
    assert np.abs(for_speech - for_vision).max() > 0.1


def test_features_of_other_float_types_are_taken(encoders: Encoders) -> None:
    image, audio = picture(1, 1, 4, 4), recording(30)
    for media, field in ((image, "pixels"), (audio, "features")):
        wide = replace(media, **{field: getattr(media, field).astype(np.float64)})
        np.testing.assert_array_equal(encoders.encode(wide), encoders.encode(media))


def test_graphs_are_opened_once_and_when_needed(config: Phi4Config, folder: Path) -> None:
    opened: list[str] = []

    def open_session(name: str) -> onnxruntime.InferenceSession:
        opened.append(name)
        return session(folder, name)

    encoders = Encoders(open_session, config.vision, config.speech)
    assert opened == []
    for _ in range(2):
        encoders.encode(picture(1, 1, 4, 4))
    assert opened == ["vision"]
    for _ in range(2):
        encoders.encode(recording(30))
    assert opened == ["vision", "subsampling", "speech"]


def test_media_without_an_encoder_are_refused(config: Phi4Config, folder: Path) -> None:
    text_only = Encoders(lambda name: session(folder, name), None, None)
    with pytest.raises(InvalidRequest, match="no vision part"):
        text_only.encode(picture(1, 1, 4, 4))
    with pytest.raises(InvalidRequest, match="no speech part"):
        text_only.encode(recording(30))
