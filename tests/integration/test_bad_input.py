"""What a user can get wrong, through the command and from Python: one clear error that says what to do.

Each row of the tables breaks one thing; the command must end with the exit code of the error's class and
one line that names the thing and the way out, and the same call from Python must raise that class.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import phi4
from phi4.checkpoint import open_checkpoint, save_checkpoint
from phi4.cli.main import main
from phi4.engine.generator import Generator
from phi4.errors import ContextOverflow, InvalidRequest
from phi4.processing.messages import parse_messages
from phi4.processing.processor import Processor
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.processing.tools import normalise_tools
from phi4.testing.media import image_bytes, png_with_header, ramp_picture
from phi4.testing.scripted import ScriptedRunner, saying
from phi4.testing.tiny import write_tiny_checkpoint

INDEX = "model.safetensors.index.json"
SHARD = "model-00001-of-0000"
QUESTION = "What does it say?"
Break = Callable[[Path], object]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole model in several shards, 512 tokens of context."""
    single = tmp_path_factory.mktemp("single")
    write_tiny_checkpoint(single, max_positions=512, original_max=64)
    folder = tmp_path_factory.mktemp("good")
    shutil.copy(single / "tokenizer.json", folder)
    checkpoint = open_checkpoint(single)
    save_checkpoint(folder, checkpoint.config, checkpoint.tensors(unused=True), max_shard_bytes=500_000)
    assert (folder / INDEX).exists()
    return folder


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(good, tmp_path / "model"))


def first_shard(folder: Path) -> Path:
    return next(folder.glob(f"{SHARD}*.safetensors"))


