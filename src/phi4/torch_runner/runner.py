"""`TorchRunner`: a live `Phi4Model` behind the `ModelRunner` protocol.

Takes any model object, also one that is being trained (for rollouts): weights are read anew in every
step and nothing is copied. Encoders and adapters that were not loaded yet come on first use when the
runner was given a place to read them from. One thread at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from phi4.configs import AdapterConfig
from phi4.configs.routing import AudioProjector
from phi4.engine.runner import (
    MediaHandle,
    RowResult,
    RunnerInfo,
    SequenceSpec,
    Slot,
    StepPlan,
    StepResult,
)
from phi4.errors import ContextOverflow, InvalidRequest
from phi4.model import Phi4Model, audio_batch, image_batch, load_adapter, load_part
from phi4.shapes import AnyArray
from phi4.torch_runner.cache import Cache
from phi4.torch_runner.forward import Work, run_batch, split_by_length
from phi4.torch_runner.memory import memory_errors
from phi4.torch_runner.results import batch_results
from phi4.types import AudioArrays, ImageArrays, Modality

_log = logging.getLogger(__name__)
_FEWER = "run fewer or shorter requests"


@dataclass(frozen=True)
class LazyWeights:
    """Parts and adapters that a runner may load when they are first needed.

    Attributes:
        read: Array of a canonical tensor name.
        parts: Encoders it may load.
        adapters: Adapters it may load.
    """

    read: Callable[[str], AnyArray]
    parts: tuple[Modality, ...] = ()
    adapters: tuple[AdapterConfig, ...] = ()


class TorchRunner:
    """Serves a model with PyTorch.

    Args:
        model: The network, on its device, with its attention chosen.
        lazy: What may be loaded later; None = only what the model has.
        max_rows: Most rows in one step. Cache memory is taken as sequences open, not in advance.
        max_step_tokens: Most positions in one step. 2,048 keep a large matrix busy; more only takes memory.
        max_cache_bytes: Limit of cache memory; None = what the device has.
    """

    def __init__(
        self,
        model: Phi4Model,
        *,
        lazy: LazyWeights | None = None,
        max_rows: int = 16,
        max_step_tokens: int = 2048,
        max_cache_bytes: int | None = None,
    ) -> None:
        self.model = model
        self._lazy = lazy
        self._limits = (max_rows, max_step_tokens)
        self._cache = Cache(model.config.decoder, model.device, model.dtype, max_cache_bytes)
        self._features: dict[int, Tensor] = {}
        self._num_encoded = 0
        _log.info(
            "torch runner on %s, %s, attention %s", self.info.device, self.info.dtype, self.info.attention
        )

    @property
    def info(self) -> RunnerInfo:
        """Limits, sizes and abilities; lazily loadable parts and adapters count as there."""
        model, lazy = self.model, self._lazy or LazyWeights(lambda name: _no_weights(name))
        loaded = {"vision": model.vision is not None, "speech": model.speech is not None, "text": True}
        modalities = tuple(part for part in model.config.modalities if loaded[part] or part in lazy.parts)
        names = dict.fromkeys([*model.router.scales, *(adapter.name for adapter in lazy.adapters)])
        return RunnerInfo(
            name="torch",
            device=str(model.device),
            dtype=str(model.dtype).removeprefix("torch."),
            attention=model.attention.name,
            vocab_size=model.config.decoder.vocab_size,
            max_context_tokens=model.config.decoder.max_position_embeddings,
            bytes_per_token=self._cache.bytes_per_token,
            max_rows=self._limits[0],
            max_step_tokens=self._limits[1],
            modalities=modalities,
            adapters=tuple(names),
        )

    @property
    def num_open(self) -> int:
        """Open sequences."""
        return self._cache.num_open

    @property
    def num_handles(self) -> int:
        """Encoder outputs held."""
        return len(self._features)

    @torch.inference_mode()
    def encode(self, media: ImageArrays | AudioArrays, projector: AudioProjector = "speech") -> MediaHandle:
        """Run an encoder; loads it first when it was left on disk. See `ModelRunner.encode`."""
        part: Modality = "vision" if isinstance(media, ImageArrays) else "speech"
        with self._evaluating(), memory_errors(f"encoding {part} input", _FEWER):
            self._need_part(part)
            if isinstance(media, ImageArrays):
                features, _ = self.model.encode_images(image_batch([media]))
            else:
                features, _ = self.model.encode_audios(audio_batch([media], [projector]))
        if len(features) != media.num_tokens:
            raise InvalidRequest(
                f"the arrays of a medium state {media.num_tokens} tokens, but the {part} encoder makes "
                f"{len(features)} of them; let phi4.processing make arrays, with the config of this model"
            )
        handle = MediaHandle(self._num_encoded, len(features))
        self._num_encoded += 1
        self._features[handle.id] = features
        return handle

    def release(self, handle: MediaHandle) -> None:
        """Forget encoder outputs."""
        del self._features[handle.id]

    def open(self, spec: SequenceSpec) -> Slot:
        """Begin a sequence; loads its adapters first when they were left on disk. See `ModelRunner.open`."""
        limit = self.model.config.decoder.max_position_embeddings
        if spec.reserved_tokens > limit:
            raise ContextOverflow(
                f"{spec.reserved_tokens} tokens asked for, the model's context is {limit}: shorten"
            )
        with memory_errors("loading an adapter", _FEWER):
            for name in spec.adapters:
                self._need_adapter(name)
        return self._cache.open(spec)

    def copy_prefix(self, source: Slot, target: Slot, length: int) -> None:
        """Copy the first `length` cached positions into an empty sequence."""
        self._cache.copy_prefix(source, target, length)

    def truncate(self, slot: Slot, length: int) -> None:
        """Forget positions from `length` on."""
        sequence = self._cache[slot]
        assert 0 <= length <= sequence.length
        sequence.length = length

    def close(self, slot: Slot) -> None:
        """End a sequence."""
        self._cache.close(slot)

    def length(self, slot: Slot) -> int:
        """Positions cached; beyond the protocol, for inspection."""
        return self._cache[slot].length

    @torch.inference_mode()
    def step(self, plan: StepPlan) -> StepResult:
        """Run the rows, in as few passes of the decoder as their lengths allow. See `ModelRunner.step`."""
        work = [Work(place, row, self._cache[row.slot]) for place, row in enumerate(plan.rows)]
        self._check(work)
        results: dict[int, RowResult] = {}
        with self._evaluating(), memory_errors("a step", _FEWER):
            for batch in split_by_length(work):
                results.update(self._run(batch))
        return StepResult(tuple(results[place] for place in range(len(work))))

    def _run(self, batch: Sequence[Work]) -> Iterator[tuple[int, RowResult]]:
        hidden = run_batch(self.model, self._features, batch)
        return batch_results(self.model, hidden, batch)

    def _check(self, work: Sequence[Work]) -> None:
        assert len({item.row.slot for item in work}) == len(work), "a slot stands twice in the plan"
        for item in work:
            assert item.count > 0, "a row without positions"
            assert item.sequence.length + item.count <= item.sequence.pool.capacity, (
                "more positions than reserved"
            )

    def _need_part(self, part: Modality) -> None:
        if getattr(self.model, part) is not None:
            return
        if self._lazy is None or part not in self._lazy.parts:
            loaded = ", ".join(self.info.modalities)
            raise InvalidRequest(
                f"the prompt needs the {part} encoder, but this model was loaded for {loaded} only; "
                f"use a model that has it, or load with modalities including {part!r}"
            )
        _log.info("loading the %s encoder", part)
        with torch.inference_mode(False):  # weights made under it could never be trained
            load_part(self.model, part, self._lazy.read)

    def _need_adapter(self, name: str) -> None:
        if name in self.model.router.scales:
            return
        for adapter in self._lazy.adapters if self._lazy else ():
            if adapter.name == name:
                assert self._lazy is not None
                _log.info("loading the adapter %s", name)
                load_adapter(self.model, adapter, self._lazy.read)
                return
        raise InvalidRequest(
            f"no adapter named {name!r}; this model has {list(self.info.adapters) or 'none'}"
        )

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Switch dropout off in a model that is being trained."""
        training = (
            [module for module in self.model.modules() if module.training] if self.model.training else []
        )
        for module in training:
            module.training = False
        try:
            yield
        finally:
            for module in training:
                module.training = True


def _no_weights(name: str) -> AnyArray:
    raise KeyError(name)
