"""The reference side of the parity tests, and the table they fill.

The reference is transformers' Phi-4-multimodal at tiny sizes, every parameter filled from its name (so
that no mistake hides behind a zero), eager attention, CPU. `pytest tests/parity --parity-table FILE`
writes every measured difference as JSON.
"""

from __future__ import annotations

import json
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from phi4.checkpoint.inventory import expected_shapes
from phi4.checkpoint.keymap import to_stored
from phi4.configs import AdapterConfig, tiny_multimodal
from phi4.model import Phi4Model, build_model, load_adapter
from phi4.types import AudioArrays, ImageArrays, MediaSpan, ModelInputs

IMAGE_ID, AUDIO_ID = 1, 2
PATCH_PX = 14
USER_ADAPTER = AdapterConfig("mine", 3, 6.0)
TARGETS = r"model\.layers\.\d+\.(self_attn\.(qkv|o)_proj|mlp\.(gate_up|down)_proj)"


def hf_name(name: str) -> str:
    """HF-native name of one of our tensors, as the shipped key map has it."""
    stored = to_stored(name, "hf")
    assert stored is not None, name
    return stored


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--parity-table", help="write the measured differences to this JSON file")


def hashed(name: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Numbers in [-0.5, 0.5) from a name: the deterministic fill behind golden.json."""
    mask = np.uint64(0xFFFFFFFF)
    x = np.arange(1, int(np.prod(shape)) + 1, dtype=np.uint64) * np.uint64(2654435761)
    x = (x + np.uint64(zlib.crc32(name.encode()))) & mask
    x ^= x >> np.uint64(15)
    x = (x * np.uint64(2246822519)) & mask
    x ^= x >> np.uint64(13)
    return (x / 2.0**32 - 0.5).reshape(shape)


def filled(name: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """The value of a parameter or buffer, by its HF-native name."""
    around_one = ("norm" in name and name.endswith("weight")) or name.endswith("global_invstd")
    value = 1.0 + 0.2 * hashed(name, shape) if around_one else 0.4 * hashed(name, shape)
    return value.astype(np.float32)


@dataclass
class Table:
    """Measured differences, one line per case."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, case: str, difference: float, limit: float, note: str = "") -> None:
        """Record a case, then hold it to its limit."""
        self.rows.append({"case": case, "max_abs_diff": difference, "limit": limit, "note": note})
        assert difference < limit, f"{case}: {difference:.3g} is not under {limit:.3g}"


@pytest.fixture(scope="session")
def parity_table(request: pytest.FixtureRequest) -> Iterator[Table]:
    table = Table()
    yield table
    path = request.config.getoption("--parity-table", default=None)
    if path:
        Path(path).write_text(json.dumps(table.rows, indent=1) + "\n")


@pytest.fixture(scope="session")
def golden(repository: Path) -> dict[str, Any]:
    return json.loads((repository / "tests" / "data" / "golden" / "golden.json").read_text())


@pytest.fixture(scope="session")
def ours() -> Callable[..., Phi4Model]:
    """Builds our tiny model with the reference's weights: `ours(original_max, max_positions, dtype)`."""

    def build(
        original_max: int = 4096,
        max_positions: int = 131072,
        dtype: torch.dtype = torch.float32,
        user: bool = False,
    ) -> Phi4Model:
        config = tiny_multimodal(original_max, max_positions)
        shapes = expected_shapes(config)
        model = build_model(config, lambda name: filled(hf_name(name), shapes[name]), dtype=dtype)
        if user:
            rank = USER_ADAPTER.r

            def read(name: str) -> np.ndarray[Any, Any]:
                like = shapes[name.replace(".mine.", ".vision.")]
                return filled(hf_name(name), (rank, like[1]) if "lora_A" in name else (like[0], rank))

            load_adapter(model, USER_ADAPTER, read)
        return model

    return build


@pytest.fixture(scope="session")
def fill() -> Callable[[str, tuple[int, ...]], np.ndarray[Any, Any]]:
    """The value of a tensor by our name: what `ours` and `reference` are filled with."""
    return lambda name, shape: filled(hf_name(name), shape)


@pytest.fixture(scope="session")
def reference() -> Callable[..., Any]:
    """Builds the reference: `reference(original_max, max_positions, dtype)`, with adapters on request."""
    from transformers.models.phi4_multimodal.configuration_phi4_multimodal import (
        Phi4MultimodalAudioConfig,
        Phi4MultimodalConfig,
        Phi4MultimodalVisionConfig,
    )
    from transformers.models.phi4_multimodal.modeling_phi4_multimodal import Phi4MultimodalForCausalLM

    def build(
        original_max: int = 4096,
        max_positions: int = 131072,
        dtype: torch.dtype = torch.float32,
        adapters: tuple[AdapterConfig, ...] = (),
    ) -> Any:
        vision = Phi4MultimodalVisionConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, image_size=448,
            crop_size=448, patch_size=14, image_token_id=IMAGE_ID,
        )  # fmt: skip
        audio = Phi4MultimodalAudioConfig(
            hidden_size=32, intermediate_size=48, num_blocks=2, num_attention_heads=4, ext_pw_out_channel=32,
            depthwise_separable_out_channel=32, nemo_conv_channels=16, bias_max_distance=500,
            audio_token_id=AUDIO_ID,
        )  # fmt: skip
        config = Phi4MultimodalConfig(
            vocab_size=256, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, rms_norm_eps=1e-5, tie_word_embeddings=True, sliding_window=None,
            pad_token_id=0, bos_token_id=0, eos_token_id=[0, 3], max_position_embeddings=max_positions,
            original_max_position_embeddings=original_max, vision_config=vision, audio_config=audio,
            rope_parameters={
                "rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 0.75,
                "short_factor": [1.0] * 12, "long_factor": [float(i) for i in range(1, 13)],
                "original_max_position_embeddings": original_max,
            },
            attn_implementation="eager",
        )  # fmt: skip
        model = Phi4MultimodalForCausalLM(config).eval()
        for adapter in adapters:
            _add_peft_adapter(model, adapter)
        _fill_reference(model)
        frequencies = {name: buffer.clone() for name, buffer in model.named_buffers() if "inv_freq" in name}
        model.to(dtype)
        for name, values in frequencies.items():
            # A cast of the whole module would round them, which loading a bf16 checkpoint does not do.
            module, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(module), leaf, values)
        return model

    return build


