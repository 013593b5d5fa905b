"""Templates are found and told apart as text, and none is ever run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from phi4.errors import InvalidArtifact
from phi4.processing.chat_template import (
    CHAT_TEMPLATE,
    MAX_TEMPLATE_BYTES,
    shipped_templates,
    source_template,
    template_digest,
)


def settings(folder: Path, value: object) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": value}))


def test_spelling_that_changes_no_ids_is_the_same_template() -> None:
    spread = CHAT_TEMPLATE.replace("%}{", "-%}\n    {").replace("{% ", "{%- ").replace("'", '"')
    assert spread != CHAT_TEMPLATE and template_digest(spread) == template_digest(CHAT_TEMPLATE)


@pytest.mark.parametrize("change", [("<|assistant|>", "<|user|>"), ("'<|end|>' }}", "'<|end|>' + ' ' }}")])
def test_change_of_the_prompt_is_another_template(change: tuple[str, str]) -> None:
    assert template_digest(CHAT_TEMPLATE.replace(*change)) != template_digest(CHAT_TEMPLATE)


def test_digest_of_a_source_is_that_of_the_template_that_counts(tmp_path: Path) -> None:
    assert source_template(tmp_path) is None
    settings(tmp_path, [{"name": "tool_use", "template": "x"}, {"name": "default", "template": "y"}])
    assert source_template(tmp_path) == template_digest("y")
    (tmp_path / "chat_template.jinja").write_text("z")
    assert source_template(tmp_path) == template_digest("z")
    assert [text for _, text in shipped_templates(tmp_path)] == ["z", "y"]


@pytest.mark.parametrize("value", [None, 7, [], [7], {"default": "x"}])
def test_setting_that_is_no_template_counts_as_none(tmp_path: Path, value: object) -> None:
    settings(tmp_path, value)
    assert list(shipped_templates(tmp_path)) == [] and source_template(tmp_path) is None


def test_giant_template_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_bytes(b" " * (MAX_TEMPLATE_BYTES + 1))
    with pytest.raises(InvalidArtifact, match="at most 1048576"):
        source_template(tmp_path)
