"""`phi4 show`: what a checkpoint or an ONNX package is, without reading its weights. Works without torch."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi4.cli.console import print_json, printable, stdout, working
from phi4.errors import CheckpointMismatch, InvalidArtifact

if TYPE_CHECKING:
    from phi4.checkpoint import CheckpointReport
    from phi4.onnx.report import PackageReport
    from phi4.types import Modality

HELP = "tell what a model's folder is: parts, sizes, adapters, memory, what is missing (then exit code 5)"
SHOWN_NAMES = 20
_ANSWERS = "the form that answers (--runner torch takes the weights above)"
_WHOLE = "Every file is there and as the manifest states (of those above 64 MB the size alone is compared)."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this verb."""
    parser.add_argument(
        "model",
        nargs="?",
        default="nano",
        help="nano, a directory (also of an ONNX package), or a hub id, of which no weights are fetched "
        "(default: nano)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, every tensor name included")


def run(args: argparse.Namespace) -> int:
    """Describe the model; one that could not be loaded is described too, and has that exit code.

    A checkpoint with a package inside is two forms of a model, and both are described.
    """
    from phi4.checkpoint import describe_model, locate_model
    from phi4.onnx import is_package
    from phi4.registry import PACKAGE_FOLDER

    found = locate_model(args.model)
    if isinstance(found, Path) and is_package(found):
        alone = _Package.look(found)
        if alone.report is None:
            raise InvalidArtifact(alone.problems[0])
        if args.json:
            print_json(alone.as_dict())
        else:
            alone.show()
        return alone.exit_code
    inside = found / PACKAGE_FOLDER if isinstance(found, Path) else None
    package = _Package.look(inside) if inside is not None and is_package(inside) else None
    with working(f"looking at {args.model}"):
        report = describe_model(args.model)
    broken = bool(report.differences or report.absent_files)
    if args.json:
        kernels = attention(packaged=package is not None)
        whole = None if package is None else package.as_dict()
        print_json(report.as_dict() | {"attention": kernels, "package": whole})
    else:
        _print(facts(report, packaged=package is not None), differences(report))
        if package is not None:
            stdout().print(f"\n{PACKAGE_FOLDER}: {_ANSWERS}", style="bold", markup=False, soft_wrap=True)
            package.show()
    code = CheckpointMismatch.exit_code if broken else 0
    return code or (0 if package is None else package.exit_code)


@dataclass(frozen=True)
class _Package:
    """A package as far as it can be described; without a report there is one problem, which says why."""

    path: Path
    report: PackageReport | None
    problems: tuple[str, ...]
    prepared: Prepared | None = None

    @classmethod
    def look(cls, folder: Path) -> _Package:
        from phi4.onnx.report import describe_package

        try:
            report = describe_package(folder)
        except InvalidArtifact as refused:
            return cls(folder, None, (str(refused),))
        return cls(folder, report, report.problems, Prepared.look(folder))

    @property
    def exit_code(self) -> int:
        return InvalidArtifact.exit_code if self.problems else 0

    def as_dict(self) -> dict[str, Any]:
        known: dict[str, Any] = {"path": str(self.path)} if self.report is None else self.report.as_dict()
        prepared = None if self.prepared is None else self.prepared.folder
        return known | {"prepared": prepared, "problems": list(self.problems)}

    def show(self) -> None:
        lines = [("path", str(self.path))] if self.report is None else package_facts(self.report)
        if self.prepared is not None:
            lines.append(("prepared", self.prepared.words))
        _print(lines, [f"problem: {line}" for line in self.problems] or [_WHOLE])


@dataclass(frozen=True)
class Prepared:
    """What `phi4 prepare` stored of a package: in words, and where; None = nothing that can be used."""

    words: str
    folder: Path | None = None

    @classmethod
    def look(cls, package: Path) -> Prepared:
        """Look in the cache; large files are not read."""
        try:
            from phi4.onnx.serving.prepared import find_prepared
        except ImportError:
            return cls("unknown, ONNX Runtime is not installed")
        try:
            found = find_prepared(package, compare=False)
        except InvalidArtifact as broken:
            return cls(f"broken, so the files above are opened: {broken}")
        if found is None:
            return cls("no (phi4 prepare: opens sooner, takes less memory of its own)")
        return cls(f"for this machine, {size(found.nbytes)} in {found.folder}", found.folder)


def _print(lines: Sequence[tuple[str, str]], below: Sequence[str]) -> None:
    from rich.markup import escape

    console = stdout()
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        console.print(f"[bold]{name:<{width}}[/]  {escape(printable(value))}", soft_wrap=True)
    for line in below:
        console.print(printable(line), markup=False, soft_wrap=True)


def attention(*, packaged: bool = False) -> dict[str, Any]:
    """PyTorch's attention kernels that are installed and the one that will be chosen, without importing it.

    Args:
        packaged: Another form of the model answers where there is no PyTorch.
    """
    if find_spec("torch") is None:
        needs = "these weights need PyTorch" if packaged else "answers need PyTorch"
        return {"available": [], "chosen": f"none: {needs}, pip install '.[torch]'"}
    if find_spec("flash_attn") is None:
        return {"available": ["sdpa", "eager"], "chosen": "sdpa"}
    chosen = "flash on an NVIDIA GPU of compute capability 8.0 or newer, sdpa elsewhere"
    return {"available": ["flash", "sdpa", "eager"], "chosen": chosen}


