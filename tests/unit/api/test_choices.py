"""Options of `load` that no model could have are refused first; those of requests are judged by name."""

from __future__ import annotations

import base64
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import phi4
from phi4 import registry
from phi4.errors import InvalidMedia, InvalidRequest, MissingExtra
from phi4.processing.media import MediaLimits
from phi4.processing.tiles import tile_image
from phi4.testing.media import image_bytes, ramp_picture
from phi4.testing.tiny import write_tiny_checkpoint

PICTURE = image_bytes("PNG", ramp_picture(200, 100))
NOWHERE = "no/such/model/anywhere"  # looking for it would raise ModelNotFound
ONE = {"max_new_tokens": 1}
LETTERS = phi4.SamplingParams(stop="END")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("original")
    write_tiny_checkpoint(target, max_positions=2048)
    return target


@pytest.fixture(scope="module")
def model(folder: Path) -> phi4.Phi4:
    return phi4.load(folder)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"runner": "abacus"}, "abacus.*torch"),
        ({"device": "abacus"}, "abacus"),
        ({"device": "meta"}, "device 'meta'"),
        ({"dtype": "int3"}, "int3.*float32"),
        ({"attention": "magic"}, "magic"),
        ({"rope_policy": "yarn"}, "yarn.*reference"),
        ({"modalities": ("text", "smell")}, "smell.*vision"),
        ({"max_crops": 0}, "max_crops is 0"),
        ({"placement": "last"}, "'last'.*'inline' and 'first'"),
        ({"provider": "abacus"}, "provider 'abacus': the installed ONNX Runtime .* has cpu"),
        ({"provider": "openvino", "runner": "torch"}, "the torch runner was asked for"),
        ({"provider": "openvino", "device": "cpu"}, "beside device 'cpu'.*give one"),
        ({"limits": 5}, "limits is 5.*MediaLimits"),
        ({"adapter": "out/vision"}, "'vision'.*rename its folder"),
        ({"adapter": Path("out/speech")}, "'speech'.*rename its folder"),
    ],
)
def test_options_of_no_model_are_refused_before_one_is_looked_for(
    options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidRequest, match=words):
        phi4.load(NOWHERE, **options)


def test_a_missing_backend_is_told_before_a_model_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.importlib.util, "find_spec", lambda name: None)
    for asked in ({"name": NOWHERE, "runner": "torch"}, {"name": "nobody/nothing"}):
        with pytest.raises(MissingExtra, match=r"\[torch\]"):
            phi4.load(**asked)


def test_detail_beyond_the_model_is_refused_before_weights_are_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phi4.api.open_runner", lambda *_, **__: pytest.fail("weights were read"))
    with pytest.raises(InvalidRequest, match="max_crops is 5: this model takes 1 to 4"):
        phi4.load(folder, max_crops=5)


def test_detail_placement_and_limits_of_load_hold_for_every_request(folder: Path, model: phi4.Phi4) -> None:
    turn = [{"role": "user", "content": ["What?", {"type": "image", "image": PICTURE}]}]
    chosen = phi4.load(folder, max_crops=1, placement="first")
    coarse, fine = (m.chat(turn, **ONE).usage.image_tokens for m in (chosen, model))
    assert 0 < coarse < fine
    first, inline = (m._request(turn, (), (), (), None, {}).inputs for m in (chosen, model))
    assert first is not None and inline is not None and first.spans[0].start == 1 < inline.spans[0].start
    assert chosen.score(turn, "yes").total != model.score(turn, "yes").total
    strict = phi4.load(folder, limits=MediaLimits(max_image_bytes=10))
    with pytest.raises(InvalidMedia, match="over the limit of 10"):
        strict.chat("What?", PICTURE)


def test_detail_of_a_request_decides_its_pictures_and_auto_is_all_the_model_may_take(
    model: phi4.Phi4,
) -> None:
    def tokens(detail: Any, **asked: Any) -> int:
        streamed = list(model.stream("What?", PICTURE, detail=detail, **ONE))[-1].completion
        answer = model.chat("What?", PICTURE, detail=detail, **ONE)
        assert streamed is not None and streamed.usage == answer.usage
        return answer.usage.image_tokens

    costs = model.picture_costs((200, 100))
    assert {detail: tokens(detail) for detail in costs} == {d: plan.num_tokens for d, plan in costs.items()}
    assert tokens("low") < tokens("high") == tokens("auto") == tokens(None)
    url = "data:image/png;base64," + base64.b64encode(PICTURE).decode()
    part = {"type": "image_url", "image_url": {"url": url, "detail": "low"}}
    mixed = model.chat([{"role": "user", "content": [part]}], PICTURE, detail="high", **ONE)
    assert mixed.usage.image_tokens == tokens("low") + tokens("high")


