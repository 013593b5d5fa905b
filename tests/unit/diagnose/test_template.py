"""Known templates give the prompts phi4 makes; others are shown, and none is ever run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from phi4.diagnose.case import Asked, Case
from phi4.diagnose.template import KNOWN, MAX_TEMPLATE_BYTES, check_template, digest, shipped_templates
from phi4.errors import InvalidArtifact
from phi4.processing.chat import ChatRenderer
from phi4.processing.chat_template import CHAT_TEMPLATE
from phi4.processing.messages import parse_messages
from phi4.processing.tokenizer import Phi4Tokenizer

# As the released models spell it: spec 02 describes it.
RELEASED = (
    "{% for message in messages %}{% if message['role'] == 'system' and 'tools' in message and "
    "message['tools'] is not none %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|tool|>' + "
    "message['tools'] + '<|/tool|>' + '<|end|>' }}{% else %}{{ '<|' + message['role'] + '|>' + "
    "message['content'] + '<|end|>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}"
)
CUT = RELEASED.replace("{% else %}{{ eos_token }}{% endif %}", "{% endif %}")
HF_NATIVE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}{% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}{{ '<|image|>' }}{% elif content['type'] == 'audio' %}"
    "{{ '<|audio|>' }}{% elif content['type'] == 'text' %}{{ content['text'] }}{% endif %}{% endfor %}"
    "{% endif %}{% if message['role'] == 'system' and 'tools' in message and message['tools'] is not none %}"
    "{{ '<|tool|>' + message['tools'] + '<|/tool|>' + '<|end|>' }}{% endif %}{{ '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}"
)
CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Say {{ x }}\nand {% why %}"},
    {"role": "assistant", "content": "No."},
    {"role": "user", "content": "Thanks"},
]


@pytest.fixture
def case(model: Path) -> Case:
    (model / "onnx" / "tokenizer_config.json").unlink()  # what a package ships is a case of its own
    return Case(Asked(), folder=model, path=model / "onnx", tokenizer=Phi4Tokenizer.load(model))


def settings(folder: Path, value: Any) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": value}))


def test_released_template_has_the_length_the_specification_states() -> None:
    assert len(RELEASED) == 423


@pytest.mark.parametrize("text", [RELEASED, CUT, CHAT_TEMPLATE, HF_NATIVE])
def test_every_known_template_renders_what_phi4_does(case: Case, text: str) -> None:
    assert digest(text) in KNOWN
    template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(text)
    assert case.tokenizer is not None
    rendered = ChatRenderer(case.tokenizer).render(parse_messages(TURNS))
    assert template.render(messages=TURNS, add_generation_prompt=True, eos_token="-") == rendered.text


def test_template_that_an_export_writes_is_known(model: Path) -> None:
    exported = Case(Asked(), folder=model, path=model / "onnx", tokenizer=Phi4Tokenizer.load(model))
    found = check_template(exported)
    assert found is not None and found.verdict == "ok" and "gives" in found.finding, found


def test_no_known_digest_is_without_its_template() -> None:
    assert {digest(text) for text in (RELEASED, CUT, CHAT_TEMPLATE, HF_NATIVE)} == set(KNOWN)


def test_spelling_that_changes_no_ids_is_the_same_template() -> None:
    spread = RELEASED.replace("%}{", "-%}\n    {").replace("{% ", "{%- ").replace("'", '"')
    assert spread != RELEASED and digest(spread) == digest(RELEASED)


@pytest.mark.parametrize(
    "change", [("<|assistant|>", "<|user|>"), ("'<|end|>' }}{% else", "'<|end|>' + ' ' }}{% else")]
)
def test_change_of_the_prompt_is_another_template(change: tuple[str, str]) -> None:
    assert digest(RELEASED.replace(*change)) not in KNOWN


def test_model_without_a_template_is_fine(case: Case) -> None:
    found = check_template(case)
    assert found is not None and found.verdict == "ok" and "ships none" in found.finding


@pytest.mark.parametrize(
    "value",
    [RELEASED, [{"name": "tool_use", "template": "x"}, {"name": "default", "template": RELEASED}]],
)
def test_known_template_is_named_with_its_file(case: Case, model: Path, value: Any) -> None:
    settings(model, value)
    found = check_template(case)
    assert found is not None and found.verdict == "ok"
    assert found.finding.startswith("tokenizer_config.json holds the released template;")


def test_foreign_template_is_a_warning_with_the_tokens_the_model_lacks(case: Case, model: Path) -> None:
    settings(model, CHATML)
    found = check_template(case)
    assert found is not None and found.verdict == "warning"
    assert "lacks: <|im_end|>, <|im_start|>)" in found.finding and "answer badly" in found.advice


def test_unknown_template_of_known_tokens_is_a_warning_without_names(case: Case, model: Path) -> None:
    settings(model, "{{ 'Hi<|user|>' }}")
    found = check_template(case)
    assert found is not None and found.verdict == "warning" and "lacks" not in found.finding


def test_template_is_looked_for_beside_the_package_and_in_the_file_that_counts(
    case: Case, model: Path
) -> None:
    settings(model, CHATML)
    (model / "onnx" / "chat_template.jinja").write_text(RELEASED)
    found = check_template(case)
    assert found is not None and found.finding.startswith("chat_template.jinja holds the released template")


def test_template_is_never_run(case: Case, model: Path) -> None:
    settings(model, "{% for i in range(10**12) %}{{ 'x' * 10**10 }}{% endfor %}")
    found = check_template(case)
    assert found is not None and found.verdict == "warning"


def test_setting_that_is_no_template_counts_as_none(case: Case, model: Path) -> None:
    for value in (None, 7, [], [7], {"default": "x"}):
        settings(model, value)
        assert list(shipped_templates(model)) == []


def test_giant_template_is_refused_unread(model: Path) -> None:
    (model / "chat_template.jinja").write_bytes(b" " * (MAX_TEMPLATE_BYTES + 1))
    with pytest.raises(InvalidArtifact, match="at most 1048576"):
        list(shipped_templates(model))
