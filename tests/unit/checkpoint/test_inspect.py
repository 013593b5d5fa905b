"""What `phi4 show` tells, from headers alone, also for a full-size model in under a second."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from phi4.checkpoint import describe
from phi4.configs import PHI4_MULTIMODAL
from phi4.errors import InvalidArtifact, InvalidConfig

Saved = Callable[..., Path]


def test_full_size_model_is_described_in_under_a_second(full_size: Path) -> None:
    start = time.perf_counter()
    report = describe(full_size)
    assert time.perf_counter() - start < 1.0
    assert report.total_parameters == 5_574_460_384
    assert report.parameters == {
        "text": 3_836_021_760,
        "vision": 441_550_016 - 15_239_504 - 2_304 - 15_238_352,
        "speech": 466_416_416,
        "adapter:vision": 369_098_752,
        "adapter:speech": 461_373_440,
    }
    assert report.unused_parameters == 15_239_504 + 2_304 + 15_238_352
    assert report.dtypes == {"BF16": 2047}
    assert report.kv_bytes_per_token == 131_072
    assert not report.differences and report.absent_files == ()
    assert [(a.name, a.r, a.lora_alpha, a.scale) for a in report.adapters] == [
        ("vision", 256, 512, 2.0),
        ("speech", 320, 640, 2.0),
    ]
    assert report.weight_bytes(("text",)) == 2 * 3_836_021_760
    assert report.memory_bytes(("text",), 10) == 2 * 3_836_021_760 + 10 * 131_072
    assert report.config.vision == PHI4_MULTIMODAL.vision


def test_report_as_plain_values_is_json(full_size: Path) -> None:
    plain = json.loads(json.dumps(describe(full_size).as_dict()))
    assert plain["layout"] == "original"
    assert plain["context_tokens"] == 131_072
    assert set(plain["memory_bytes"]) == {"text", "text+vision", "text+speech", "text+vision+speech"}
    assert plain["parameters"]["total"] == 5_574_460_384
    assert plain["adapters"][1] == {
        "name": "speech",
        "r": 320,
        "lora_alpha": 640,
        "scale": 2.0,
        "parameters": 461_373_440,
        "nbytes": 922_746_880,
    }


@pytest.mark.parametrize("layout", ["mini", "original", "hf"])
def test_three_layouts_of_one_model_have_the_same_sizes(saved: Saved, layout: str) -> None:
    report = describe(saved(layout, 60_000))
    assert report.layout == layout
    assert report.parameters["text"] == 78_144
    assert set(report.dtypes) == {"F32", "BF16"}
    if layout != "mini":
        assert report.parameters["adapter:vision"] == 5_888
        assert report.memory_bytes(("text", "vision")) < report.memory_bytes(("text", "vision", "speech"))


def test_what_does_not_fit_is_reported_and_not_raised(full_size: Path) -> None:
    (full_size / "model-00002-of-00003.safetensors").unlink()
    raw = json.loads((full_size / "config.json").read_text())
    (full_size / "config.json").write_text(json.dumps(raw | {"intermediate_size": 8191}))
    report = describe(full_size)
    assert report.absent_files == ("model-00002-of-00003.safetensors",)
    assert len(report.differences.missing) > 600
    assert any(
        "[16384, 3072] (the config says [16382, 3072])" in str(m) for m in report.differences.misshapen
    )


def test_directory_that_is_no_model_is_refused(saved: Saved, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="cannot be read"):
        describe(tmp_path)
    with pytest.raises(InvalidArtifact, match="give the directory"):
        describe(saved("mini") / "model.safetensors")


def test_describing_imports_no_torch(saved: Saved, repository: Path) -> None:
    code = (
        "import sys; from phi4.checkpoint import describe; describe(sys.argv[1]);"
        "sys.exit(int(any(name.split('.')[0] in ('torch', 'transformers', 'huggingface_hub')"
        " for name in sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(saved("hf"))],
        env={"PYTHONPATH": str(repository / "src")},
        check=False,
    )
    assert done.returncode == 0
