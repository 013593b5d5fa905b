"""Objectives ask for the right tokens, agree with plain definitions and reach the parts they should."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from phi4.configs import Phi4Config
from phi4.errors import TrainingError
from phi4.model import Phi4Model
from phi4.train.batch import tensor_batch
from phi4.train.collate import TrainRow, collate
from phi4.train.objectives import Trainee, ctc, ctc_loss, glyphs, pretrain, sft
from phi4.types import ModelInputs

RowMaker = Callable[..., TrainRow]


def parts_with_gradient(trainee: Trainee) -> set[str]:
    reached = set()
    for name, parameter in trainee.canonical().items():
        if parameter.grad is not None and bool(parameter.grad.abs().sum() > 0):
            lora = ".lora_A." in name or ".lora_B." in name
            reached.add("lora." + name.split(".")[-2] if lora else ".".join(name.split(".")[:2]))
    return reached


def test_sft_loss_equals_cross_entropy_over_the_masked_tokens(trainee: Trainee, make_row: RowMaker) -> None:
    rows = [make_row(1), make_row(2, answer=7), make_row(3, text=30)]
    outcome = sft(trainee, tensor_batch(collate(rows)))
    losses = []
    for row in rows:  # alone, without padding, from all logits
        batch = tensor_batch(collate([row]))
        logits = trainee.model.logits(trainee.model(batch.model))[0, : len(row.inputs.token_ids) - 1]
        each = functional.cross_entropy(logits, torch.from_numpy(row.inputs.token_ids[1:]), reduction="none")
        losses.append(each[torch.from_numpy(row.inputs.loss_mask[1:])])  # type: ignore[index]
    torch.testing.assert_close(outcome.loss, torch.cat(losses).mean(), rtol=1e-5, atol=1e-6)
    assert 0.0 <= float(outcome.metrics["accuracy"]) <= 1.0


def test_packed_documents_lose_as_if_each_stood_alone(trainee: Trainee) -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 250, 9), rng.integers(0, 250, 14)
    everything = np.ones(23, dtype=bool)
    packed = TrainRow(
        ModelInputs(np.concatenate([first, second]), loss_mask=everything),
        segments=np.repeat([0, 1], [9, 14]),
    )
    alone = [TrainRow(ModelInputs(ids, loss_mask=np.ones(len(ids), dtype=bool))) for ids in (first, second)]
    together = pretrain(trainee, tensor_batch(collate([packed]))).loss
    apart = [pretrain(trainee, tensor_batch(collate([row]))).loss for row in alone]
    torch.testing.assert_close(together, (apart[0] * 8 + apart[1] * 13) / 21, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("media", "expected"),
    [
        ({}, {"decoder.embed_tokens", "decoder.layers", "decoder.norm"}),
        ({"image": True}, {"vision.img_processor", "vision.img_projection", "lora.vision"}),
        ({"frames": 60}, {"speech.encoder", "speech.audio_projection", "lora.speech"}),
        ({"image": True, "frames": 60}, {"vision.img_processor", "speech.encoder", "lora.vision"}),
    ],
)
def test_gradient_reaches_exactly_the_parts_of_the_media(
    trainee: Trainee, make_row: RowMaker, media: dict[str, object], expected: set[str]
) -> None:
    batch = tensor_batch(collate([make_row(1, **media), make_row(2, **media)]))
    sft(trainee, batch).loss.backward()
    reached = parts_with_gradient(trainee)
    assert expected <= reached
    unused = {"lora.speech", "heads.blank"} if "image" in media else {"lora.vision", "vision.img_processor"}
    assert not unused & reached


def test_audio_with_image_goes_through_the_vision_projector(trainee: Trainee, make_row: RowMaker) -> None:
    sft(trainee, tensor_batch(collate([make_row(1, image=True, frames=40)]))).loss.backward()
    parameters = trainee.canonical()
    assert parameters["speech.audio_projection.vision.0.weight"].grad is not None
    assert parameters["speech.audio_projection.speech.0.weight"].grad is None


def test_ctc_equals_the_loss_of_each_recording_alone(trainee: Trainee, make_row: RowMaker) -> None:
    rows = [make_row(seed, frames=frames) for seed, frames in ((1, 50), (2, 90), (3, 64))]
    outcome = ctc(trainee, tensor_batch(collate(rows)))
    alone = [ctc(trainee, tensor_batch(collate([row]))).loss for row in rows]
    torch.testing.assert_close(outcome.loss, torch.stack(alone).mean(), rtol=1e-4, atol=1e-5)
    assert float(outcome.loss.detach()) > 0


def test_ctc_trains_the_encoder_both_projectors_and_the_vocabulary_but_no_decoder_layer(
    trainee: Trainee, make_row: RowMaker
) -> None:
    ctc(trainee, tensor_batch(collate([make_row(1, frames=60)]))).loss.backward()
    vocabulary = {"decoder.norm", "decoder.embed_tokens", "heads.blank"}
    assert parts_with_gradient(trainee) == {"speech.encoder", "speech.audio_projection", *vocabulary}
    assert trainee.canonical()["speech.audio_projection.vision.2.weight"].grad is not None


def test_recording_without_transcript_or_too_short_for_it_costs_nothing(
    trainee: Trainee, make_row: RowMaker
) -> None:
    unknown = TrainRow(make_row(1, frames=60).inputs)
    short = TrainRow(make_row(2, frames=8).inputs, np.arange(4, 40))
    known = make_row(3, frames=60)
    assert float(ctc(trainee, tensor_batch(collate([unknown, short]))).loss.detach()) == 0.0
    with_unknown = ctc(trainee, tensor_batch(collate([known, unknown]))).loss
    torch.testing.assert_close(
        with_unknown, ctc(trainee, tensor_batch(collate([known]))).loss, rtol=1e-4, atol=1e-5
    )


def test_sft_adds_the_weighted_ctc_loss(trainee: Trainee, make_row: RowMaker) -> None:
    batch = tensor_batch(collate([make_row(1, frames=60), make_row(2, frames=72)]))
    plain, mixed = sft(trainee, batch), sft(trainee, batch, ctc_weight=0.3)
    assert batch.model.audios is not None
    vectors, _ = trainee.model.encode_audios(batch.model.audios)
    expected = plain.loss + 0.3 * ctc_loss(trainee, batch, vectors)
    torch.testing.assert_close(mixed.loss, expected, rtol=1e-4, atol=1e-5)


def test_glyphs_teaches_tower_and_projector_what_the_picture_says(
    trainee: Trainee, make_row: RowMaker
) -> None:
    row = make_row(1, image=True)
    told = replace(row, glyphs=np.array([[2, 3], [11, 9]]), pieces=np.array([[0, 7], [3, 8]]))
    batch = tensor_batch(collate([told, told]))
    outcome = glyphs(trainee, batch)
    outcome.loss.backward()
    reached = parts_with_gradient(trainee)
    assert {
        "vision.img_processor",
        "vision.img_projection",
        "decoder.embed_tokens",
        "heads.glyphs",
    } <= reached
    assert "decoder.layers" not in reached
    mixed = sft(trainee, batch, glyph_weight=0.2)
    expected = sft(trainee, batch).loss + 0.2 * outcome.loss
    torch.testing.assert_close(mixed.loss, expected, rtol=1e-4, atol=1e-5)


def test_picture_without_known_characters_is_refused_by_glyphs(trainee: Trainee, make_row: RowMaker) -> None:
    with pytest.raises(TrainingError, match="characters"):
        glyphs(trainee, tensor_batch(collate([make_row(1, image=True)])))


def test_batch_without_recordings_is_refused_by_ctc(trainee: Trainee, make_row: RowMaker) -> None:
    with pytest.raises(TrainingError, match="recordings"):
        ctc(trainee, tensor_batch(collate([make_row(1)])))


def test_ctc_head_needs_a_speech_encoder(config: Phi4Config) -> None:
    with pytest.raises(TrainingError, match="speech encoder"):
        Trainee(Phi4Model(config.with_layout("mini")), ctc=True)
