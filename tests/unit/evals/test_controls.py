"""Controls take away exactly what they say and nothing else."""

from __future__ import annotations

import numpy as np
from PIL import Image

from phi4.evals.controls import blank_image, controls_for, media_of, silence, with_media
from phi4.evals.tasks import Task
from phi4.processing.audio import load_audio
from phi4.processing.images import load_image
from phi4.types import TextPart


def control(task: Task, name: str):
    return next(c for c in controls_for(task.media) if c.name == name)


def test_text_tasks_have_no_controls() -> None:
    assert controls_for(()) == ()


def test_one_medium_gives_blind_wrong_medium_and_adapter_off() -> None:
    assert [c.name for c in controls_for(("audio",))] == ["blind", "wrong medium", "adapter off"]


def test_two_media_give_a_blind_control_each() -> None:
    names = [c.name for c in controls_for(("image", "audio"))]
    assert names == ["blind (image)", "blind (audio)", "wrong image", "wrong audio", "adapter off"]
    assert [c.name for c in controls_for(("image", "audio")) if c.removes_medium] == names[:2]


def test_blank_picture_is_white_and_keeps_its_size(colour_task: Task) -> None:
    source = media_of(colour_task.samples(1)[0], "image")[0]
    blank = blank_image(source)
    assert blank.shape == np.asarray(load_image(source)).shape == (10, 20, 3)
    assert blank.min() == 255


def test_blank_picture_and_silence_are_made_of_arrays_too() -> None:
    assert blank_image(np.zeros((6, 9, 3), np.uint8)).shape == (6, 9, 3)
    assert blank_image(Image.new("RGB", (9, 6))).shape == (6, 9, 3)
    assert silence(np.ones(123, np.float32)).shape == (123,)


def test_silence_is_zero_and_keeps_its_length(both_task: Task) -> None:
    source = media_of(both_task.samples(1)[0], "audio")[0]
    quiet = silence(source)
    assert len(quiet) == len(load_audio(source)) == 1600
    assert not quiet.any()


def test_blind_image_leaves_text_sound_and_right_answer_alone(both_task: Task) -> None:
    before = both_task.samples(3)
    after = control(both_task, "blind (image)").apply(before)
    for old, new in zip(before, after, strict=True):
        assert media_of(new, "audio") == media_of(old, "audio")
        (white,) = media_of(new, "image")
        assert white.min() == 255
        assert (new.expected, new.id, new.tools) == (old.expected, old.id, old.tools)


def test_wrong_medium_comes_from_a_sample_with_another_answer(colour_task: Task) -> None:
    before = colour_task.samples(8)
    after = control(colour_task, "wrong medium").apply(before)
    sources = {media_of(s, "image")[0]: s.expected for s in before}
    assert all(
        sources[media_of(new, "image")[0]] != old.expected for old, new in zip(before, after, strict=True)
    )


def test_adapter_off_changes_the_adapters_only(colour_task: Task) -> None:
    off = control(colour_task, "adapter off")
    samples = colour_task.samples(2)
    assert off.adapters == ()
    assert off.apply(samples) == samples
    assert control(colour_task, "blind").adapters is None


def test_media_are_replaced_in_order_and_parts_keep_their_place(colour_task: Task) -> None:
    sample = colour_task.samples(1)[0]
    changed = with_media(sample, "image", [b"other"])
    assert media_of(changed, "image") == [b"other"]
    assert changed.messages[0].parts[1] == TextPart("Which colour?")
