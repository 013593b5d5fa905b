"""`OrtRunner`: a package of ONNX graphs behind the `ModelRunner` protocol, computed by ONNX Runtime.

What its operators cannot mix stands in `RunnerInfo`: a step is one row of any length, or several rows of
one position each, and all rows have the same adapters. The scheduler keeps to that. Encoders and the form
of the decoder for prompts are opened when they are first needed. One thread at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from onnxruntime import InferenceSession

from phi4.checkpoint.adapters import UserAdapters, user_adapters
from phi4.configs.routing import AudioProjector
from phi4.engine.runner import (
    MediaHandle,
    RunnerInfo,
    SequenceSpec,
    Slot,
    StepPlan,
    StepResult,
)
from phi4.errors import ContextOverflow, InvalidRequest
from phi4.onnx.machine.memory import USABLE_SHARE, FreeMemory, check_fits, free_bytes
from phi4.onnx.package import OnnxPackage
from phi4.onnx.package.parts import PART_GRAPHS
from phi4.onnx.serving.encoders import Encoders
from phi4.onnx.serving.forward import Forward, Work
from phi4.onnx.serving.graphs import HeadGraph
from phi4.onnx.serving.lanes import Lanes
from phi4.onnx.serving.results import row_results
from phi4.onnx.serving.session import SessionChoice, open_session, runtime_errors
from phi4.shapes import FloatArray
from phi4.together import at_once
from phi4.types import AudioArrays, ImageArrays, Modality

_log = logging.getLogger(__name__)


class OrtRunner:
    """Serves a package with ONNX Runtime.

    Args:
        package: From `open_package`; its `parts` are what may be encoded.
        choice: Provider and threads, from `choose_session`.
        adapter: The user's own adapter; several = each for the sequences that name it.
        eager: Open the encoders now, not when they are first needed.
        max_rows: Most rows in one step. Cache memory is taken as sequences open, not in advance.
        max_step_tokens: Most positions in one step. 256 keep large matrix products busy, and are read faster
            than 512; who reads on meanwhile waits for no more.
        max_cache_bytes: Limit of cache memory; None = what is free beside the weights, see `lanes.py`.
        batch_invariant: Compute answers in pairs of rows, with an idle one where there is none: what a row
            computes then does not depend, to the last bit, on how many others share its steps. A lone row of
            a large model takes up to a tenth longer so.

    Raises:
        InvalidRequest: The package has no slot for an adapter of the user's own.
        InvalidArtifact: A graph cannot be run or does not belong to the package.
        OutOfMemory: The weights do not fit.
    """

    def __init__(
        self,
        package: OnnxPackage,
        choice: SessionChoice,
        *,
        adapter: UserAdapters = None,
        eager: bool = False,
        max_rows: int = 16,
        max_step_tokens: int = 256,
        max_cache_bytes: int | None = None,
        batch_invariant: bool = False,
    ) -> None:
        own = user_adapters(adapter)
        if own and not package.user_slot:
            raise InvalidRequest(
                f"{package.path}: exported without a slot for an adapter of your own, so "
                f"{own[0].config.name!r} cannot be used; export the model again with the slot"
            )
        self.package = package
        self._choice = choice
        self._lanes = Lanes(package.config.decoder, max_cache_bytes, package.cache, FreeMemory(free_bytes))
        self._check_room("head", "decoder")
        # The head takes twice its weights while it opens, and is open before the decoder holds much.
        self._head, self._forward = at_once(
            lambda: HeadGraph(package, choice, paired=batch_invariant),
            lambda: Forward(package, choice, own, self._lanes.unclaimed_bytes, paired=batch_invariant),
        )
        self._encoders = self._open_encoders(eager)
        self._features: dict[int, FloatArray] = {}
        self._num_encoded = 0
        names = tuple(one.config.name for one in own)
        self._info = self._describe(names, max_rows, max_step_tokens)
        _log.info("onnx runner on %s, %d threads, %s", choice.device, choice.threads, self._info.dtype)

    @property
    def info(self) -> RunnerInfo:
        """Limits, sizes and abilities."""
        return self._info

    @property
    def num_open(self) -> int:
        """Open sequences."""
        return self._lanes.num_open

    @property
    def num_handles(self) -> int:
        """Encoder outputs held."""
        return len(self._features)

    def encode(self, media: ImageArrays | AudioArrays, projector: AudioProjector = "speech") -> MediaHandle:
        """Run an encoder; opens its graphs first when that has not been done. See `ModelRunner.encode`."""
        part: Modality = "vision" if isinstance(media, ImageArrays) else "speech"
        if part not in self._info.modalities:
            raise InvalidRequest(
                f"the prompt needs the {part} encoder, but this package was opened for "
                f"{', '.join(self._info.modalities)} only; use a package that has it, or load with "
                f"modalities including {part!r}"
            )
        with runtime_errors(f"encoding {part} input"):
            features = self._encoders.encode(media, projector)
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
        """Begin a sequence. See `ModelRunner.open`."""
        limit = self._info.max_context_tokens
        if spec.reserved_tokens > limit:
            raise ContextOverflow(
                f"{spec.reserved_tokens} tokens asked for, the context here is {limit}: shorten"
            )
        for name in spec.adapters:
            if name not in self._info.adapters:
                known = list(self._info.adapters) or "none"
                raise InvalidRequest(f"no adapter named {name!r}; this model has {known}")
        assert len(set(spec.adapters)) == len(spec.adapters), "an adapter stands twice"
        return self._lanes.open(spec)

    def copy_prefix(self, source: Slot, target: Slot, length: int) -> None:
        """Copy the first `length` cached positions into an empty sequence."""
        self._lanes.copy_prefix(source, target, length)

    def truncate(self, slot: Slot, length: int) -> None:
        """Forget positions from `length` on."""
        sequence = self._lanes[slot]
        assert 0 <= length <= sequence.length
        sequence.length = length

    def close(self, slot: Slot) -> None:
        """End a sequence."""
        self._lanes.close(slot)

    def length(self, slot: Slot) -> int:
        """Positions cached; beyond the protocol, for inspection."""
        return self._lanes[slot].length

    def step(self, plan: StepPlan) -> StepResult:
        """Run the rows: one pass, or one for each range of lanes. See `ModelRunner.step`."""
        work = [Work(row, self._lanes[row.slot]) for row in plan.rows]
        _check(work)
        with runtime_errors("a step"):
            picked = self._forward.run(work, self._features)
            return StepResult(tuple(row_results(self._head.logits, work, picked)))

    def _open_encoders(self, eager: bool) -> Encoders:
        config, parts = self.package.config, self.package.parts
        names = [name for part in parts if part != "text" for name in PART_GRAPHS[part]] if eager else []
        opened = {name: self._open_encoder(name) for name in names}
        return Encoders(
            lambda name: opened.get(name) or self._open_encoder(name),
            config.vision if "vision" in parts else None,
            config.speech if "speech" in parts else None,
        )

    def _open_encoder(self, name: str) -> InferenceSession:
        self._check_room(name)
        return open_session(self.package.graph(name), self._choice)

    def _check_room(self, *graphs: str) -> None:
        """Refuse graphs whose weights do not fit beside what open sequences may still write."""
        needed = sum(self._choice.own_bytes(self.package, name) for name in graphs)
        if "head" in graphs:  # takes twice its weights for a moment, beside the decoder
            peak = needed + self._choice.own_bytes(self.package, "head")
            needed = max(needed, int(USABLE_SHARE * peak))
        what = f"{self.package.path}, {' and '.join(graphs)}"
        check_fits(what, needed, self._lanes.unclaimed_bytes())

    def _describe(self, own: tuple[str, ...], max_rows: int, max_step_tokens: int) -> RunnerInfo:
        decoder = self.package.config.decoder
        return RunnerInfo(
            name="onnx",
            device=self._choice.device,
            dtype=self.package.precision["decoder"],
            attention="GroupQueryAttention",
            vocab_size=decoder.vocab_size,
            max_context_tokens=self.package.max_context_tokens,
            bytes_per_token=self._lanes.bytes_per_token,
            max_rows=max_rows,
            max_step_tokens=max_step_tokens,
            modalities=self.package.parts,
            adapters=(*self.package.adapters, *own),
            mixes_adapters=False,
            mixes_prefill_decode=False,
            verifies_drafts_in_batch=False,
        )


def _check(work: Sequence[Work]) -> None:
    assert len({item.row.slot for item in work}) == len(work), "a slot stands twice in the plan"
    assert len({item.sequence.spec.adapters for item in work}) == 1, "rows with different adapters"
    assert len(work) == 1 or all(item.count == 1 for item in work), "prompts and answers in one step"
    for item in work:
        assert item.count > 0, "a row without positions"
        assert item.num_wanted <= item.count, "more targets than positions"
        room = item.sequence.pool.capacity - item.sequence.length
        assert item.count <= room, "more positions than reserved"
