"""Which graphs a package has for what it can do, how each stores its weights, and what it takes once loaded.

The one map between modalities and graphs: opening, reporting and the doctor's check of memory follow it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from phi4.types import Modality

PART_GRAPHS: dict[Modality, tuple[str, ...]] = {
    "text": ("decoder", "head"),
    "vision": ("vision",),
    "speech": ("subsampling", "speech"),
}
PREFILL = "prefill"
"""The decoder's second form, for prompts; a package need not have it."""
PREFILL_PRECISION = "int8 per channel"
_PLAIN = ".plain"


def graph_names(parts: Sequence[Modality], prefill: bool) -> tuple[str, ...]:
    """Graphs of these parts, the form for prompts beside the decoder where there is one."""
    names = [name for part in parts for name in PART_GRAPHS[part]]
    if prefill and "decoder" in names:
        names.insert(1 + names.index("decoder"), PREFILL)
    return tuple(names)


def decoder_forms(prefill: bool) -> tuple[str, ...]:
    """Forms of the decoder a package has."""
    return ("decoder", PREFILL) if prefill else ("decoder",)


def has_plain(user_slot: bool, adapters: Sequence[str]) -> bool:
    """Whether a package has its decoder without branches for adapters too.

    Args:
        user_slot: Whether the decoder takes an adapter of the user's own.
        adapters: Adapters inside it.
    """
    return user_slot and not adapters


def plain_form(name: str) -> str:
    """Name of a form of the decoder without branches for adapters; it has no weights of its own."""
    return f"{name}{_PLAIN}"


def data_file(name: str) -> str:
    """The file a graph takes its weights from."""
    return f"{name.removesuffix(_PLAIN)}.onnx.data"


def stated_precision(kind: str) -> str:
    """What a package says of linear layers of a kind: the form for many rows by what it is."""
    return PREFILL_PRECISION if kind == "rows8" else kind


def graph_precision(name: str, precision: Mapping[str, str]) -> str:
    """How the linear layers of a graph are stored.

    Args:
        name: The graph.
        precision: "decoder", "head" and the encoders there are -> how they are stored.
    """
    if name == PREFILL:  # whatever the decoder has
        return PREFILL_PRECISION
    return precision.get("speech" if name == "subsampling" else name, "unknown")


def loaded_bytes(stored_bytes: int, precision: str) -> int:
    """Memory the weights of a graph take in a session: fp16 is widened when the session opens.

    Args:
        stored_bytes: Size of its data file.
        precision: From `graph_precision`.
    """
    return stored_bytes * (2 if precision == "fp16" else 1)
