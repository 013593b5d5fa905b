"""Weights from anywhere into a model, tensor by tensor.

The module is made without storage, then every parameter is read, converted and put in place before the
next one is read, so the peak stays at the bytes of the model plus one tensor. `read` is any function
from a canonical name to an array, such as a checkpoint's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from phi4.configs import AdapterConfig, Phi4Config
from phi4.errors import CheckpointMismatch
from phi4.model.attention import select_attention
from phi4.model.multimodal import Phi4Model
from phi4.shapes import AnyArray
from phi4.types import Modality

Read = Callable[[str], AnyArray]
"""Array of a canonical tensor name; raises KeyError or CheckpointMismatch when there is none."""


def build_model(
    config: Phi4Config,
    read: Read,
    parts: Sequence[Modality] | None = None,
    adapters: Sequence[str] | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    attention: str | None = None,
) -> Phi4Model:
    """A model with weights, in evaluation mode.

    Args:
        config: Sizes.
        read: Where the tensors come from.
        parts: Parts to load; None = all the config describes. Add others later with `load_part`.
        adapters: Adapters to load; None = those of the parts. Add others later with `load_adapter`.
        dtype: Type of every weight; None = `config.dtype`.
        device: Where they go.
        attention: Kernel, see `select_attention`.

    Raises:
        CheckpointMismatch: Tensors are missing or have another shape; all of them are listed.
        InvalidRequest: A part, adapter or kernel that does not exist.
    """
    kernel = select_attention(device, attention)
    with torch.device("meta"), _WithoutInit():
        model = Phi4Model(config, parts, adapters)
    _fill(model, read, dtype or getattr(torch, config.dtype), torch.device(device))
    model.attention = model.encoder_attention = kernel
    return model.eval()


def load_part(model: Phi4Model, part: Modality, read: Read) -> None:
    """Add an encoder to a model that runs without it; nothing happens when it is there.

    Raises:
        CheckpointMismatch: Its tensors are missing or misshapen; the model is as before.
        InvalidRequest: The model has no such part.
    """
    if part == "text" or getattr(model, part, None) is not None:
        return
    dtype, device = model.dtype, model.device
    with torch.device("meta"), _WithoutInit():
        model.add_part(part)
    try:
        _fill(model, read, dtype, device)
    except BaseException:  # Ctrl-C too: a half-filled part would look as if it were loaded
        setattr(model, part, None)
        raise
    getattr(model, part).train(model.training)


def load_adapter(model: Phi4Model, adapter: AdapterConfig, read: Read) -> None:
    """Add an adapter, the model's own or a user's, to a model that runs without it.

    Args:
        model: Changed in place.
        adapter: Name, rank, scale and the matrices it acts on.
        read: Gives its tensors by canonical name, `decoder.layers.{i}.{target}.lora_{A,B}.{name}.weight`.

    Raises:
        CheckpointMismatch: Its tensors are missing or misshapen; the model is as before.
        InvalidRequest: An adapter of that name is loaded.
    """
    dtype, device = model.dtype, model.device
    with _WithoutInit():
        model.add_adapter(adapter)
    try:
        _fill(model, read, dtype, device, only=f".{adapter.name}.weight")
    except BaseException:
        model.remove_adapter(adapter.name)
        raise


class _WithoutInit(TorchFunctionMode):
    """Skips the random numbers of new layers, which are about to be replaced.

    They cost time, and without storage also memory: torch then imports its compiler (80 MB, a second).
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"]
        return func(*args, **kwargs)


def _fill(
    model: nn.Module, read: Read, dtype: torch.dtype, device: torch.device, only: str | None = None
) -> None:
    """Give every storage-less tensor (or every tensor whose name ends in `only`) its values."""
    missing, misshapen = [], []
    for name, owner, leaf, old in _tensors(model):
        if not (old.is_meta if only is None else ".lora_" in name and name.endswith(only)):
            continue
        try:
            array = read(name)
        except (KeyError, CheckpointMismatch):
            missing.append(name)
            continue
        if tuple(array.shape) != tuple(old.shape):
            misshapen.append(f"{name}: file has {list(array.shape)}, model needs {list(old.shape)}")
            continue
        tensor = to_tensor(array).to(device=device, dtype=dtype)
        if isinstance(old, nn.Parameter):
            setattr(owner, leaf, nn.Parameter(tensor, requires_grad=old.requires_grad))
        else:
            setattr(owner, leaf, tensor)
    if missing or misshapen:
        raise CheckpointMismatch(_describe(missing, misshapen))


def _tensors(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, Tensor]]:
    """(full name, owning module, attribute, tensor) of every parameter and persistent buffer."""
    for prefix, owner in model.named_modules():
        for leaf, tensor in (*owner.named_parameters(recurse=False), *owner.named_buffers(recurse=False)):
            yield f"{prefix}.{leaf}" if prefix else leaf, owner, leaf, tensor


def _describe(missing: list[str], misshapen: list[str]) -> str:
    lines = [f"the weights do not fit the model: {len(missing)} missing, {len(misshapen)} misshapen"]
    lines += [f"missing: {name}" for name in missing[:10]] + [f"misshapen: {line}" for line in misshapen[:10]]
    return "\n".join([*lines, "check that config.json and the weight files belong together"])


def to_tensor(array: AnyArray) -> Tensor:
    """A CPU tensor over an array's memory; bfloat16 keeps its bits, read-only memory is copied."""
    if not array.flags.writeable or not array.flags.c_contiguous:
        array = np.array(array, order="C")
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def to_array(tensor: Tensor) -> AnyArray:
    """The inverse of `to_tensor`; bfloat16 comes back as ml_dtypes.bfloat16.

    A CPU tensor shares its memory with the array.
    """
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        import ml_dtypes

        return tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()
