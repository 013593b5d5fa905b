"""What is measured: cells of several series that take turns, each kept in a file of its own.

Prompts and answers come once for each peer, with our two profiles beside it: not all peers fit into memory
at once, and only what was measured in turns is compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from harness.programs import PEERS, PROGRAMS
from harness.scale import Scale
from phi4.bench.report import Group

How = Literal["ask", "start", "memory", "made_s", "made_memory"]
OURS = ("fast", "lean")


@dataclass(frozen=True)
class Series:
    """One line of a cell: a program doing one thing.

    Attributes:
        label: Key within the cell.
        program: Name in `PROGRAMS`.
        how: "ask" = an operation of a program in memory; "start" = a new process up to the first token;
            "memory" = peak of a new process; "made_s" and "made_memory" = what making its file took.
        operation: What to ask.
        tokens: Random ids to send along; 0 = none.
        media: Whether to send the prompt with the picture.
        args: More for the operation.
        warm: Run once without counting on every new process.
    """

    label: str
    program: str
    how: How = "ask"
    operation: str = ""
    tokens: int = 0
    media: bool = False
    args: Mapping[str, Any] = field(default_factory=dict)
    warm: bool = False


@dataclass(frozen=True)
class Cell:
    """Things that are compared with each other.

    Attributes:
        name: File name of its results.
        title: What it is, in words.
        group: See `phi4.bench.report.Row`.
        unit: "tokens/s", "s" or "GB".
        turns: Samples of each series.
        series: Who takes turns.
        peer: Program without which it says nothing that another cell does not say.
    """

    name: str
    title: str
    group: Group
    unit: str
    turns: int
    series: tuple[Series, ...]
    peer: str = ""

    @property
    def more_is_better(self) -> bool:
        """A rate and not a time."""
        return self.unit == "tokens/s"

    @property
    def programs(self) -> tuple[str, ...]:
        """Programs that take part."""
        return tuple(dict.fromkeys(series.program for series in self.series))


def all_cells(scale: Scale) -> list[Cell]:
    """Every cell in the order of measuring: what matters most first."""
    beside = [cell for peer in PEERS for cell in _beside(peer, scale)]
    return [*beside, _batched(scale), _copying(scale), *_alone(scale), *_media(scale), _long(scale)]


def _beside(peer: str, scale: Scale) -> list[Cell]:
    """A prompt and an answer of our profiles and one peer; the first is measured even without its peer."""
    label, needed = PROGRAMS[peer].label, "" if peer == PEERS[0] else peer

    def cell(name: str, title: str, group: Group, **what: Any) -> Cell:
        series = tuple(Series(each, each, tokens=scale.prompt, **what) for each in (*OURS, peer))
        title = f"{title} {scale.prompt:,}, beside {label}"
        return Cell(f"{name}.{peer}", title, group, "tokens/s", scale.turns, series, needed)

    return [
        cell("prefill", "prompt of", "prompt", operation="prefill"),
        cell("decode", "answer after", "answer", operation="decode", args={"steps": scale.steps}),
    ]


def _long(scale: Scale) -> Cell:
    """A long prompt, once each: programs that do not fit into memory together need not come back."""
    names, tokens = (*OURS, *PEERS), scale.long_prompt
    series = tuple(Series(name, name, operation="prefill", tokens=tokens) for name in names)
    return Cell("long", f"prompt of {tokens:,}", "prompt", "tokens/s", scale.long_turns, series)


def _batched(scale: Scale) -> Cell:
    series = tuple(
        Series(
            f"{program}, {rows} row{'s' if rows > 1 else ''}",
            program,
            operation="decode",
            tokens=scale.prompt,
            args={"steps": scale.steps, "rows": rows},
        )
        for program in (*OURS, "llamacpp")
        for rows in (1, scale.rows)
    )
    return Cell("batched", f"answer after {scale.prompt:,}", "answer", "tokens/s", scale.turns, series)


def _copying(scale: Scale) -> Cell:
    series = tuple(
        Series(
            f"{program}, {'prompt lookup' if lookup else 'plain'}",
            program,
            operation="copying",
            tokens=scale.prompt,
            args={"steps": scale.steps, "lookup": lookup},
        )
        for program in OURS
        for lookup in (False, True)
    )
    title = "copied answer, all guesses right"
    return Cell("copying", title, "answer", "tokens/s", scale.turns, series)


def _alone(scale: Scale) -> list[Cell]:
    """What needs a process for itself, and what was noted when files were made."""
    names = (*OURS, *PEERS)
    starts = tuple(Series(name, name, "start", tokens=scale.first_prompt) for name in names)
    full = scale.context - 32
    held = tuple(Series(name, name, "memory", tokens=full, args={"steps": 16}) for name in names)
    makers = ("lean", "fast", "llamacpp", "openvino", "genai")  # transformers reads the checkpoint itself
    made_s = tuple(Series(name, name, "made_s") for name in makers)
    made_memory = tuple(Series(name, name, "made_memory") for name in makers)
    return [
        Cell("memory", f"peak memory, {scale.context:,} tokens", "memory", "GB", 1, held),
        Cell("start", "process start to first token", "start", "s", scale.starts, starts),
        Cell("export", "making the files", "start", "s", 1, made_s),
        Cell("export-memory", "peak memory while making the files", "memory", "GB", 1, made_memory),
    ]


def _media(scale: Scale) -> list[Cell]:
    def series(program: str, label: str, operation: str) -> Series:
        return Series(label, program, operation=operation, media=True, warm=True)

    crop = scale.multimodal.vision.crop_size if scale.multimodal.vision else 0
    seen = f"{3 * crop}x{2 * crop}, {scale.recording_s:.0f} s, 30 words"
    return [
        Cell(
            "first-token",
            f"first token: {seen}",
            "start",
            "s",
            scale.media_turns,
            (
                series("fast-media", "fast", "first_token"),
                series("transformers-media", "transformers", "first_token"),
            ),
        ),
        Cell(
            "speech",
            f"speech encoder, {scale.recording_s:.0f} s",
            "encoders",
            "s",
            scale.turns,
            (
                series("fast-speech", "fast", "encode_speech"),
                series("torch-speech", "torch", "encode_speech"),
            ),
        ),
    ]
