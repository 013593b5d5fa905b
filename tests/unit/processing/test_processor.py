"""Conversations become rows: placeholders expanded, spans and loss masks exact, mistakes refused."""

from __future__ import annotations

import base64
import io
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from phi4.configs import Phi4Config
from phi4.errors import ContextOverflow, InvalidArtifact, InvalidMedia, InvalidRequest
from phi4.processing.media import MediaLimits
from phi4.processing.mel import audio_arrays
from phi4.processing.processor import Processor, expand_placeholders
from phi4.processing.tiles import tile_image
from phi4.processing.tokenizer import Phi4Tokenizer
from phi4.testing.media import audio_bytes, chirp, image_bytes, ramp_picture
from phi4.testing.tiny import tiny_config
from phi4.types import AudioArrays, ImageArrays, ImagePart, Message, ModelInputs

PIXELS = ramp_picture(80, 50)


@pytest.fixture(scope="module")
def config() -> Phi4Config:
    return tiny_config("original", vocab_size=640)


@pytest.fixture(scope="module")
def processor(config: Phi4Config, tokenizer: Phi4Tokenizer) -> Processor:
    return Processor(config, tokenizer)


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(content)}


def text(content: str) -> dict[str, str]:
    return {"type": "text", "text": content}


def image(source: Any) -> dict[str, Any]:
    return {"type": "image", "image": source}


def audio(source: Any) -> dict[str, Any]:
    return {"type": "audio", "audio": source}


def check_spans(inputs: ModelInputs, tokenizer: Phi4Tokenizer) -> None:
    """Every placeholder lies in a span of its kind, and every span is as long as its medium."""
    ids = {"image": tokenizer.tokens.image, "audio": tokenizer.tokens.audio}
    media: dict[str, tuple[Any, ...]] = {"image": inputs.images, "audio": inputs.audios}
    covered = np.zeros(len(inputs.token_ids), dtype=bool)
    for span in inputs.spans:
        part = slice(span.start, span.start + span.length)
        assert span.length == media[span.kind][span.index].num_tokens
        assert (inputs.token_ids[part] == ids[span.kind]).all()
        covered[part] = True
    assert [span.start for span in inputs.spans] == sorted(span.start for span in inputs.spans)
    assert (np.isin(inputs.token_ids, list(ids.values())) == covered).all()


def test_text_becomes_a_row_without_media(processor: Processor, tokenizer: Phi4Tokenizer) -> None:
    inputs = processor.prepare([{"role": "user", "content": "Hello"}])
    assert inputs.mode == "text" and inputs.spans == () and inputs.loss_mask is None
    assert inputs.token_ids.dtype == np.int64
    assert (
        tokenizer.decode(inputs.token_ids.tolist(), skip_special=False) == "<|user|>Hello<|end|><|assistant|>"
    )


def test_placeholders_are_expanded_in_order(processor: Processor, tokenizer: Phi4Tokenizer) -> None:
    wide, short = ramp_picture(200, 50), chirp(0.4)
    inputs = processor.prepare(
        [user(image(PIXELS), text("and"), image(wide), text("?"), audio(chirp(1.0))), user(audio(short))]
    )
    check_spans(inputs, tokenizer)
    assert [(span.kind, span.index) for span in inputs.spans] == [
        ("image", 0), ("audio", 0), ("image", 1), ("audio", 1),
    ]  # fmt: skip
    config = processor.config
    assert config.vision and config.speech
    assert inputs.images[1].digest == tile_image(wide, config.vision).digest
    assert inputs.audios[1].digest == audio_arrays(short, config.speech).digest
    assert inputs.mode == "vision_speech"


def test_removing_the_placeholders_leaves_the_text_row(
    processor: Processor, tokenizer: Phi4Tokenizer
) -> None:
    plain = processor.prepare([user(text("what?"))]).token_ids
    filled = processor.prepare([user(image(PIXELS), text("what?"))]).token_ids
    assert (filled[filled != tokenizer.tokens.image] == plain).all()


def test_every_source_of_a_picture_gives_the_same_arrays(processor: Processor, tmp_path: Path) -> None:
    data = image_bytes("PNG", PIXELS)
    path = tmp_path / "p.png"
    path.write_bytes(data)
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    assert processor.config.vision
    ready = tile_image(PIXELS, processor.config.vision)
    rgba = Image.fromarray(PIXELS).convert("RGBA")
    sources = (PIXELS, Image.fromarray(PIXELS), rgba, data, path, str(path), url, ready)
    digests = {processor.prepare([user(image(source))]).images[0].digest for source in sources}
    assert digests == {ready.digest}


