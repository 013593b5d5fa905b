"""Known templates give the prompts phi4 makes; others are shown, and none is ever run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from phi4.diagnose.case import Asked, Case
from phi4.diagnose.template import FIELD, KNOWN, check_template
from phi4.onnx.package.description import DESCRIPTION_NAME
from phi4.processing.chat import ChatRenderer
from phi4.processing.chat_template import CHAT_TEMPLATE, template_digest
from phi4.processing.messages import parse_messages
from phi4.processing.tokenizer import Phi4Tokenizer

# As the released models spell it, in 423 characters.
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
    """A package in the folder of its checkpoint."""
    return Case(Asked(), folder=model, path=model / "onnx", tokenizer=Phi4Tokenizer.load(model))


@pytest.fixture
def alone(model: Path) -> Case:
    """The package by itself."""
    package = model / "onnx"
    return Case(Asked(), folder=package, path=package, tokenizer=Phi4Tokenizer.load(package))


def settings(folder: Path, value: Any) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": value}))


def note(package: Path, digest: str | None) -> None:
    """Have a package say which template its model came with."""
    where = package / DESCRIPTION_NAME
    where.write_text(json.dumps(json.loads(where.read_text()) | {FIELD: digest}))


def test_released_template_is_as_long_as_the_released_one() -> None:
    assert len(RELEASED) == 423


@pytest.mark.parametrize("text", [RELEASED, CUT, CHAT_TEMPLATE, HF_NATIVE])
def test_every_known_template_renders_what_phi4_does(case: Case, text: str) -> None:
    assert template_digest(text) in KNOWN
    template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(text)
    assert case.tokenizer is not None
    rendered = ChatRenderer(case.tokenizer).render(parse_messages(TURNS))
    assert template.render(messages=TURNS, add_generation_prompt=True, eos_token="-") == rendered.text


def test_no_known_digest_is_without_its_template() -> None:
    assert {template_digest(text) for text in (RELEASED, CUT, CHAT_TEMPLATE, HF_NATIVE)} == set(KNOWN)


def test_template_that_an_export_writes_says_nothing_about_the_model(case: Case, model: Path) -> None:
    assert "chat_template" in (model / "onnx" / "tokenizer_config.json").read_text()
    found = check_template(case)
    assert found is not None and found.verdict == "ok" and "ships none" in found.finding


def test_foreign_template_of_a_checkpoint_is_seen_past_that_of_its_package(case: Case, model: Path) -> None:
    settings(model, CHATML)
    found = check_template(case)
    assert found is not None and found.verdict == "warning"
    assert "lacks: <|im_end|>, <|im_start|>)" in found.finding and "answer badly" in found.advice


def test_package_alone_is_judged_by_the_template_it_notes(alone: Case, model: Path) -> None:
    note(model / "onnx", template_digest(CHATML))
    found = check_template(alone)
    assert found is not None and found.verdict == "warning" and "came with a template" in found.finding
    note(model / "onnx", template_digest(RELEASED))
    found = check_template(alone)
    assert found is not None and found.verdict == "ok" and "with the released template" in found.finding
    note(model / "onnx", None)
    found = check_template(alone)
    assert found is not None and found.verdict == "ok" and "ships none" in found.finding


def test_package_that_notes_no_template_is_not_called_well(alone: Case, model: Path) -> None:
    where = model / "onnx" / DESCRIPTION_NAME
    raw = json.loads(where.read_text())
    where.write_text(json.dumps({name: value for name, value in raw.items() if name != FIELD}))
    found = check_template(alone)
    assert found is not None and found.verdict == "warning" and "export" in found.advice


def test_known_template_is_named_with_its_file(case: Case, model: Path) -> None:
    settings(model, RELEASED)
    found = check_template(case)
    assert found is not None and found.verdict == "ok"
    assert found.finding.startswith("tokenizer_config.json holds the released template;")


def test_unknown_template_of_known_tokens_is_a_warning_without_names(case: Case, model: Path) -> None:
    settings(model, "{{ 'Hi<|user|>' }}")
    found = check_template(case)
    assert found is not None and found.verdict == "warning" and "lacks" not in found.finding


def test_template_somebody_put_into_a_package_counts_first(case: Case, model: Path) -> None:
    settings(model, CHATML)
    (model / "onnx" / "chat_template.jinja").write_text(RELEASED)
    found = check_template(case)
    assert found is not None and found.finding.startswith("chat_template.jinja holds the released template")


def test_template_is_never_run(case: Case, model: Path) -> None:
    settings(model, "{% for i in range(10**12) %}{{ 'x' * 10**10 }}{% endfor %}")
    found = check_template(case)
    assert found is not None and found.verdict == "warning"
