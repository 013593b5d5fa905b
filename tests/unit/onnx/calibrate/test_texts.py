"""Lines of a file become rows, and a line that cannot is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from phi4.errors import InvalidArtifact, InvalidRequest
from phi4.onnx.calibrate import texts
from phi4.onnx.calibrate.texts import read_texts
from phi4.processing.processor import Processor

ASKED = [{"role": "user", "content": "what is it?"}]
ANSWERED = [*ASKED, {"role": "assistant", "content": "the red house"}]


def written(folder: Path, *lines: Any) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def test_texts_and_conversations_are_read_in_order(processor: Processor, tmp_path: Path) -> None:
    path = written(tmp_path, {"text": "12 + 7 = 19"}, "", {"messages": ASKED}, {"messages": ANSWERED})
    text, asked, answered = read_texts(path, processor)
    tokenizer = processor.tokenizer
    assert text.token_ids.tolist() == [*tokenizer.encode_text("12 + 7 = 19"), tokenizer.tokens.endoftext]
    assert text.loss_mask is None and asked.loss_mask is None
    assert asked.token_ids.tolist() == processor.prepare(ASKED).token_ids.tolist()
    assert answered.loss_mask is not None and answered.loss_mask.any()


def test_long_texts_are_cut(processor: Processor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "MAX_TEXT_TOKENS", 50)
    (row,) = read_texts(written(tmp_path, {"text": "the red house " * 200}), processor)
    assert len(row.token_ids) == 50 and row.token_ids[-1] != processor.tokenizer.tokens.endoftext


@pytest.mark.parametrize(
    ("lines", "error", "words"),
    [
        ([], InvalidRequest, "has 0 rows to calibrate with"),
        (
            [{"text": "a"}, {"words": "b"}],
            InvalidRequest,
            r'line 2: must have "text", a string, or "messages"',
        ),
        ([{"messages": []}], InvalidRequest, "line 1: must have"),
        ([{"messages": ["hello"]}], InvalidRequest, "line 1: must have"),
        ([{"text": 5}], InvalidRequest, "line 1: must have"),
        ([{"messages": [{"role": "poet", "content": "x"}]}], InvalidRequest, "line 1: .*role is 'poet'"),
        ([{"text": "a"}, "", "{"], InvalidArtifact, "line 3: not a valid JSON file"),
        (["[1]"], InvalidArtifact, "line 1: holds a list"),
    ],
)
def test_line_that_cannot_be_used_is_named(
    lines: list[Any], error: type[Exception], words: str, processor: Processor, tmp_path: Path
) -> None:
    with pytest.raises(error, match=words):
        read_texts(written(tmp_path, *lines), processor)


def test_missing_files_and_too_many_rows_are_refused(
    processor: Processor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidRequest, match="cannot be read"):
        read_texts(tmp_path / "none.jsonl", processor)
    monkeypatch.setattr(texts, "MAX_ROWS", 1)
    with pytest.raises(InvalidRequest, match="has 2 rows to calibrate with, must have 1 to 1"):
        read_texts(written(tmp_path, {"text": "a"}, {"text": "b"}), processor)
