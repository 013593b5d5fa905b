"""The report on a hub repository without fetching its weights: small files and headers are enough.

What the local cache holds is read there, so a model that was downloaded is described offline too; of
one that was not, offline, the report names the files that are not there.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from phi4.checkpoint.hub import HubId, advice, fetch_small_files, locate_model, no_weights
from phi4.checkpoint.inspect import CheckpointReport, describe, report_on
from phi4.checkpoint.opening import Header, scan_checkpoint
from phi4.checkpoint.safetensors_file import header_entries, read_header
from phi4.checkpoint.shards import INDEX_NAME, SINGLE_NAME, ShardPlan, plan_shards
from phi4.errors import InvalidArtifact, ModelNotFound


def describe_model(name: str | Path) -> CheckpointReport:
    """Report on a model as the user names it; see `resolve_model` for names and `describe` for the report.

    Raises:
        ModelNotFound: Nothing of that name, or the hub cannot be reached and the cache lacks it.
        InvalidArtifact: As `describe`.
    """
    found = locate_model(name)
    if isinstance(found, Path):
        return describe(found)
    folder, hub = fetch_small_files(found, ("*-lora/adapter_config.json",))
    indexed = (folder / INDEX_NAME).is_file()
    plan = plan_shards(folder) if indexed else ShardPlan({SINGLE_NAME: ()})
    checkpoint = scan_checkpoint(folder, plan, lambda path: _header(hub, folder, path))
    if not indexed and SINGLE_NAME in checkpoint.absent_files:
        raise no_weights(hub, [SINGLE_NAME])
    report = report_on(checkpoint)
    return replace(report, path=Path(f"{hub.repo}@{hub.revision}" if hub.revision else hub.repo))


def _header(hub: HubId, folder: Path, path: Path) -> Header | None:
    """Header of a weight file from the cache or through a range request; None when it is in neither place."""
    if path.exists():
        return read_header(path)
    from huggingface_hub import HfApi, errors

    name = path.relative_to(folder).as_posix()
    try:
        found = HfApi().parse_safetensors_file_metadata(hub.repo, name, revision=hub.revision)
    except (errors.EntryNotFoundError, errors.OfflineModeIsEnabled):
        return None
    except errors.SafetensorsParsingError as problem:
        raise InvalidArtifact(
            f"{hub.repo}: {name} has no valid header ({problem}); choose another revision or repository"
        ) from None
    except Exception as problem:
        raise ModelNotFound(f"{hub.repo}: {advice(problem, hub.revision)}") from problem
    raw = {
        stored: {"dtype": info.dtype, "shape": list(info.shape), "data_offsets": list(info.data_offsets)}
        for stored, info in found.tensors.items()
    }
    # The size of the file is not told; the header says where its last tensor ends.
    end = max((info.data_offsets[1] for info in found.tensors.values()), default=0)
    return header_entries(Path(f"{hub.repo}/{name}"), raw, 0, end)