def test_every_source_of_a_recording_gives_the_same_arrays(processor: Processor, tmp_path: Path) -> None:
    samples = chirp(0.5)
    data = audio_bytes(samples, 16000, subtype="FLOAT")
    path = tmp_path / "a.wav"
    path.write_bytes(data)
    part = {"type": "input_audio", "input_audio": {"data": base64.b64encode(data).decode(), "format": "wav"}}
    assert processor.config.speech
    ready = audio_arrays(samples, processor.config.speech)
    parts = [audio(samples), audio(samples.astype(np.float64)), audio(data), audio(path), audio(ready), part]
    assert {processor.prepare([user(part)]).audios[0].digest for part in parts} == {ready.digest}


def test_fewer_crops_make_a_shorter_row(processor: Processor) -> None:
    large = ramp_picture(400, 400)
    full, one = (processor.prepare([user(image(large))], max_crops=crops) for crops in (None, 1))
    assert len(one.token_ids) < len(full.token_ids)
    assert len(one.images[0].pixels) == 2


def test_detail_of_a_part_limits_its_crops_and_no_other(processor: Processor) -> None:
    large, url = ramp_picture(400, 400), {"type": "image_url"}
    data = f"data:image/png;base64,{base64.b64encode(image_bytes('PNG', large)).decode()}"
    turn = user(
        url | {"image_url": {"url": data, "detail": "low"}},
        url | {"image_url": {"url": data, "detail": "high"}},
        url | {"image_url": data},
        ImagePart(large, "low"),
    )
    low, high, plain, own = processor.prepare([turn]).images
    assert len(low.pixels) == 2 and low.digest == own.digest
    assert len(high.pixels) == 5 and high.digest == plain.digest
    one, two = (processor.prepare([turn], max_crops=limit).images for limit in (1, 2))
    assert [len(picture.pixels) for picture in one] == [2, 2, 2, 2]  # no detail goes beyond the limit
    assert [len(picture.pixels) for picture in two] == [2, 2, 2, 2]  # 1 x 2 is no better ratio than 1 x 1


def test_detail_that_cannot_be_is_refused(processor: Processor) -> None:
    assert processor.config.vision
    ready = tile_image(PIXELS, processor.config.vision)
    with pytest.raises(InvalidRequest, match="picture 2 is cut into crops already, so its detail cannot"):
        processor.prepare([user(image(PIXELS), ImagePart(ready, "low"))])
    with pytest.raises(InvalidRequest, match="detail is 'medium'; valid are 'low', 'auto', 'high'"):
        processor.prepare([user(ImagePart(PIXELS, "medium"))])  # type: ignore[arg-type]
    with pytest.raises(InvalidMedia, match=r"picture 1 has shape \[80\]"):
        processor.prepare([user(ImagePart(PIXELS[0, :, 0], "low"))])


def test_training_rows_mark_exactly_what_assistants_say(
    processor: Processor, tokenizer: Phi4Tokenizer
) -> None:
    inputs = processor.prepare_training(
        [
            user(image(PIXELS), text("one?")),
            {"role": "assistant", "content": "First."},
            user(text("two?"), audio(chirp(0.5))),
            {"role": "assistant", "content": "Second."},
        ]
    )
    check_spans(inputs, tokenizer)
    assert inputs.loss_mask is not None and inputs.loss_mask.shape == inputs.token_ids.shape
    spoken = tokenizer.decode(inputs.token_ids[inputs.loss_mask].tolist(), skip_special=False)
    assert spoken == "First.<|end|>Second.<|end|><|endoftext|>"


def test_a_training_row_begins_with_the_prompt(processor: Processor) -> None:
    question = user(image(PIXELS), text("one?"))
    prompt = processor.prepare([question]).token_ids
    inputs = processor.prepare_training([question, {"role": "assistant", "content": "First."}])
    assert (inputs.token_ids[: len(prompt)] == prompt).all()
    assert inputs.loss_mask is not None
    assert not inputs.loss_mask[: len(prompt)].any() and inputs.loss_mask[len(prompt) :].all()


def test_training_without_an_answer_is_refused(processor: Processor) -> None:
    with pytest.raises(InvalidRequest, match="no assistant message"):
        processor.prepare_training([user(text("one?"))])