def facts(report: CheckpointReport, *, packaged: bool = False) -> list[tuple[str, str]]:
    """Name and value of every line."""
    from phi4.engine.adapters import media_without_adapter

    decoder = report.config.decoder
    kernels = attention(packaged=packaged)
    lines = [
        ("path", str(report.path)),
        ("layout", report.layout),
        ("modalities", ", ".join(report.config.modalities)),
        ("dtype", ", ".join(f"{name} ({count} tensors)" for name, count in report.dtypes.items())),
        (
            "context",
            f"{decoder.max_position_embeddings:,} tokens, LongRoPE switches at "
            f"{decoder.original_max_position_embeddings:,}",
        ),
        ("parameters", f"{report.total_parameters:,}"),
    ]
    lines += [(f"  {part}", f"{count:,}") for part, count in report.parameters.items()]
    if report.unused_parameters:
        lines.append(("  unused", f"{report.unused_parameters:,} (stored, but nothing computes with them)"))
    lines += [
        (f"adapter {a.name}", f"rank {a.r}, alpha {a.lora_alpha:g}, {size(a.nbytes)}")
        for a in report.adapters
    ]
    lines += [
        (f"adapter {part}", f"none: {media} run on the base weights alone")
        for part, media in media_without_adapter(report.config).items()
    ]
    lines.append(("cache", f"{size(report.kv_bytes_per_token)} a token"))
    lines += [(f"memory {'+'.join(parts)}", memory(report, parts)) for parts in report.modality_sets()]
    lines.append(
        ("attention", f"{kernels['chosen']} (available: {', '.join(kernels['available']) or 'none'})")
    )
    return lines


def package_facts(report: PackageReport) -> list[tuple[str, str]]:
    """Name and value of every line about a package."""
    decoder, description = report.config.decoder, report.description
    limit = "" if description.context is None else f" of the model's {decoder.max_position_embeddings:,}"
    precision = ", ".join(f"{part} {kind}" for part, kind in description.precision.items())
    if "int4" in (*description.precision.values(), *description.layers.values()):
        precision += f", 4 bits by {description.method}"
    lines = [
        ("path", str(report.path)),
        ("form", "ONNX package, served by ONNX Runtime, without torch"),
        ("modalities", ", ".join(report.config.modalities)),
        ("precision", precision + (", prompts also int8" if description.prefill else "")),
        (
            "context",
            f"{report.context_tokens:,}{limit} tokens, LongRoPE switches at "
            f"{decoder.original_max_position_embeddings:,}",
        ),
        ("files", size(report.total_bytes)),
    ]
    lines += [(f"  {pattern}", kind) for pattern, kind in description.layers.items()]
    for graph in report.graphs:
        written = f"{size(graph.weight_bytes)}, {graph.precision}, graph {size(graph.graph_bytes)}"
        lines.append((f"  {graph.name}", written))
    lines += [(f"adapter {a.name}", f"rank {a.r}, alpha {a.lora_alpha:g}") for a in report.config.adapters]
    if description.merged is not None:
        lines.append((f"adapter {description.merged}", "part of the weights, always on"))
    slot = "has a slot" if description.user_slot else "has no slot"
    lines.append(("adapter of yours", slot + (" (--adapter)" if description.user_slot else "")))
    lines.append(("cache", f"{size(report.kv_bytes_per_token)} a token, {description.cache}"))
    for parts in report.modality_sets():
        whole, tokens = size(report.memory_bytes(parts)), f"{report.example_tokens:,} tokens"
        lines.append((f"memory {'+'.join(parts)}", f"{whole} with {tokens}, activations apart"))
    return lines


def memory(report: CheckpointReport, parts: Sequence[Modality]) -> str:
    """Bytes of the weights on disk, loaded where that differs, and with a cache."""
    stored, loaded = report.weight_bytes(parts), report.loaded_bytes(parts)
    converted = "" if stored == loaded else f", {size(loaded)} loaded as {report.loaded_dtype}"
    whole = size(report.memory_bytes(parts))
    return f"{size(stored)} stored{converted}, {whole} with 4,096 tokens, activations apart"


def differences(report: CheckpointReport) -> list[str]:
    """What does not fit, at most `SHOWN_NAMES` names of a kind; one line when everything fits."""
    found = report.differences
    kinds = {
        "missing": found.missing,
        "unexpected": found.unexpected,
        "misshapen": tuple(str(item) for item in found.misshapen),
        "files that are not there": report.absent_files,
    }
    lines: list[str] = []
    for kind, names in kinds.items():
        if names:
            lines.append(f"{kind}: {len(names)}")
            lines += [f"  {name}" for name in names[:SHOWN_NAMES]]
            lines += (
                [f"  and {len(names) - SHOWN_NAMES} more (--json lists all)"]
                if len(names) > SHOWN_NAMES
                else []
            )
    return lines or ["Every tensor is there and fits the config."]


def size(nbytes: int) -> str:
    """Bytes for people: 1024 B, then KiB, MiB, GiB."""
    value, unit = float(nbytes), "B"
    for larger in ("KiB", "MiB", "GiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:,.0f} {unit}" if unit == "B" else f"{value:,.1f} {unit}"
