"""Parts and phases cover the parameters they name, and nothing else trains."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from phi4.errors import TrainingError
from phi4.train.batch import tensor_batch
from phi4.train.collate import TrainRow, collate
from phi4.train.objectives import Trainee, sft
from phi4.train.optim import Optimizer
from phi4.train.phases import PARTS, PHASES, freeze, trainable_names
from phi4.train.settings import OptimSettings

RowMaker = Callable[..., TrainRow]


def test_parts_cover_every_parameter_exactly_once(trainee: Trainee) -> None:
    names = list(trainee.canonical())
    counts = dict.fromkeys(names, 0)
    for part in PARTS:
        if part != "all":
            for name in trainable_names(names, [part]):
                counts[name] += 1
    assert set(counts.values()) == {1}, [name for name, count in counts.items() if count != 1]


def test_language_phase_trains_the_decoder_without_its_adapters(trainee: Trainee) -> None:
    chosen = trainable_names(trainee.canonical(), ["language"])
    assert chosen and all(name.startswith("decoder.") and ".lora_" not in name for name in chosen)


@pytest.mark.parametrize("phase", sorted(PHASES))
def test_every_released_phase_fits_the_multimodal_model(trainee: Trainee, phase: str) -> None:
    assert trainable_names(trainee.canonical(), [phase])


def test_vision_sft_trains_adapter_encoder_and_projector_only(trainee: Trainee) -> None:
    chosen = trainable_names(trainee.canonical(), ["vision-sft"])
    assert {name for name in chosen if name.startswith("decoder")} == {
        name for name in trainee.canonical() if ".vision.weight" in name and "lora_" in name
    }
    assert not any(name.startswith("speech") for name in chosen)


def test_freeze_leaves_gradients_to_the_named_parameters(trainee: Trainee) -> None:
    chosen = [name for name, _ in trainee.named_parameters()][:3]
    freeze(trainee, chosen)
    assert [name for name, parameter in trainee.named_parameters() if parameter.requires_grad] == chosen


def test_training_a_phase_moves_its_parameters_and_no_others(trainee: Trainee, make_row: RowMaker) -> None:
    before = {name: parameter.detach().clone() for name, parameter in trainee.canonical().items()}
    chosen = trainable_names(before, ["vision-sft"])
    names = [f"model.{name}" for name in chosen if not name.startswith("heads")]
    freeze(trainee, names)
    optimizer = Optimizer(trainee, names, OptimSettings())
    for seed in range(2):  # the first step moves LoRA B away from zero, the second can then move A
        optimizer.zero_grad()
        sft(trainee, tensor_batch(collate([make_row(seed, image=True)]))).loss.backward()
        optimizer.step(1.0, optimizer.gradient_norm(), torch.tensor(True))
    after = trainee.canonical()
    moved = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert moved <= set(chosen)
    for part in ("lora_A.vision", "lora_B.vision", "vision.img_processor", "vision.img_projection"):
        assert any(part in name for name in moved), part


def test_unknown_part_and_missing_part_are_refused(trainee: Trainee) -> None:
    with pytest.raises(TrainingError, match="unknown part or phase 'visoin'"):
        trainable_names(trainee.canonical(), ["visoin"])
    with pytest.raises(TrainingError, match=r"no parameters of part 'vision\.encoder'"):
        trainable_names(["decoder.norm.weight"], ["vision.encoder"])
