"""Pictures: token counts, masks, and any company."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from phi4.configs.patches import pooled_size
from phi4.model import Phi4Model, image_batch
from phi4.types import ImageArrays

Picture = Callable[..., ImageArrays]


def encode(model: Phi4Model, *images: ImageArrays) -> list[torch.Tensor]:
    with torch.no_grad():
        vectors, lengths = model.encode_images(image_batch(images))
    return list(vectors.split(lengths))


@pytest.mark.parametrize(
    ("crops", "valid"), [((1, 1), (8, 8)), ((2, 3), (13, 24)), ((3, 1), (24, 5)), ((1, 4), (1, 27))]
)
def test_token_counts_equal_the_configs_formula(
    crops: tuple[int, int], valid: tuple[int, int], model: Phi4Model, picture: Picture
) -> None:
    image = picture(0, *crops, *valid)
    assert pooled_size(image.patch_mask, *crops) == (-(-valid[0] // 2), -(-valid[1] // 2))
    assert len(encode(model, image)[0]) == image.num_tokens


def test_pictures_in_one_batch_equal_pictures_alone(model: Phi4Model, picture: Picture) -> None:
    images = [picture(1), picture(2, 2, 2, 11, 16), picture(3, 1, 3), picture(4, 1, 1, 8, 3)]
    for together, image in zip(encode(model, *images), images, strict=True):
        torch.testing.assert_close(together, encode(model, image)[0], atol=1e-5, rtol=0)


def test_pixels_of_padding_do_not_matter(model: Phi4Model, picture: Picture) -> None:
    # Pooling reads 2 x 2 blocks, so an even number of valid columns keeps padding out altogether.
    image = picture(1, 1, 2, 8, 12)
    pixels = image.pixels.copy()
    pixels[2, :, :, 4 * 14 :] = 0.25
    first, second = encode(model, image), encode(model, replace(image, pixels=pixels))
    torch.testing.assert_close(first[0], second[0], atol=1e-6, rtol=0)
    pixels[2, :, :, : 4 * 14] = 0.25
    assert not torch.allclose(first[0], encode(model, replace(image, pixels=pixels))[0], atol=1e-3)


def test_crop_of_padding_alone_leaves_the_rest_finite(model: Phi4Model, picture: Picture) -> None:
    image = picture(1, 1, 2, 8, 8)
    assert not image.patch_mask[2].any()
    assert torch.isfinite(encode(model, image)[0]).all()


def test_every_parameter_of_the_tower_learns(model: Phi4Model, picture: Picture) -> None:
    vectors, _ = model.encode_images(image_batch([picture(1, 1, 2, 8, 13)]))
    vectors.square().sum().backward()
    assert model.vision is not None
    assert not [name for name, p in model.vision.named_parameters() if p.grad is None or not p.grad.any()]
