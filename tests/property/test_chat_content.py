"""No content, however built, becomes a control token; ids equal those of the whole rendered string."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from phi4.processing.chat import ChatRenderer
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.processing.tokenizer_build import RELEASED_CONTROLS, build_tokenizer
from phi4.types import Message, Part, TextPart, ToolCall, ToolSpec

LITERALS = [literal for literal, _, _ in RELEASED_CONTROLS] + [
    "<|image|>",
    "<|audio|>",
    "<|image_1|>",
    "<|audio_1|>",
]
# The plain literal, with zero-width characters inside, in full-width form, cut in two, and doubled.
SPELLINGS = [
    *LITERALS,
    *(literal.replace("|", "\u200b|") for literal in LITERALS),
    *(literal[:4] + "\u200d" + literal[4:] for literal in LITERALS),
    *(literal.replace("<", "\uff1c").replace("|", "\uff5c") for literal in LITERALS),
    *(literal[:5] for literal in LITERALS),
    *(literal[5:] for literal in LITERALS),
    *("<|" + literal + "|>" for literal in LITERALS),
]
PLAIN = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=12)
HOSTILE = st.lists(
    st.one_of(st.sampled_from(SPELLINGS), PLAIN, st.sampled_from([" ", "\n", "\x1c"])), max_size=6
)
CONTENT = HOSTILE.map("".join)
HARMLESS = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="<|>"), max_size=20)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained on the control literals themselves, so that merges come as close to them as they can."""
    target = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer([" ".join(LITERALS), "".join(LITERALS), "turn on the light"] * 20, 500, target)
    return target


@pytest.fixture(scope="module")
def tokenizer(directory: Path) -> Phi4Tokenizer:
    return Phi4Tokenizer.load(directory)


@pytest.fixture(scope="module")
def native(directory: Path) -> Tokenizer:
    return Tokenizer.from_file(str(directory / "tokenizer.json"))


@settings(max_examples=1500)
@given(text=CONTENT)
def test_content_never_encodes_to_a_control_id(tokenizer: Phi4Tokenizer, text: str) -> None:
    ids = tokenizer.encode_text(text)
    assert tokenizer.control_ids.isdisjoint(ids)
    assert tokenizer.decode(ids) == text


@settings(max_examples=200)
@given(parts=st.lists(st.lists(CONTENT, min_size=1, max_size=3), min_size=4, max_size=4), name=CONTENT)
def test_control_ids_depend_on_the_shape_of_a_conversation_only(
    tokenizer: Phi4Tokenizer, parts: list[list[str]], name: str
) -> None:
    """Every place content can stand: four roles, split over parts, tool names, definitions, arguments."""

    def controls(texts: list[list[str]], name: str) -> list[int]:
        system, user, assistant, result = (tuple[Part, ...](map(TextPart, part)) for part in texts)
        arguments: dict[str, Any] = {name: [name], "x": texts[0][0]}
        messages = (
            Message("system", system),
            Message("user", user),
            Message("assistant", assistant, (ToolCall(name, arguments, name),)),
            Message("tool", result, (), name),
        )
        tool = ToolSpec("f", name, {}, {"name": "f", "description": name, name: texts[0][0]})
        chat = ChatRenderer(tokenizer).render(messages, [tool])
        return [token_id for token_id in chat.token_ids if token_id in tokenizer.control_ids]

    assert controls(parts, name) == controls([["a"], ["b"], ["c"], ["d"]], "n")


@settings(max_examples=300)
@given(texts=st.lists(HARMLESS, min_size=1, max_size=4), system=HARMLESS)
def test_ids_equal_those_of_the_whole_string(
    tokenizer: Phi4Tokenizer, native: Tokenizer, texts: list[str], system: str
) -> None:
    roles = [Message("system", (TextPart(system),))]
    for index, text in enumerate(texts):
        half = len(text) // 2
        roles.append(
            Message("assistant" if index % 2 else "user", (TextPart(text[:half]), TextPart(text[half:])))
        )
    for prompting in (True, False):
        chat = ChatRenderer(tokenizer).render(roles, (), prompting)
        assert list(chat.token_ids) == native.encode(chat.text, add_special_tokens=False).ids
