"""From a checkpoint to a `TorchRunner`: device, arithmetic, and what is loaded now or on first use."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from phi4.checkpoint import Checkpoint, UserAdapters, adapters_for, user_adapters
from phi4.checkpoint.inspect import loaded_dtype
from phi4.configs import DTYPES
from phi4.engine.runner import ModelRunner
from phi4.errors import InvalidRequest
from phi4.model import build_model, load_adapter, select_attention
from phi4.shapes import AnyArray
from phi4.torch_runner.memory import memory_errors
from phi4.torch_runner.runner import LazyWeights, TorchRunner
from phi4.types import Modality


def check_options(*, device: str | None, dtype: str | None, attention: str | None) -> None:
    """Refuse what cannot be had here, before any file of a model is looked for; see `open_torch_runner`.

    Raises:
        InvalidRequest: Names the option, its value and what is valid.
    """
    select_attention(_device(device), attention)
    if dtype is not None:
        _dtype(dtype)


def open_torch_runner(
    checkpoint: Checkpoint,
    *,
    modalities: Sequence[Modality] | None = None,
    device: str | None = None,
    dtype: str | None = None,
    attention: str | None = None,
    adapter: UserAdapters = None,
    batch_invariant: bool = False,
) -> ModelRunner:
    """Load a model and serve it.

    Args:
        checkpoint: An open model directory.
        modalities: Parts to load now, nothing later; None = text now, encoders and adapters on first use.
        device: As torch spells it; None = CUDA where there is a usable GPU, else CPU.
        dtype: Arithmetic; None = fp32 for a small model, else bf16, see `loaded_dtype`.
        attention: "sdpa", "eager" or "flash"; None = flash where installed and supported, else sdpa.
        adapter: The user's own adapter, loaded now; several = each for the sequences that name it.
        batch_invariant: Changes nothing: in float32 rows differ by rounding with how many there are, in
            bfloat16 by more, and the kernels have no other form.

    Raises:
        InvalidRequest: An option that cannot be had here.
        CheckpointMismatch: Tensors are missing or misshapen.
        OutOfMemory: The weights do not fit the device.
    """
    config = checkpoint.config
    chosen = _device(device)
    parts: tuple[Modality, ...] = ("text",) if modalities is None else tuple(modalities)

    def read(name: str) -> AnyArray:
        if name not in checkpoint.entries:
            raise KeyError(name)
        return checkpoint.read(name)

    with memory_errors("loading the model", "load fewer modalities, a smaller dtype, or on another device"):
        model = build_model(
            config,
            read,
            parts,
            [] if modalities is None else adapters_for(config, parts),
            _dtype(loaded_dtype(checkpoint.nbytes()) if dtype is None else dtype),
            chosen,
            attention,
        )
        for own in user_adapters(adapter):
            load_adapter(model, own.config, own.tensors.__getitem__)
    if modalities is not None:
        return TorchRunner(model)
    return TorchRunner(model, lazy=LazyWeights(read, config.modalities, config.adapters))


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidRequest(
            f"device {name!r} cannot be used here ({reason}); use 'cpu' or leave it out"
        ) from None
    if device.type == "meta":
        raise InvalidRequest(f"device {name!r} holds no values to compute with; use 'cpu' or leave it out")
    return device


def _dtype(name: str) -> torch.dtype:
    if name not in DTYPES:
        raise InvalidRequest(f"dtype {name!r} is unknown; choose one of {', '.join(DTYPES)}")
    found: torch.dtype = getattr(torch, name)
    return found
