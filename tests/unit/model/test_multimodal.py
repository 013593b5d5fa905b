"""The whole model: parts, media in their places, packed rows, training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional

from phi4.checkpoint.inventory import expected_shapes
from phi4.configs import NANO, PHI4_MINI, PHI4_MULTIMODAL, Phi4Config, tiny_multimodal
from phi4.errors import InvalidRequest
from phi4.model import ModelBatch, Phi4Model, init_weights, make_batch
from phi4.types import ModelInputs

Row = Callable[..., ModelInputs]
UNTIED = replace(PHI4_MINI, decoder=replace(PHI4_MINI.decoder, tie_word_embeddings=False))


@pytest.mark.parametrize(
    "config",
    [PHI4_MINI, PHI4_MULTIMODAL, NANO, tiny_multimodal(), UNTIED],
    ids=["mini", "multimodal", "nano", "tiny", "untied"],
)  # fmt: skip
def test_tensors_are_exactly_those_of_the_inventory(config: Phi4Config) -> None:
    with torch.device("meta"):
        state = Phi4Model(config).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == expected_shapes(config)


def test_released_models_have_the_published_parameter_counts() -> None:
    with torch.device("meta"):
        mini, multimodal = Phi4Model(PHI4_MINI), Phi4Model(PHI4_MULTIMODAL)
    assert sum(p.numel() for p in mini.parameters()) == 3_836_021_760
    # The published total also counts the tower's last layer, last norm and pooling head.
    unused = 15_239_504 + 2_304 + 15_238_352
    assert sum(t.numel() for t in multimodal.state_dict().values()) == 5_574_460_384 - unused


def test_parts_not_asked_for_do_not_exist(config: Phi4Config, row: Row, picture: Any, recording: Any) -> None:
    model = Phi4Model(config, parts=("text",))
    assert not [name for name in model.state_dict() if not name.startswith("decoder.") or "lora" in name]
    for medium, part in ((picture(), "vision"), (recording(0, 20), "speech")):
        with pytest.raises(InvalidRequest, match=f"the {part} part is not loaded"):
            model(make_batch([row(5, medium)], ["short"], [()]))


def test_part_the_config_lacks_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="no 'vision' part, only text"):
        Phi4Model(PHI4_MINI, parts=("text", "vision"))


def test_media_stand_in_their_places(model: Phi4Model, row: Row, picture: Any, recording: Any) -> None:
    image, audio = picture(1, 1, 2), recording(2, 40)
    rows = [row(5, 6, 7), row(8, audio, 9, image, 10)]
    batch = make_batch(rows, ["short", "short"])
    assert batch.audios is not None
    assert batch.audios.projectors == ("vision",)
    assert batch.adapters == ((), ("vision",))
    with torch.no_grad():
        hidden = model.embed(batch)
        words = model.decoder.embed(batch.input_ids)
        images, audios = model.encode_images(batch.images)[0], model.encode_audios(batch.audios)[0]  # type: ignore[arg-type]
    assert torch.equal(hidden[0], words[0])
    assert torch.equal(hidden[1, 1:6], audios)
    assert torch.equal(hidden[1, 7 : 7 + image.num_tokens], images)
    for place in (0, 6, 7 + image.num_tokens):
        assert torch.equal(hidden[1, place], words[1, place])


def test_gradients_reach_words_and_both_encoders(
    model: Phi4Model, row: Row, picture: Any, recording: Any
) -> None:
    batch = make_batch([row(8, recording(2, 40), 9, picture(1), 10)], ["short"])
    model(batch)[0, -1].square().sum().backward()
    reached = {
        name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()
    }
    assert reached == {"decoder", "vision", "speech"}
    words = model.decoder.embed_tokens.weight.grad
    assert words is not None
    assert words[[8, 9, 10]].any(dim=1).all()
    # The placeholder's own row was overwritten, so it must not learn.
    assert not words[1].any()


def test_packed_rows_equal_their_segments_alone(model: Phi4Model) -> None:
    parts = [[5, 6, 7, 8], [9, 10], [11, 12, 13]]
    ids = torch.tensor([[token for part in parts for token in part]])
    positions = torch.tensor([[place for part in parts for place in range(len(part))]])
    segments = torch.tensor([[number for number, part in enumerate(parts) for _ in part]])
    packed = ModelBatch(ids, positions, torch.zeros(1, dtype=torch.long), ((),), segments=segments)
    with torch.no_grad():
        together = model(packed)[0].split([len(part) for part in parts])
        for states, part in zip(together, parts, strict=True):
            alone = model(make_batch([ModelInputs(torch.tensor(part).numpy())], ["short"]))[0]
            torch.testing.assert_close(states, alone, atol=1e-5, rtol=0)


def test_no_tensor_is_left_behind_on_another_device(
    config: Phi4Config, row: Row, picture: Any, recording: Any
) -> None:
    # Mixing the storage-less device with the CPU is an error, so this walks every path an accelerator takes.
    with torch.device("meta"):
        model = Phi4Model(config)
    rows = [row(5, picture(1, 1, 2, 8, 13), 6, recording(0, 50)), row(7, recording(1, 30)), row(9, 10)]
    adapters = [("vision",), ("speech",), ()]
    batch = make_batch(rows, ["short", "long", "short"], adapters).to("meta")
    logits = model.logits(model(batch))
    assert logits.device.type == "meta"
    assert logits.shape == (3, len(rows[0].token_ids), 256)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_output_has_the_models_type(
    dtype: torch.dtype, model: Phi4Model, row: Row, picture: Any, recording: Any
) -> None:
    model.to(dtype)
    with torch.no_grad():
        hidden = model(make_batch([row(5, picture(), recording(0, 50), 6), row(7, 8)], ["short", "short"]))
    assert hidden.dtype == dtype
    assert model.logits(hidden).dtype == dtype
    assert torch.isfinite(hidden.float()).all()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_autocast_trains_every_part_in_bf16(
    attention: str, model: Phi4Model, row: Row, picture: Any, recording: Any
) -> None:
    model.use_attention(attention)
    rows = [row(5, picture(1, 1, 2, 8, 13), recording(0, 50), 6), row(7, recording(1, 30), 8)]
    batch = make_batch(rows, ["short", "short"])
    with torch.no_grad():
        precise = model(batch)
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model(batch)
    hidden.float().square().mean().backward()
    assert (hidden.float() - precise).abs().max() < 0.3
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_a_few_steps_of_training_lower_the_loss(
    config: Phi4Config, row: Row, picture: Any, recording: Any
) -> None:
    model = Phi4Model(config)
    init_weights(model, torch.Generator().manual_seed(1))
    model.train()
    batch = make_batch(
        [row(5, picture(1), 20, 21, 22), row(6, recording(0, 50), 30, 31, 32)], ["short", "short"]
    )
    places = torch.tensor([[0, len(batch.input_ids[0]) - 3], [1, 1 + 7]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        logits = model.logits(model(batch)[places[:, 0], places[:, 1]])
        loss = functional.cross_entropy(logits, torch.tensor([22, 31]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