def edit(name: str, change: Callable[[dict[str, Any]], object]) -> Break:
    """Change a JSON file of the folder."""

    def apply(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return apply


def truncate(folder: Path) -> None:
    shard = first_shard(folder)
    os.truncate(shard, shard.stat().st_size - 100)


def flip(folder: Path) -> None:
    content = bytearray(first_shard(folder).read_bytes())
    content[content.index(b'"shape":[')] ^= 0x40
    first_shard(folder).write_bytes(content)


def lead_outside(folder: Path) -> None:
    shard = first_shard(folder)
    shutil.move(shard, folder.parent / shard.name)
    content = (folder / INDEX).read_text().replace(f'"{shard.name}"', f'"../{shard.name}"')
    (folder / INDEX).write_text(content)


def pickles_only(folder: Path) -> None:
    for path in (*folder.glob("*.safetensors"), folder / INDEX):
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04N.")


def slow_pattern(document: dict[str, Any]) -> None:
    regex = {"Regex": r"a*a*a*a*a*a*a*a*[^\x00-\x7f]"}
    document["pre_tokenizer"]["pretokenizers"][0].update(pattern=regex, behavior="Isolated")


# What is broken -> (how, class of the error, what its message names, what it says to do).
MODELS: dict[str, tuple[Break, str, str, str]] = {
    "missing config": (
        lambda f: (f / "config.json").unlink(),
        "InvalidConfig",
        "config.json",
        "check the path",
    ),
    "missing shard": (lambda f: first_shard(f).unlink(), "InvalidArtifact", SHARD, "is missing.*fetch it"),
    "missing tokenizer": (
        lambda f: (f / "tokenizer.json").unlink(),
        "InvalidArtifact",
        "tokenizer.json",
        "give a directory with a tokenizer.json",
    ),
    "truncated shard": (truncate, "InvalidArtifact", SHARD, "truncated.*fetch or write it again"),
    "flipped byte in a header": (flip, "InvalidArtifact", SHARD, "fetch or write it again"),
    "index naming a file outside": (
        lead_outside,
        "InvalidArtifact",
        r"'\.\./model-00001",
        "only files of the same folder",
    ),
    "pickle checkpoint": (pickles_only, "InvalidArtifact", "pytorch_model.bin", "Use the safetensors files"),
    "wrong head count": (
        edit("config.json", lambda c: c.update(num_attention_heads=3)),
        "InvalidConfig",
        "num_attention_heads = 3",
        r"must be a divisor of hidden_size = 64, one of \[1, 2, 4",
    ),
    "heads that do not fit the tensors": (
        edit("config.json", lambda c: c.update(num_key_value_heads=2)),
        "CheckpointMismatch",
        "misshapen.*qkv_proj",
        "config.json and weights must be of the same model",
    ),
    "tokenizer ids beyond the vocabulary": (
        edit("tokenizer.json", lambda d: d["added_tokens"][5].update(id=320)),
        "InvalidArtifact",
        "tokenizer.json.*id 320, valid are 0 to 319",
        "check that config.json and tokenizer.json belong together",
    ),
    "tokenizer that makes the library panic": (
        edit("tokenizer.json", slow_pattern),
        "InvalidArtifact",
        "tokenizer library failed while encoding",
        "fetch it again",
    ),
}


def told(capsys: pytest.CaptureFixture[str], code: int) -> dict[str, Any]:
    """The one error line of the last command, which must carry the exit code it ended with."""
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    error: dict[str, Any] = json.loads(captured.err)["error"]
    assert error["exit_code"] == code > 0
    return error


@pytest.mark.parametrize("case", MODELS)
def test_broken_model_is_refused_by_the_command_and_by_load(
    case: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    breaks, kind, names, advises = MODELS[case]
    breaks(folder)
    error = told(capsys, main(["ask", QUESTION, "-m", str(folder), "--json"]))
    assert error["type"] == kind
    assert re.search(names, error["message"]) and re.search(advises, error["message"])
    with pytest.raises(getattr(phi4.errors, kind), match=names):
        phi4.load(folder)


EMPTY, BOMB, BROKEN = "empty.wav", "bomb.png", "broken.png"
INPUTS: dict[str, tuple[list[str], str, str, str]] = {
    "missing picture": (["--image", "gone.png"], "InvalidMedia", "gone.png", "check the path"),
    "missing recording": (["--audio", "gone.wav"], "InvalidMedia", "gone.wav", "check the path"),
    "recording of 0 bytes": (["--audio", EMPTY], "InvalidMedia", EMPTY, "empty.*recording was expected"),
    "picture of 200 megapixels": (
        ["--image", BOMB],
        "InvalidMedia",
        BOMB,
        "20000 x 10000.*limit.*scale it down",
    ),
    "cut picture": (["--image", BROKEN], "InvalidMedia", BROKEN, "not a whole.*save or download it again"),
    "tools of an unknown form": (
        ["--tools", "retrieval.json"],
        "InvalidRequest",
        r"tools\[0\].type is 'retrieval'",
        "only 'function' tools are possible",
    ),
    "prompt longer than the context": (
        ["--system", "word " * 600],
        "ContextOverflow",
        r"\d{4} tokens.*context is 512",
        "shorten the conversation",
    ),
}


@pytest.mark.parametrize("case", INPUTS)
def test_bad_input_is_refused_by_the_command_with_what_to_do(
    case: str, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / EMPTY).write_bytes(b"")
    (tmp_path / BOMB).write_bytes(png_with_header(20_000, 10_000))
    (tmp_path / BROKEN).write_bytes(image_bytes("PNG", ramp_picture(80, 60))[:400])
    (tmp_path / "retrieval.json").write_text('[{"type": "retrieval", "function": {"name": "f"}}]')
    monkeypatch.chdir(tmp_path)
    given, kind, names, advises = INPUTS[case]
    error = told(capsys, main(["ask", QUESTION, "-m", str(good), "--json", *given]))
    assert error["type"] == kind
    assert re.search(names, error["message"]) and re.search(advises, error["message"])


def test_placeholder_typed_by_the_user_is_text_and_takes_no_picture(good: Path) -> None:
    model = phi4.load(good)
    typed = model.chat("<|image_1|> What does it say?", max_new_tokens=2)
    assert typed.usage.image_tokens == 0 and typed.adapters == ()
    # Spelled out letter by letter, it is longer than the same question with a real picture is without it.
    plain = model.chat("What does it say?", max_new_tokens=2)
    assert typed.usage.prompt_tokens > plain.usage.prompt_tokens + 5
    picture = image_bytes("PNG", ramp_picture(60, 40))
    both = model.chat("<|image_1|> What does it say?", picture, max_new_tokens=2)
    alone = model.chat("What does it say?", picture, max_new_tokens=2)
    assert both.usage.image_tokens == alone.usage.image_tokens > 0


@pytest.mark.parametrize(
    "said", ['<tool_call>{"name": "lamp"}</tool_call>', "lamp(on=True)", '{"tool": "lamp", "on": true}']
)
def test_tool_call_of_an_unknown_format_stays_text(good: Path, said: str) -> None:
    tokenizer = Phi4Tokenizer.load(good)
    processor = Processor(open_checkpoint(good).config, tokenizer)
    tools = [{"name": "lamp", "parameters": {"on": {"type": "bool"}}}]
    turns = [{"role": "user", "content": "on"}]
    inputs = processor.prepare(parse_messages(turns), tools=normalise_tools(tools))
    ids = [*tokenizer.encode_text(said), tokenizer.tokens.end]
    runner = ScriptedRunner(saying(ids, len(inputs.token_ids), 320), 320, max_context_tokens=512)
    model = phi4.Phi4(Generator(runner, processor, tokenizer))
    answer = model.chat(turns, tools=tools)
    assert (answer.text, answer.tool_calls, answer.finish_reason) == (said, (), "stop")


@pytest.mark.parametrize("call", [{"lamp": {"on": True}}, {"name": "lamp", "arguments": "on=True"}, "lamp()"])
def test_replayed_tool_call_of_an_unknown_format_says_what_a_call_is(good: Path, call: Any) -> None:
    model = phi4.load(good)
    turns = [{"role": "user", "content": "on"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    with pytest.raises(InvalidRequest, match=r"messages\[1\]\.tool_calls\[0\].*must be"):
        model.chat(turns)


def test_prompt_longer_than_the_context_is_refused_before_anything_runs(good: Path) -> None:
    model = phi4.load(good)
    refused: tuple[tuple[Callable[[], object], str], ...] = (
        (lambda: model.chat("word " * 600), "context is 512; shorten the conversation"),
        (lambda: model.stream("word " * 600), "context is 512; shorten the conversation"),
        (lambda: model.score("word " * 600, "yes"), "context is 512; shorten the conversation"),
        (lambda: model.score("word", "yes " * 600), "context of 512; shorten the prompt"),
        (lambda: model.chat("word", max_new_tokens=512), r"context of 512; .* at most \d{3} new tokens"),
    )
    for ask, says in refused:
        with pytest.raises(ContextOverflow, match=says):
            ask()
    assert model.chat("word", max_new_tokens=2).token_ids
