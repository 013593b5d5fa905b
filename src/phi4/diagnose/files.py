"""Checks of the model's files: found, read, fitting each other, unchanged, with the adapters they need."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from phi4.checkpoint import (
    HubId,
    load_adapter,
    locate_model,
    open_checkpoint,
    resolve_model,
    verify_manifest,
)
from phi4.checkpoint.manifest import MANIFEST_NAME
from phi4.configs import read_config
from phi4.diagnose.case import Case, need
from phi4.diagnose.finding import Finding
from phi4.engine.adapters import check_user_adapter, media_without_adapter
from phi4.errors import InvalidArtifact
from phi4.onnx import OnnxPackage, open_package
from phi4.processing.tokenizer import ModelTokens, Phi4Tokenizer
from phi4.registry import OpenModel, find_form, merged_adapter, with_provider

TOOL_TOKENS = ("tool", "tool_end", "tool_call", "tool_call_end", "tool_response")
MEDIA_TOKENS = {"vision": "image", "speech": "audio"}


def check_model(case: Case) -> Finding:
    """Where the model is and which form of it answers; a hub model's files are fetched."""
    runner, device = with_provider(case.asked.runner, case.asked.device, case.asked.provider)
    case.asked = asked = replace(case.asked, runner=runner, device=device, provider=None)
    runner, found = find_form(
        asked.model, asked.runner, device=asked.device, dtype=asked.dtype, attention=asked.attention
    )
    if isinstance(found, HubId):
        folder = resolve_model(asked.model, asked.modalities)
        case.folder, case.runner, case.path = folder, runner, folder
        return Finding("ok", f"{asked.model}: safetensors for the {runner} runner, in the hub's cache")
    whole = locate_model(asked.model)
    assert isinstance(whole, Path), "what is on disk is no repository"
    case.folder, case.runner, case.path = whole, runner, found
    form = "an ONNX package" if runner == "onnx" else "safetensors"
    return Finding("ok", f"{found}: {form} for the {runner} runner")


def check_config(case: Case) -> Finding:
    """`config.json`: readable, of this family, and its sizes possible."""
    case.config = config = read_config(need(case.path, "model"))
    decoder = config.decoder
    return Finding(
        "ok",
        f"layout {config.layout}, {', '.join(config.modalities)}; {decoder.num_hidden_layers} layers "
        f"of width {decoder.hidden_size}, vocabulary {decoder.vocab_size:,}",
    )


def check_weights(case: Case) -> Finding:
    """Headers of the weights, or graphs of the package, against the config."""
    path, runner = need(case.path, "model"), need(case.runner, "model")
    need(case.config, "config")
    parts = case.asked.modalities
    # Not through the registry, which first asks for the backend: files can be judged without it.
    # Digests of large data are left to the checksums, which follow.
    files: OpenModel
    if runner == "onnx":
        files = open_package(path, parts, compare_large=False)
    else:
        files = open_checkpoint(path, parts)
    case.files = files
    case.config = files.config  # without the parts a package leaves out
    if isinstance(files, OnnxPackage):
        kinds = ", ".join(f"{part} {kind}" for part, kind in files.precision.items())
        return Finding("ok", f"graphs {', '.join(files.graphs)} are whole; {kinds}")
    return Finding("ok", "every tensor is there and fits the config")


def check_checksums(case: Case) -> Finding:
    """Digests of the form that answers, and of the checkpoint it stands in."""
    path, folder = need(case.path, "model"), need(case.folder, "model")
    folders = [place for place in dict.fromkeys((path, folder)) if (place / MANIFEST_NAME).is_file()]
    if case.asked.quick:
        return Finding("ok", "left out (--quick)")
    if not folders:
        return Finding("ok", f"{path} has no {MANIFEST_NAME}, so there is nothing to compare its files with")
    told = [f"{len(verify_manifest(place))} files of {place}" for place in folders]
    return Finding("ok", f"{' and '.join(told)} are as their manifest states")


