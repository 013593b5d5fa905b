"""The trained model as a directory anyone can load: original layout, bf16, manifest, facts of its making.

Training heads stay behind. The folder is made complete under another name and then renamed, so a
crash never leaves half a model where a whole one is expected.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from phi4.checkpoint.manifest import write_manifest
from phi4.checkpoint.saving import DEFAULT_SHARD_BYTES, save_checkpoint
from phi4.configs import Phi4Config
from phi4.model import Phi4Model, to_array
from phi4.shapes import AnyArray
from phi4.train.state import write_json

CARD_NAME = "training.json"


def export(
    model: Phi4Model,
    config: Phi4Config,
    folder: Path,
    card: Mapping[str, Any],
    tokenizer_file: Path | None = None,
    max_shard_bytes: int = DEFAULT_SHARD_BYTES,
) -> Path:
    """Write a model directory; an older one of the same name is replaced.

    Args:
        model: Weights of any dtype and device.
        config: Its config; written in the layout it names.
        folder: The directory.
        card: What `training.json` says.
        tokenizer_file: Copied as `tokenizer.json`.
        max_shard_bytes: Largest weight file.
    """
    temporary, former = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    for leftover in (temporary, former):
        shutil.rmtree(leftover, ignore_errors=True)
    save_checkpoint(
        temporary, replace(config, dtype="bfloat16"), _bf16(model), max_shard_bytes=max_shard_bytes
    )
    if tokenizer_file is not None:
        shutil.copyfile(tokenizer_file, temporary / "tokenizer.json")
    write_json(temporary / CARD_NAME, dict(card))
    write_manifest(temporary)
    if folder.exists():
        os.rename(folder, former)
    os.rename(temporary, folder)
    shutil.rmtree(former, ignore_errors=True)
    return folder


def _bf16(model: Phi4Model) -> Iterator[tuple[str, AnyArray]]:
    for name, tensor in model.state_dict().items():
        array = to_array(tensor)
        yield name, array.astype(ml_dtypes.bfloat16) if array.dtype == np.float32 else array