def _add_peft_adapter(model: Any, adapter: AdapterConfig) -> None:
    from peft import LoraConfig

    lora = LoraConfig(r=adapter.r, lora_alpha=adapter.lora_alpha, target_modules=TARGETS, lora_dropout=0.0)
    with warnings.catch_warnings():
        # peft warns that several adapters share one model, which is what is wanted here.
        warnings.simplefilter("ignore", UserWarning)
        model.add_adapter(lora, adapter_name=adapter.name)


@torch.no_grad()
def _fill_reference(model: Any) -> None:
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        persistent = "rotary" not in name and "inv_freq" not in name
        if persistent:
            plain = name.replace(".base_layer.", ".")
            tensor.copy_(torch.from_numpy(filled(plain, tuple(tensor.shape))))


@dataclass(frozen=True)
class Case:
    """One prompt: our row, and the reference's keyword arguments for the same prompt."""

    row: ModelInputs

    @property
    def kwargs(self) -> dict[str, Any]:
        ids = torch.from_numpy(self.row.token_ids)[None]
        return {"input_ids": ids, **_reference_media(self.row.images, self.row.audios)}


def picture(
    tag: str, crop_rows: int, crop_cols: int, valid_rows: int | None = None, crop_px: int = 448
) -> ImageArrays:
    """A picture of hashed pixels; of the local crops only the first `valid_rows` patch rows are valid."""
    count, grid = 1 + crop_rows * crop_cols, crop_px // PATCH_PX
    pixels = (2.0 * hashed(tag, (1, count, 3, crop_px, crop_px)))[0].astype(np.float32)
    mask = np.ones((count, grid, grid), dtype=np.bool_)
    if valid_rows is not None:
        assert crop_rows == 1, "padding is cut from one row of crops"
        mask[1:, valid_rows:] = False
    half = grid // 2
    rows = half * crop_rows if valid_rows is None else -(-valid_rows // 2)
    num_tokens = half * (half + 1) + 1 + rows * (half * crop_cols + 1)
    return ImageArrays(pixels, mask, (crop_px * crop_rows, crop_px * crop_cols), num_tokens, tag)


def recording(tag: str, num_frames: int) -> AudioArrays:
    """A recording of hashed features."""
    features = (2.0 * hashed(tag, (1, num_frames, 80)))[0].astype(np.float32)
    return AudioArrays(features, -(-num_frames // 8), num_frames / 100, tag)


@pytest.fixture(scope="session")
def prompt() -> Callable[..., Case]:
    """Builds a case: `prompt([5, 6, picture, 7])`; a medium stands for its placeholders."""

    def build(*items: int | ImageArrays | AudioArrays) -> Case:
        ids: list[int] = []
        spans: list[MediaSpan] = []
        images = [item for item in items if isinstance(item, ImageArrays)]
        audios = [item for item in items if isinstance(item, AudioArrays)]
        for item in items:
            if isinstance(item, int):
                ids.append(item)
                continue
            is_image = isinstance(item, ImageArrays)
            index = sum(span.kind == ("image" if is_image else "audio") for span in spans)
            spans.append(MediaSpan("image" if is_image else "audio", index, len(ids), item.num_tokens))
            ids += [IMAGE_ID if is_image else AUDIO_ID] * item.num_tokens
        return Case(ModelInputs(np.array(ids), tuple(images), tuple(audios), tuple(spans)))

    return build


def _reference_media(images: tuple[ImageArrays, ...], audios: tuple[AudioArrays, ...]) -> dict[str, Any]:
    """Keyword arguments of the reference, pictures padded to the largest crop count with zeros."""
    kwargs: dict[str, Any] = {}
    if images:
        most = max(len(image.pixels) for image in images)
        pixels = np.zeros((len(images), most, 3, 448, 448), dtype=np.float32)
        mask = np.ones((len(images), most, 32, 32), dtype=np.bool_)
        for index, image in enumerate(images):
            pixels[index, : len(image.pixels)] = image.pixels
            mask[index, : len(image.pixels)] = image.patch_mask
        kwargs["image_pixel_values"] = torch.from_numpy(pixels)
        kwargs["image_attention_mask"] = torch.from_numpy(mask)
        kwargs["image_sizes"] = torch.tensor([image.size_px for image in images])
    if audios:
        assert len(audios) == 1, "the reference leaks padding between recordings"
        kwargs["audio_input_features"] = torch.from_numpy(audios[0].features[None])
        kwargs["audio_embed_sizes"] = torch.tensor([audios[0].num_tokens])
    return kwargs


@pytest.fixture(scope="session")
def media_for() -> Callable[[int], dict[str, ImageArrays | AudioArrays]]:
    """The tiny media of golden.json and a few more, for a model with crops of so many pixels."""

    def build(crop_px: int) -> dict[str, ImageArrays | AudioArrays]:
        padded_rows = 22 * crop_px // 448  # two thirds of a crop are picture
        return {
            "full": picture("pixels", 1, 1, crop_px=crop_px),
            "padded": picture("pixels2", 1, 2, valid_rows=padded_rows, crop_px=crop_px),
            "tall": picture("pixels3", 2, 1, crop_px=crop_px),
            "second": recording("audio", 98),
            "short": recording("audio_short", 41),
            "long": recording("audio_long", 4080),
            "two_windows": recording("audio_windows", 8000),
        }

    return build


@pytest.fixture(scope="session")
def media(
    media_for: Callable[[int], dict[str, ImageArrays | AudioArrays]],
) -> dict[str, ImageArrays | AudioArrays]:
    """The media for the reference, whose crops have 448 pixels."""
    return media_for(448)