def check_prepared(case: Case) -> Finding | None:
    """Whether graphs stand in the cache as this machine computes them; they are opened first."""
    files, device = need(case.files, "weights"), case.asked.device
    if not isinstance(files, OnnxPackage) or device not in (None, "cpu"):
        return None
    try:
        from phi4.onnx.serving.prepared import find_prepared
    except ImportError:  # ONNX Runtime is not installed
        return None
    try:
        found = find_prepared(files.path, compare=not case.asked.quick)
    except InvalidArtifact as problem:
        what, _, advice = str(problem).rpartition("; ")
        return Finding("warning", f"{what}; the package's own graphs are opened, which is slower", advice)
    if found is None:
        return Finding(
            "ok", "nothing prepared for this machine (phi4 prepare makes a large package open sooner)"
        )
    return Finding(
        "ok", f"{', '.join(found.graphs)} are opened as prepared for this machine in {found.folder}"
    )


def check_longrope(case: Case) -> Finding:
    """Where the factors change, and what that costs."""
    decoder, files = need(case.config, "config").decoder, case.files
    switch, context = decoder.original_max_position_embeddings, decoder.max_position_embeddings
    if isinstance(files, OnnxPackage):
        context = files.max_context_tokens
    if switch >= context:
        return Finding("ok", f"short factors up to the whole context of {context:,} tokens")
    return Finding(
        "ok",
        f"short factors up to {switch:,} tokens, long ones up to {context:,}; an answer that crosses "
        f"{switch:,} has all its tokens read once more, a prompt beyond it has long factors at once "
        "(--rope-policy pin never reads twice)",
    )


def check_adapters(case: Case) -> Finding:
    """Encoders without an adapter, and whether the user's own fits."""
    files = need(case.files, "weights")
    asked, config = case.asked, files.config
    own = None
    if asked.adapter is not None:
        folder = Path(asked.adapter)
        check_user_adapter(folder.resolve().name)
        own = load_adapter(folder, config).config
        if isinstance(files, OnnxPackage) and not files.user_slot:
            advice = "export the model again without --no-user-slot"
            return Finding("error", f"the package has no slot for your adapter {own.name!r}", advice)
    names = [f"{adapter.name} (rank {adapter.r})" for adapter in config.adapters]
    names += [f"{own.name} of yours (rank {own.r})"] if own is not None else []
    told = f"adapters: {', '.join(names) or 'none'}"
    merged = merged_adapter(files)
    if merged is not None:  # whoever merged one chose what the encoders run with
        return Finding("ok", f"{told}; {merged} is part of the weights")
    parts = asked.modalities or config.modalities
    bare = {part: media for part, media in media_without_adapter(config).items() if part in parts}
    if bare:
        told += f"; without one: {', '.join(f'{part} ({media})' for part, media in bare.items())}"
        advice = "unless the model was trained so, fetch the missing folders: "
        return Finding("warning", told, advice + ", ".join(f"{part}-lora/" for part in bare))
    return Finding("ok", told)


def check_tokenizer(case: Case) -> Finding:
    """The tokenizer, the control tokens the chat needs, and the ids that end an answer."""
    config, path = need(case.config, "config"), need(case.path, "model")
    case.tokenizer = tokenizer = Phi4Tokenizer.load(path, config.decoder.vocab_size)
    tokens = tokenizer.tokens
    told = f"{tokenizer.vocab_size:,} ids, answers end at {' and '.join(map(str, tokens.stop_ids))}"
    media = [MEDIA_TOKENS[part] for part in config.modalities if part in MEDIA_TOKENS]
    absent = _absent(tokens, media)
    if absent:
        advice = "take the tokenizer.json that belongs to this model"
        return Finding("error", f"{told}; no token for: {', '.join(absent)}", advice, files=True)
    strange = sorted(set(config.eos_token_ids) - set(tokens.stop_ids))
    if strange:
        advice = "check that config.json and tokenizer.json belong together"
        return Finding("warning", f"{told}, but the config names {', '.join(map(str, strange))} too", advice)
    without = _absent(tokens, TOOL_TOKENS)
    if without:
        advice = "do not offer tools to this model"
        return Finding("warning", f"{told}; no token for: {', '.join(without)}", advice)
    return Finding("ok", f"{told}; every control token of the chat is there")


def _absent(tokens: ModelTokens, names: list[str] | tuple[str, ...]) -> list[str]:
    return [name for name in names if getattr(tokens, name) is None]
