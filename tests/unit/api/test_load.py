"""`load` and `Phi4` on tiny checkpoints of all three layouts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import phi4
from phi4 import registry
from phi4.checkpoint import LoadedAdapter, adapter_shapes, save_adapter
from phi4.configs import AdapterConfig
from phi4.errors import ContextOverflow, InvalidMedia, InvalidRequest, MissingExtra, ModelNotFound
from phi4.processing.prompts import transcribe_message
from phi4.testing.media import audio_bytes, chirp, image_bytes, ramp_picture
from phi4.testing.tiny import tiny_config, write_tiny_checkpoint

PICTURE = image_bytes("PNG", ramp_picture(60, 40))
VOICE = audio_bytes(chirp(0.5), 16000)
TOOLS = [{"name": "switch", "description": "", "parameters": {"on": {"type": "bool"}}}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def write(layout: str) -> Path:
        if layout not in made:
            made[layout] = tmp_path_factory.mktemp(layout)
            write_tiny_checkpoint(made[layout], layout, max_positions=2048)  # type: ignore[arg-type]
        return made[layout]

    return write


@pytest.fixture(scope="module")
def model(folder: Callable[[str], Path]) -> phi4.Phi4:
    return phi4.load(folder("original"))


def test_all_layouts_of_one_model_give_one_answer(folder: Callable[[str], Path], model: phi4.Phi4) -> None:
    native = phi4.load(folder("hf"))
    mini = phi4.load(folder("mini"))
    options = {"temperature": 1.0, "seed": 4, "max_new_tokens": 12}
    text = [m.chat("Hi", **options).token_ids for m in (model, native, mini)]
    assert text[0] == text[1] == text[2]
    media = [m.chat("What?", PICTURE, VOICE, **options).token_ids for m in (model, native)]
    assert media[0] == media[1] != text[0]


def test_adapters_follow_the_media_and_are_reported(model: phi4.Phi4) -> None:
    assert model.chat("Hi", max_new_tokens=1).adapters == ()
    assert model.chat("Hi", images=PICTURE, max_new_tokens=1).adapters == ("vision",)
    assert model.chat("Hi", audio=[VOICE, VOICE], max_new_tokens=1).adapters == ("speech",)
    both = model.chat("Hi", [PICTURE], VOICE, max_new_tokens=1)
    assert both.adapters == ("vision",)
    assert both.usage.image_tokens > 0 and both.usage.audio_tokens > 0


def test_encoders_come_on_first_use_and_only_when_they_may(folder: Callable[[str], Path]) -> None:
    lazy = phi4.load(folder("original"))
    network = lazy.generator.runner.model  # type: ignore[attr-defined]
    assert network.vision is None and network.speech is None and not network.router.scales
    assert lazy.info.modalities == ("text", "vision", "speech")
    lazy.chat("Hi", PICTURE, max_new_tokens=1)
    assert network.vision is not None and network.speech is None
    assert list(network.router.scales) == ["vision"]
    assert not any(weight.is_inference() for weight in network.parameters())  # they can still be trained
    strict = phi4.load(folder("original"), modalities=("text", "speech"))
    assert strict.info.modalities == ("text", "speech")
    assert strict.chat("Hi", audio=VOICE, max_new_tokens=4).token_ids
    with pytest.raises(InvalidRequest, match="vision"):
        strict.chat("Hi", PICTURE)


def test_a_dictionary_conversation_equals_the_plain_question(model: phi4.Phi4) -> None:
    turns = [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
    assert model.chat(turns, max_new_tokens=6).token_ids == model.chat("Hi", max_new_tokens=6).token_ids


def test_streaming_equals_chat(model: phi4.Phi4) -> None:
    options = {"temperature": 1.0, "seed": 8, "max_new_tokens": 20}
    whole = model.chat("Hi", PICTURE, tools=TOOLS, **options)
    pieces = list(model.stream("Hi", PICTURE, tools=TOOLS, **options))
    assert pieces[-1].completion is not None
    assert pieces[-1].completion.token_ids == whole.token_ids
    assert "".join(piece.text for piece in pieces) == whole.text


def test_tasks_use_the_released_wording(model: phi4.Phi4) -> None:
    wording = "Transcribe the audio clip into text."
    options = {"max_new_tokens": 5}
    assert (
        model.transcribe(VOICE, **options).token_ids == model.chat(wording, audio=VOICE, **options).token_ids
    )
    german = model.chat("Translate the audio to German.", audio=VOICE, **options)
    assert model.translate(VOICE, "de", **options).token_ids == german.token_ids


def test_the_score_of_a_greedy_answer_says_that_it_is_greedy(model: phi4.Phi4) -> None:
    scored = model.score("Hi", "the red house", PICTURE)
    assert len(scored.logprobs) == len(scored.token_ids) > 0
    assert scored.total < 0 and not scored.is_greedy
    for question in ("Hi", "Who?", "Where?", "And then?", "How many?"):
        answer = model.chat(question, PICTURE, max_new_tokens=2)
        same = answer.text.strip() and tuple(model.tokenizer.encode_text(answer.text)) == answer.token_ids
        if same and answer.text == answer.text.strip():
            break
    else:
        pytest.fail("no greedy answer survives decoding; choose other questions")
    assert model.score(question, answer.text, PICTURE).is_greedy


def test_sampling_objects_and_single_options_go_together(model: phi4.Phi4) -> None:
    params = phi4.SamplingParams(temperature=1.0, seed=1, max_new_tokens=7)
    assert len(model.chat("Hi", sampling=params).token_ids) == 7
    assert len(model.chat("Hi", sampling=params, max_new_tokens=3).token_ids) == 3
    with pytest.raises(InvalidRequest, match=r"max_tokens.*max_new_tokens"):
        model.chat("Hi", max_tokens=3)


def test_a_stop_string_may_be_given_alone(model: phi4.Phi4) -> None:
    options = {"temperature": 1.0, "seed": 1, "max_new_tokens": 40}
    free = model.chat("Hi", **options).text
    cut = free[len(free) // 2]
    assert model.chat("Hi", stop=cut, **options).text == free[: free.index(cut)]


def test_the_default_limit_gives_way_to_a_long_prompt_but_a_chosen_one_does_not(model: phi4.Phi4) -> None:
    question = "x " * 1010  # about 2,020 of 2,048 tokens
    done = model.chat(question, temperature=1.0, seed=0)
    assert done.usage.prompt_tokens > 2000
    assert done.usage.prompt_tokens + done.usage.completion_tokens <= 2048
    with pytest.raises(ContextOverflow, match="2048"):
        model.chat(question, max_new_tokens=100)
    with pytest.raises(ContextOverflow):
        model.chat("x " * 3000)


def test_the_default_limit_grows_with_a_long_recording(model: phi4.Phi4) -> None:
    voice = np.random.default_rng(0).normal(0, 0.1, 16000 * 48).astype(np.float32)
    request = model._request([transcribe_message(voice)], (), (), (), None, {})
    assert request.inputs is not None and request.inputs.audios[0].num_tokens == 600
    assert request.sampling.max_new_tokens == 600
    assert model._request("Hi", (), (), (), None, {}).sampling.max_new_tokens == 512
    chosen = model._request([transcribe_message(voice)], (), (), (), None, {"max_new_tokens": 9})
    assert chosen.sampling.max_new_tokens == 9


def test_remote_media_are_fetched_only_when_that_was_allowed(folder: Callable[[str], Path]) -> None:
    url = "http://127.0.0.1:9/sign.png"  # loopback: refused by address where fetching is allowed
    with pytest.raises(InvalidMedia, match="not allowed here"):
        phi4.load(folder("original")).chat("Hi", url)
    with pytest.raises(InvalidMedia, match="private network"):
        phi4.load(folder("original"), allow_remote=True).chat("Hi", url)


def test_a_users_adapter_is_added_to_every_request(folder: Callable[[str], Path], tmp_path: Path) -> None:
    config = AdapterConfig("mine", 2, 4)
    random = np.random.default_rng(0)
    shapes = adapter_shapes(tiny_config().decoder, config)
    tensors = {name: random.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    save_adapter(tmp_path / "mine", LoadedAdapter(config, tensors))
    tuned = phi4.load(folder("original"), adapter=tmp_path / "mine")
    assert tuned.chat("Hi", max_new_tokens=1).adapters == ("mine",)
    done = tuned.chat("Hi", PICTURE, max_new_tokens=12)
    assert done.adapters == ("vision", "mine")
    plain = phi4.load(folder("original")).chat("Hi", PICTURE, max_new_tokens=12)
    assert done.token_ids != plain.token_ids


def test_an_adapters_dropout_is_off_while_answering(folder: Callable[[str], Path], tmp_path: Path) -> None:
    shapes = adapter_shapes(tiny_config().decoder, AdapterConfig("mine", 2, 4))
    random = np.random.default_rng(0)
    tensors = {name: random.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    scores = []
    for dropout in (0.0, 0.9):
        config = AdapterConfig("mine", 2, 4, dropout)
        save_adapter(tmp_path / f"{dropout}" / "mine", LoadedAdapter(config, tensors))
        tuned = phi4.load(folder("mini"), adapter=tmp_path / f"{dropout}" / "mine")
        scores.append(tuned.score("Hi", "the red house").logprobs)
    assert scores[0] == scores[1]


def test_arithmetic_and_attention_are_chosen_and_shown(folder: Callable[[str], Path]) -> None:
    made = phi4.load(folder("mini"), dtype="bfloat16", attention="eager", device="cpu")
    assert (made.info.dtype, made.info.attention, made.info.device) == ("bfloat16", "eager", "cpu")
    assert len(made.chat("Hi", max_new_tokens=4).token_ids) <= 4
    assert phi4.load(folder("mini")).info.dtype == "float32"


def test_parts_a_model_does_not_have_are_named(folder: Callable[[str], Path]) -> None:
    with pytest.raises(InvalidRequest, match=r"'vision' is not in this model, it has \['text'\]"):
        phi4.load(folder("mini"), modalities=("text", "vision"))


def test_unusable_requests_are_our_errors(model: phi4.Phi4) -> None:
    with pytest.raises(InvalidMedia):
        model.chat("Hi", images=b"no picture")
    with pytest.raises(InvalidRequest):
        model.chat([])
    with pytest.raises(InvalidRequest, match="language"):
        model.translate(VOICE, "Klingon")
    with pytest.raises(ModelNotFound):
        phi4.load("no/such/directory/anywhere")


def test_without_torch_loading_names_the_extra(
    folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"\[torch\]"):
        phi4.load(folder("mini"))


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, phi4; print([m for m in ('torch', 'numpy', 'PIL', 'tokenizers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_exist_and_others_are_refused() -> None:
    assert all(getattr(phi4, name) is not None for name in phi4.__all__)
    assert phi4.errors.InvalidRequest is InvalidRequest
    with pytest.raises(AttributeError, match="chatt"):
        phi4.chatt  # noqa: B018