def test_tools_reach_the_prompt(processor: Processor, tokenizer: Phi4Tokenizer) -> None:
    ids = processor.prepare([user(text("U"))], tools=[{"name": "f"}]).token_ids
    assert tokenizer.tokens.tool in ids
    assert '[{"name": "f"}]' in tokenizer.decode(ids.tolist())


@pytest.fixture(scope="module")
def short(config: Phi4Config, tokenizer: Phi4Tokenizer) -> Processor:
    """A processor for a context of 64 tokens."""
    decoder = replace(config.decoder, max_position_embeddings=64, original_max_position_embeddings=64)
    return Processor(replace(config, decoder=decoder), tokenizer)


def test_a_prompt_longer_than_the_context_is_refused(short: Processor) -> None:
    with pytest.raises(ContextOverflow, match=r"\d+ tokens but the model's context is 64; shorten"):
        short.prepare([user(text("x " * 100))])
    with pytest.raises(ContextOverflow, match="look at pictures less closely") as refused:
        short.prepare([user(*[image(ramp_picture(400, 400))] * 4)])
    assert refused.value.has_pictures and "phi4.load(..., max_crops=4)" in refused.value.__notes__[0]
    assert len(short.prepare([user(text("short"))]).token_ids) <= 64


def test_media_behind_the_end_of_the_context_are_not_opened(short: Processor) -> None:
    """A few tokens of text, one for each medium, and 26 more for each picture: the third is too many."""
    three = [image(ramp_picture(400, 400))] * 3
    with pytest.raises(ContextOverflow, match="at least 85 tokens"):
        short.prepare([user(*three, image("missing.png"))])
    with pytest.raises(ContextOverflow, match="at least 87 tokens"):
        short.prepare([user(*three), user(audio("missing.wav"))])


def test_a_tokenizer_larger_than_the_embedding_is_refused(tokenizer: Phi4Tokenizer) -> None:
    with pytest.raises(InvalidArtifact, match="vocab_size is 320"):
        Processor(tiny_config("original", vocab_size=320), tokenizer)


def test_a_text_model_refuses_media(tokenizer: Phi4Tokenizer) -> None:
    processor = Processor(tiny_config("mini", vocab_size=640), tokenizer)
    for part, noun in ((image(PIXELS), "pictures"), (audio(chirp(0.1)), "recordings")):
        with pytest.raises(InvalidRequest, match=f"takes no {noun}"):
            processor.prepare([user(part)])


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (image("missing.png"), "missing.png"),
        (image(b"no picture"), "picture"),
        (audio(np.zeros(100, np.int16)), "int16"),
        (image("https://example.com/a.png"), "URLs are not opened"),
    ],
)
def test_media_that_cannot_be_used_are_refused(
    processor: Processor, part: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidMedia, match=message):
        processor.prepare([user(part)])


THIN, CLICK = ramp_picture(2000, 1), chirp(0.01)
THIN_FILE, CLICK_FILE = image_bytes("PNG", THIN), audio_bytes(CLICK, 16000)


