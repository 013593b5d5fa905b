"""`phi4 export` writes what its options say, and the package answers, and is described, without torch."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
import soundfile
from gguf import GGUFReader
from PIL import Image

from phi4.checkpoint import open_checkpoint
from phi4.cli import export
from phi4.cli.main import build_parser, main
from phi4.gguf.writing import DTYPES as GGUF_DTYPES
from phi4.onnx import open_package
from phi4.onnx.build.options import PARTS, PRECISIONS, ExportOptions
from phi4.onnx.package.description import CACHE_BYTES, DESCRIPTION_NAME
from phi4.testing.media import chirp, ramp_picture
from phi4.testing.tiny import write_tiny_checkpoint
from phi4.types import Modality

BLOCKED = """
import importlib.abc, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is blocked in this test")
sys.meta_path.insert(0, Refuse())
from phi4.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with a context of 512; not to be changed."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    write_tiny_checkpoint(folder, max_positions=512)
    return folder


@pytest.fixture(scope="module")
def package(tiny: Path) -> Path:
    """Exported with all defaults; not to be changed."""
    assert main(["export", str(tiny), "--out", str(tiny.parent / "package")]) == 0
    return tiny.parent / "package"


def without(*names: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command line where these packages do not exist."""

    def run(*line: str) -> subprocess.CompletedProcess[str]:
        code = f"BLOCKED = {names!r}\n{BLOCKED}"
        return subprocess.run([sys.executable, "-c", code, *line], capture_output=True, text=True, timeout=60)

    return run


def test_choices_and_defaults_are_those_in_use() -> None:
    assert export.PRECISIONS == PRECISIONS
    assert export.PARTS == PARTS
    assert export.GGUF_DTYPES == GGUF_DTYPES
    assert tuple(CACHE_BYTES) == export.CACHES
    defaults = build_parser().parse_args(["export", "nano", "--out", "x"])
    assert export.export_options(defaults) == ExportOptions()
    told = helps()
    for name, value in (("precision", "int4"), ("block-size", "128"), ("kv", "fp32"), ("dtype", "float16")):
        assert f"(default: {value}" in told[f"--{name}"], name
    default = ExportOptions()
    assert (default.precision, default.block_size, default.cache) == ("int4", 128, "fp32")


def helps() -> dict[str, str]:
    """Option of `export` -> its help, without line breaks."""
    (verbs,) = (action for action in build_parser()._actions if action.dest == "verb")
    parser = verbs.choices["export"]  # type: ignore[index, union-attr]
    actions = [action for action in parser._actions if action.option_strings]
    return {action.option_strings[-1]: action.help or "" for action in actions}


def test_package_is_written_and_how_to_use_it_is_said(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "p"
    assert main(["export", str(tiny), "--out", str(out), "--precision", "int8"]) == 0
    captured = capsys.readouterr()
    megabytes = sum(path.stat().st_size for path in out.iterdir()) / 1e6
    assert captured.out.startswith(f"{out}: {megabytes:.1f} MB in ") and captured.err == ""
    assert f'phi4 ask -m {out} "Hello"' in captured.out
    assert set(open_package(out).precision.values()) == {"int8"}


def test_report_as_json_tells_place_size_and_time(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "p"
    assert main(["export", str(tiny), "--out", str(out), "--json", "--precision", "fp16"]) == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert captured.out.count("\n") == 1 and captured.err == ""
    assert (report["out"], report["notes"][0]) == (str(out), f'try it: phi4 ask -m {out} "Hello"')
    assert report["bytes"] == sum(path.stat().st_size for path in out.iterdir())
    assert report["seconds"] > 0


def test_every_option_reaches_the_package(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "p"
    line = ["export", str(tiny), "--out", str(out), "--precision", "int8", "--part", "speech=fp16"]
    line += ["--part", "head=fp32", "--modalities", "text,speech", "--fast", "--context", "100"]
    assert main([*line, "--no-user-slot", "--block-size", "32", "--kv", "fp16"]) == 0
    package = open_package(out)
    assert package.precision == {"decoder": "int8", "head": "fp32", "speech": "fp16"}
    assert package.parts == ("text", "speech") and package.adapters == ("speech",)
    assert package.prefill and not package.user_slot and package.max_context_tokens == 100
    assert (package.cache, package.merged_adapter) == ("fp16", None)
    assert main(["export", str(tiny), "--out", str(tmp_path / "m"), "--merge-adapter", "vision"]) == 0
    merged = open_package(tmp_path / "m")
    assert (merged.adapters, merged.cache, merged.merged_adapter) == ((), "fp32", "vision")


@pytest.mark.parametrize("text", ["vision=fp16", "head=int4", "decoder=fp32", "speech=int8"])
def test_precision_of_a_part_is_read_as_written(text: str) -> None:
    assert "=".join(export.part_precision(text)) == text
    part, precision = export.part_precision(text)
    assert part in PARTS and precision in PRECISIONS


@pytest.mark.parametrize(
    "text", ["vision", "vision=", "=int8", "nose=int8", "vision=int3", "vision=int8=int4", ""]
)
def test_precision_of_a_part_that_makes_no_sense_is_refused_with_what_does(text: str) -> None:
    with pytest.raises(
        argparse.ArgumentTypeError, match="give PART=PRECISION, of decoder, head, vision, speech"
    ):
        export.part_precision(text)


WRONG = {
    "precision": (["--precision", "int2"], "invalid choice: 'int2'"),
    "part": (["--part", "nose=int8"], "'nose=int8': give PART=PRECISION"),
    "modality": (["--modalities", "smell"], "smell"),
    "format": (["--format", "tar"], "invalid choice: 'tar'"),
    "block size": (["--block-size", "big"], "invalid int value"),
}


@pytest.mark.parametrize("name", WRONG)
def test_option_that_cannot_be_is_refused_by_the_parser(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options, says = WRONG[name]
    with pytest.raises(SystemExit) as ended:
        main(["export", "nano", "--out", str(tmp_path / "p"), *options])
    assert ended.value.code == 2 and says in capsys.readouterr().err
    assert not (tmp_path / "p").exists()


REFUSED: dict[str, tuple[list[str], int, str]] = {
    "block of 48": (["--block-size", "48"], 2, "block size 48: must be a power of two"),
    "no context": (["--context", "0"], 2, "context 0: must be from 1 to 512"),
    "strange adapter": (["--merge-adapter", "taste"], 2, "merge adapter 'taste'"),
    "part left out": (["--part", "vision=fp16", "--modalities", "text"], 2, "precision of 'vision'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_option_that_does_not_fit_the_model_has_one_line_and_its_exit_code(
    name: str, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options, code, says = REFUSED[name]
    assert main(["export", str(tiny), "--out", str(tmp_path / "p"), *options]) == code
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert captured.err.startswith("phi4: error: ") and says in captured.err
    assert not (tmp_path / "p").exists()


def test_export_that_is_there_already_says_so_and_has_no_fault(
    tiny: Path, package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["export", str(tiny), "--out", str(package)]
    assert main(line) == 0
    assert " MB already there, digests compared\n" in capsys.readouterr().out
    assert main([*line, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["already_there"] is True
    assert main([*line, "--precision", "int8"]) == 2
    assert "a finished export of another model or with other options" in capsys.readouterr().err


def test_package_and_gguf_file_are_replaced_when_that_is_asked_for(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, file = tmp_path / "p", tmp_path / "p.gguf"
    for out, first, second in (
        (folder, ["--precision", "int8"], ["--precision", "fp16"]),
        (file, ["--format", "gguf"], ["--format", "gguf", "--dtype", "float32"]),
    ):
        line = ["export", str(tiny), "--out", str(out)]
        assert main([*line, *first]) == 0
        before = out.stat()
        assert main([*line, *second]) == 2 and "(--force)" in capsys.readouterr().err
        assert (out.stat().st_ino, out.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
        assert main([*line, *second, "--force"]) == 0
    assert open_package(folder).precision["decoder"] == "fp16"
    assert file.stat().st_size > 1.5 * before.st_size
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p", "p.gguf"]


OTHERS = {
    **{name: [f"--{name.replace('_', '-')}"] for name in ("fast", "no_user_slot")},
    "precision": ["--precision", "int4"],
    "part": ["--part", "head=int4"],
    "merge_adapter": ["--merge-adapter", "speech"],
    "context": ["--context", "100"],
    "kv": ["--kv", "fp32"],
    "block_size": ["--block-size", "128"],
    "modalities": ["--modalities", "text"],
    "method": ["--method", "rtn"],
    "calibrate": ["--calibrate", "world"],
    "sensitive": ["--sensitive", "10"],
    "layer": ["--layer", "*=int8"],
    "threads": ["--threads", "1"],
}


def test_options_of_the_other_format_are_refused_by_name_and_not_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for variable in ("PHI4_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.setenv(variable, "1")
    assert set(OTHERS) == set(export.ONNX_ONLY)
    gguf = ["export", "nano", "--out", str(tmp_path / "p.gguf"), "--format", "gguf"]
    for name, option in OTHERS.items():
        assert main([*gguf, *option]) == 2
        says = f"--{name.replace('_', '-')}: for --format onnx alone; leave it out"
        assert says in capsys.readouterr().err
    assert main(["export", "nano", "--out", str(tmp_path / "p"), "--dtype", "float16"]) == 2
    assert "--dtype: for --format gguf alone" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_models_that_cannot_be_exported_are_told_apart(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "config.json").write_text("{}")
    for model, code, says in (
        (package, 2, "an ONNX package; export from the safetensors model"),
        (tmp_path / "empty", 6, "tokenizer.json: missing"),
        (tmp_path / "config.json", 5, "give the directory"),
        (tmp_path / "gone", 6, "no such directory"),
    ):
        assert main(["export", str(model), "--out", str(tmp_path / "p")]) == code
        assert says in capsys.readouterr().err
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(("dtype", "kind"), [("float16", "F16"), ("float32", "F32")])
def test_gguf_holds_the_text_model_and_says_what_is_left_out(
    dtype: str, kind: str, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tiny.gguf"
    assert main(["export", str(tiny), "--format", "gguf", "--dtype", dtype, "--out", str(out), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["bytes"] == out.stat().st_size
    assert any("vision encoder" in note for note in report["notes"])
    tensors = {tensor.name: tensor for tensor in GGUFReader(out).tensors}
    layers = open_checkpoint(tiny, ("text",)).config.decoder.num_hidden_layers
    assert {f"blk.{layer}.attn_qkv.weight" for layer in range(layers)} <= set(tensors)
    assert tensors["blk.0.attn_qkv.weight"].tensor_type.name == kind


@pytest.mark.parametrize(("form", "name"), [("gguf", "tiny"), ("onnx", "tiny.gguf")])
def test_name_of_a_gguf_file_and_its_format_go_together(
    form: str, name: str, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(tiny), "--format", form, "--out", str(tmp_path / name)]) == 2
    assert "called something.gguf, and written with --format gguf" in capsys.readouterr().err
    assert not (tmp_path / name).exists()


def test_exporting_needs_no_torch_and_says_what_it_does_need(tiny: Path, tmp_path: Path) -> None:
    done = without("torch", "transformers")("export", str(tiny), "--out", str(tmp_path / "p"))
    assert done.returncode == 0, done.stderr
    assert open_package(tmp_path / "p").verify()
    refused = without("onnx_ir")("export", str(tiny), "--out", str(tmp_path / "q"))
    assert refused.returncode == 7 and "pip install '.[export]'" in refused.stderr


def test_package_answers_about_all_media_without_torch_and_without_the_exporter(
    package: Path, tmp_path: Path
) -> None:
    Image.fromarray(ramp_picture(40, 24)).save(tmp_path / "sign.png")
    soundfile.write(tmp_path / "talk.wav", chirp(0.6), 16000)
    media = ["--image", str(tmp_path / "sign.png"), "--audio", str(tmp_path / "talk.wav")]
    ask = ["ask", "what is it?", "-m", str(package), "--json", "--max-new-tokens", "5"]
    run = without("torch", "transformers", "onnx_ir", "onnx", "gguf")
    for given, adapters in (([], []), (media[:2], ["vision"]), (media[2:], ["speech"]), (media, ["vision"])):
        done = run(*ask, *given)
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert answer["adapters"] == adapters and answer["usage"]["completion_tokens"] == 5


def test_folder_that_is_neither_checkpoint_nor_package_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    for line in (["ask", "x", "-m", str(tmp_path / "empty")], ["show", str(tmp_path / "empty")]):
        assert main(line) == 5
        assert str(tmp_path / "empty" / "config.json") in capsys.readouterr().err


def test_package_whose_graphs_are_gone_is_refused_when_asked(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (DESCRIPTION_NAME, "config.json", "tokenizer.json", "manifest.json"):
        (tmp_path / name).write_bytes((package / name).read_bytes())
    assert main(["ask", "x", "-m", str(tmp_path)]) == 5
    assert "missing; fetch it, or export the model again" in capsys.readouterr().err


def test_show_tells_what_a_package_is(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(package)]) == 0
    out = capsys.readouterr().out
    for words in (
        "ONNX package",
        "text, vision, speech",
        "decoder int4, head int8, vision int8, speech int8",
        "512 tokens, LongRoPE switches at 4,096",
        "rank 5, alpha 10",
        "has a slot (--adapter)",
        "memory text+vision+speech",
        "Every file is there and as the manifest states",
    ):
        assert words in out
    assert "\x1b" not in out


def test_show_tells_of_a_merged_adapter_and_of_the_cache(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m"
    line = ["export", str(tiny), "--out", str(out), "--merge-adapter", "speech", "--kv", "fp16"]
    assert main(line) == 0 and main(["show", str(out)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "adapter speech part of the weights, always on" in shown and "a token, fp16" in shown


def test_show_works_without_torch_and_onnxruntime_in_under_a_second(package: Path) -> None:
    run, fastest = without("torch", "onnxruntime", "onnx_ir"), float("inf")
    for _ in range(3):
        start = time.perf_counter()
        done = run("show", str(package))
        fastest = min(fastest, time.perf_counter() - start)
        assert done.returncode == 0, done.stderr
    assert "Every file is there" in done.stdout
    assert fastest < 1.0


def test_show_tells_of_a_package_inside_a_checkpoint_and_of_its_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, inside = tmp_path / "m", tmp_path / "m" / "onnx"
    write_tiny_checkpoint(model, "mini")
    assert main(["show", str(model), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["package"] is None
    assert main(["export", str(model), "--out", str(inside), "--precision", "int8"]) == 0
    capsys.readouterr()
    monkeypatch.setattr("phi4.cli.show.find_spec", lambda name: None)
    assert main(["show", str(model)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "onnx: the form that answers (--runner torch" in shown and "answers need PyTorch" not in shown
    assert "these weights need PyTorch" in shown and "decoder int8, head int8" in shown
    assert "Every tensor is there" in shown and "Every file is there" in shown
    assert main(["show", str(model), "--json"]) == 0
    package = json.loads(capsys.readouterr().out)["package"]
    assert package["path"] == str(inside) and package["precision"]["decoder"] == "int8"
    head = inside / "head.onnx.data"
    head.write_bytes(head.read_bytes()[:-1])
    assert main(["show", str(model)]) == 5
    assert "problem: head.onnx.data has" in capsys.readouterr().out
    (inside / DESCRIPTION_NAME).write_text("{")
    assert main(["show", str(model), "--json"]) == 5
    (problem,) = json.loads(capsys.readouterr().out)["package"]["problems"]
    assert DESCRIPTION_NAME in problem and main(["show", str(inside)]) == 5


def test_modalities_are_spelt_as_everywhere() -> None:
    line = ["export", "nano", "--out", "x", "--modalities", "text,vision,speech"]
    assert tuple(build_parser().parse_args(line).modalities) == get_args(Modality)
