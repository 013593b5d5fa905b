"""Packages of the tiny model, written by the builders."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from phi4.checkpoint import write_manifest
from phi4.configs import Phi4Config, write_config
from phi4.onnx import Description, OnnxPackage, open_package, write_description
from phi4.onnx.build.network.decoder import build_decoder
from phi4.onnx.build.network.head import build_head
from phi4.onnx.build.network.linear import Precision
from phi4.onnx.build.network.speech import build_speech, build_subsampling
from phi4.onnx.build.network.vision import build_vision
from phi4.onnx.build.plain import write_plain
from phi4.onnx.package.description import CacheKind
from phi4.onnx.package.parts import decoder_forms, has_plain
from phi4.onnx.package.rotary_order import padded_half
from phi4.shapes import AnyArray
from phi4.testing.tiny import tiny_config, tiny_tensors

WritePackage = Callable[..., Path]
FP32 = Precision("fp32")


def _write_package(
    folder: Path,
    config: Phi4Config,
    tensors: Mapping[str, AnyArray],
    *,
    precision: Precision = FP32,
    head: Precision = FP32,
    user_slot: bool = True,
    prefill: Precision | None = None,
    cache: CacheKind = "fp32",
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    read, width = tensors.__getitem__, config.decoder.hidden_size
    build_decoder(config, read, folder / "decoder.onnx", lambda name: precision, user_slot, cache)
    if prefill is not None:
        build_decoder(config, read, folder / "prefill.onnx", lambda name: prefill, user_slot, cache)
    embedding = build_head(config, read, folder / "head.onnx", head)
    if config.vision is not None:
        build_vision(config.vision, width, read, folder / "vision.onnx", FP32)
    if config.speech is not None:
        build_subsampling(config.speech, read, folder / "subsampling.onnx", FP32)
        build_speech(config.speech, width, read, folder / "speech.onnx", FP32)
    (folder / "config.json").write_text(json.dumps(write_config(config)))
    adapters = tuple(adapter.name for adapter in config.adapters)
    write_description(
        folder,
        Description(
            parts=config.modalities,
            precision={"decoder": precision.kind, "head": head.kind},
            adapters=adapters,
            user_slot=user_slot,
            prefill=prefill is not None,
            rotary_half=padded_half(config.decoder),
            embedding=embedding,
            cache=cache,
        ),
    )
    if has_plain(user_slot, adapters):
        write_plain(folder, decoder_forms(prefill is not None))
    write_manifest(folder)
    return folder


@pytest.fixture(scope="session")
def write_package() -> WritePackage:
    """Writes a package: `write_package(folder, config, tensors, precision=..., head=..., ...)`."""
    return _write_package


@pytest.fixture(scope="session")
def tiny() -> Phi4Config:
    """The tiny model with a context of 512."""
    return tiny_config(max_positions=512)


@pytest.fixture(scope="session")
def tiny_folder(tiny: Phi4Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole tiny model in float32; not to be changed."""
    return _write_package(tmp_path_factory.mktemp("package") / "tiny", tiny, dict(tiny_tensors(tiny)))


@pytest.fixture(scope="session")
def tiny_package(tiny_folder: Path) -> OnnxPackage:
    """The same, opened."""
    return open_package(tiny_folder)