@pytest.mark.parametrize(
    ("second", "says"),
    [
        (image(Path("thin.png")), r"thin\.png' is 2000 x 1 pixels, too long and thin"),
        (image(THIN_FILE), rf"^picture \({len(THIN_FILE)} bytes\) is 2000 x 1 pixels"),
        (image(THIN), "^picture 2 is 2000 x 1 pixels"),
        (image(Image.fromarray(THIN)), "^picture 2 is 2000 x 1 pixels"),
        (image(Image.open(io.BytesIO(THIN_FILE[:60]))), "^picture 2 is not a whole"),
        (image(np.zeros((4, 4), np.uint8)), r"^picture 2 has shape \[4, 4\]"),
        (audio(Path("click.wav")), r"click\.wav' is 10\.0 ms long"),
        (audio(CLICK_FILE), rf"^recording \({len(CLICK_FILE)} bytes\) is 10\.0 ms long"),
        (audio(CLICK), r"^recording 2 is 10\.0 ms long"),
        (audio(np.zeros((2, 100), np.float32)), r"^recording 2 has shape \[2, 100\]"),
        (audio(np.full(1000, np.nan, np.float32)), "^recording 2 holds samples that are not numbers"),
    ],
)
def test_of_several_media_the_wrong_one_is_named(
    processor: Processor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: dict[str, Any], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("thin.png").write_bytes(THIN_FILE)
    Path("click.wav").write_bytes(CLICK_FILE)
    with pytest.raises(InvalidMedia, match=says):
        processor.prepare([user(image(PIXELS), audio(chirp(0.5)), second)])


def test_limits_and_the_ban_on_files_reach_the_opener(
    config: Phi4Config, tokenizer: Phi4Tokenizer, tmp_path: Path
) -> None:
    path = tmp_path / "p.png"
    path.write_bytes(image_bytes("PNG", PIXELS))
    with pytest.raises(InvalidMedia):
        Processor(config, tokenizer, limits=MediaLimits(max_image_px=100)).prepare([user(image(path))])
    with pytest.raises(InvalidMedia):
        Processor(config, tokenizer, allow_files=False).prepare([user(image(path))])


def medium(kind: type[Any], num_tokens: int) -> Any:
    if kind is ImageArrays:
        return ImageArrays(
            np.zeros((1, 3, 2, 2), np.float32), np.ones((1, 1, 1), bool), (2, 2), num_tokens, "d"
        )
    return AudioArrays(np.zeros((8, 80), np.float32), num_tokens, 0.1, "d")


@pytest.mark.parametrize(("placeholders", "given"), [(10_000, 1), (10_000, 0), (0, 1), (1, 2)])
@pytest.mark.parametrize("kind", ["image", "audio"])
def test_counts_of_placeholders_and_media_must_agree(
    tokenizer: Phi4Tokenizer, kind: str, placeholders: int, given: int
) -> None:
    token = tokenizer.tokens.require(kind)
    media = [medium(ImageArrays if kind == "image" else AudioArrays, 3)] * given
    images, audios = (media, []) if kind == "image" else ([], media)
    with pytest.raises(InvalidRequest, match=f"{placeholders} {kind} placeholders but {given} media"):
        expand_placeholders([5] + [token] * placeholders, images, audios, tokenizer.tokens)


def test_many_placeholders_are_expanded_in_one_pass(tokenizer: Phi4Tokenizer) -> None:
    tokens = tokenizer.tokens
    row = [tokens.require("image"), 7, tokens.require("audio")] * 10_000
    images, audios = [medium(ImageArrays, 3)] * 10_000, [medium(AudioArrays, 2)] * 10_000
    inputs = expand_placeholders(row, images, audios, tokens)
    expected = [tokens.image] * 3 + [7] + [tokens.audio] * 2
    assert inputs.token_ids.tolist() == expected * 10_000
    check_spans(inputs, tokenizer)


def test_a_row_is_put_together_once_however_many_media_it_has(tokenizer: Phi4Tokenizer) -> None:
    """Counted as calls: text takes none of its own, a medium always the same number."""
    image = tokenizer.tokens.require("image")

    def calls(num_text: int, num_media: int) -> int:
        count = 0

        def note(frame: object, event: str, function: object) -> None:
            nonlocal count
            count += event in ("call", "c_call")

        media = [medium(ImageArrays, 3)] * num_media
        row = [image] * num_media + [7] * num_text
        previous = sys.getprofile()
        sys.setprofile(note)
        try:
            expand_placeholders(row, media, [], tokenizer.tokens)
        finally:
            sys.setprofile(previous)
        return count

    assert calls(10_000, 1) == calls(100, 1)
    assert calls(10, 800) - calls(10, 400) <= 1.1 * (calls(10, 400) - calls(10, 0))


def test_messages_already_parsed_are_accepted(processor: Processor) -> None:
    from phi4.types import TextPart

    given = processor.prepare([Message("user", (TextPart("Hello"),))])
    assert (given.token_ids == processor.prepare([{"role": "user", "content": "Hello"}]).token_ids).all()


def test_a_recording_can_be_had_by_itself(processor: Processor, config: Phi4Config) -> None:
    samples = chirp(0.5)
    assert config.speech is not None
    wanted = audio_arrays(samples, config.speech)
    for source in (samples, audio_bytes(samples, 16000, subtype="FLOAT"), wanted):
        heard, kept = processor.hear(source)
        assert heard.digest == wanted.digest
        assert kept is None if source is wanted else np.array_equal(kept, samples)
    with pytest.raises(InvalidMedia, match=r"talk is 10\.0 ms long"):
        processor.hear(samples[:160], "talk")
    with pytest.raises(InvalidRequest, match="takes no recordings"):
        Processor(tiny_config("mini", vocab_size=640), processor.tokenizer).hear(samples)