def test_unknown_detail_is_refused_at_once(model: phi4.Phi4) -> None:
    for ask in (model.chat, model.stream):
        with pytest.raises(InvalidRequest, match="detail is 'best'; valid are"):
            ask("Hi", PICTURE, detail="best")


def test_costs_are_told_for_a_size_a_file_and_a_decoded_picture_alike(
    folder: Path, model: phi4.Phi4, tmp_path: Path
) -> None:
    (tmp_path / "ramp.png").write_bytes(PICTURE)
    told = model.picture_costs((200, 100))
    assert told["low"].num_crops == 2 < told["high"].num_crops
    for picture in (PICTURE, tmp_path / "ramp.png", ramp_picture(200, 100)):
        assert model.picture_costs(picture) == told
    coarse = phi4.load(folder, max_crops=1)
    assert set(coarse.picture_costs((200, 100)).values()) == {told["low"]}
    assert model.config.vision is not None
    with pytest.raises(InvalidRequest, match="cut into crops already"):
        model.picture_costs(tile_image(ramp_picture(20, 20), model.config.vision))
    with pytest.raises(InvalidMedia, match="does not exist"):
        model.picture_costs(tmp_path / "gone.png")


def test_time_of_a_crop_is_measured_on_the_encoder_and_leaves_nothing_open(
    model: phi4.Phi4, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner: Any = model.generator.runner
    encoded: list[int] = []
    encode = runner.encode

    def counting(media: Any) -> Any:
        encoded.append(len(media.pixels))
        return encode(media)

    monkeypatch.setattr(runner, "encode", counting)
    measured = model.seconds_per_crop()
    assert measured is not None and 0 < measured < 10
    assert encoded == [2, 2] and runner.num_handles == 0
    elsewhere = replace(runner.info, device="cuda:0")
    monkeypatch.setattr(type(runner), "info", property(lambda self: elsewhere))
    assert model.seconds_per_crop() is None and encoded == [2, 2]


def test_model_without_pictures_has_no_costs(tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path, "mini", max_positions=64)
    text = phi4.load(tmp_path)
    for ask in (lambda: text.picture_costs((9, 9)), text.seconds_per_crop):
        with pytest.raises(InvalidRequest, match="takes no pictures"):
            ask()


def test_an_encoder_without_adapter_is_told_once_at_load(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_tiny_checkpoint(tmp_path, "hf", max_positions=2048)
    shutil.rmtree(tmp_path / "vision-lora")
    with caplog.at_level(logging.WARNING, "phi4"):
        bare = phi4.load(tmp_path)
        assert [record.name for record in caplog.records] == ["phi4.engine.adapters"]
        assert "vision encoder" in caplog.text and "speech" not in caplog.text
        for _ in range(2):
            assert bare.chat("Hi", PICTURE, **ONE).adapters == ()
        phi4.load(tmp_path, modalities=("text", "speech"))
    assert len(caplog.records) == 1


def test_media_and_tools_of_none_are_none(model: phi4.Phi4) -> None:
    plain = model.chat("Hi", max_new_tokens=4)
    none = model.chat("Hi", images=None, audio=None, tools=None, stop=None, max_new_tokens=4)
    assert none.token_ids == plain.token_ids
    assert model.score("Hi", "yes", images=None, audio=None) == model.score("Hi", "yes")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stop": 5}, "stop is 5; give a list of strings"),
        ({"stop": {"END"}}, "stop is {'END'}"),
        ({"stop": ["END", 5]}, "a stop string is 5"),
        ({"stop": ""}, "a stop string is ''"),
        ({"sampling": LETTERS}, "stop is 'END'; give a list"),
    ],
)
def test_stops_that_are_no_strings_are_refused(model: phi4.Phi4, options: dict[str, Any], words: str) -> None:
    for ask in (model.chat, model.stream):
        with pytest.raises(InvalidRequest, match=words):
            ask("Hi", **options)


def test_a_list_of_stops_is_taken(model: phi4.Phi4) -> None:
    params = phi4.SamplingParams(stop=["END"], max_new_tokens=2)  # type: ignore[arg-type]
    assert model.chat("Hi", sampling=params).token_ids == model.chat("Hi", max_new_tokens=2).token_ids


def test_arrays_of_another_model_are_refused_and_nothing_stays_open(model: phi4.Phi4) -> None:
    assert model.config.vision is not None
    arrays = tile_image(ramp_picture(60, 40), model.config.vision)
    wrong = replace(arrays, num_tokens=arrays.num_tokens + 1)
    with pytest.raises(InvalidRequest, match=f"state {wrong.num_tokens} tokens"):
        model.chat("Hi", wrong, **ONE)
    runner: Any = model.generator.runner
    assert (runner.num_open, runner.num_handles) == (0, 0)
    assert model.chat("Hi", arrays, **ONE).usage.image_tokens == arrays.num_tokens
