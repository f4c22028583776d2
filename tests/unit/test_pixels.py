"""Features and labels of pixels, against loops over positions and against what a layer's name says."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from repdyn import pretrained
from repdyn.chapters.segmentation.pixels import decoder_layers, masks, patches, rows, stack_maps
from repdyn.datasets import FASHION_CLASSES, load
from repdyn.features import extract
from repdyn.images import ImageSet, to_unit_range


def test_the_first_decoder_layer_of_each_resolution() -> None:
    fashion = pretrained.load("fashion-small")
    assert decoder_layers(fashion) == ["dec/7x7_in0", "dec/14x14_up", "dec/28x28_up"]
    with pytest.raises(ValueError, match="^denoiser .*decoder"):
        decoder_layers(nn.Identity())


def test_oblong_images_keep_their_shape() -> None:
    denoiser = pretrained.load("ccp59-small")
    names = decoder_layers(denoiser)
    assert names == ["dec/6x6_in0", "dec/12x12_up", "dec/24x24_up", "dec/48x48_up"]
    images = torch.randint(0, 256, (2, 3, 48, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = extract(denoiser, images, 0.3, names, pool="maps")
    assert [tuple(found[name].shape[2:]) for name in names] == [(6, 4), (12, 8), (24, 16), (48, 32)]
    assert stack_maps(list(found.values()), (48, 32)).shape == (2, 224, 48, 32)


def test_stacked_maps_are_interpolated_where_they_are_coarse() -> None:
    fine, coarse = torch.rand(2, 3, 4, 6), torch.arange(4.0).reshape(1, 1, 2, 2).expand(2, 1, 2, 2)
    stacked = stack_maps([coarse, fine], (4, 6))
    assert torch.equal(stacked[:, 1:], fine)
    # Pixel centres of 4 rows lie at -1/4, 1/4, 3/4, 5/4 of the rows of 2, those of 6 columns at sixths; ends are held.
    across, down = torch.tensor([0, 0, 1 / 3, 2 / 3, 1, 1]), torch.tensor([0, 0.25, 0.75, 1])
    torch.testing.assert_close(stacked[0, 0], 2 * down[:, None] + across)
    constant = stack_maps([torch.full((1, 2, 3, 2), 7.0)], (12, 8))
    torch.testing.assert_close(constant, torch.full_like(constant, 7.0))  # the weights sum to one


@pytest.mark.parametrize("maps", [[], [torch.zeros(2, 3)]])
def test_what_is_no_map_is_refused(maps: list) -> None:
    with pytest.raises(ValueError, match="^maps"):
        stack_maps(maps, (4, 4))


def test_rows_are_pixels_in_reading_order() -> None:
    stacked = torch.rand(2, 3, 4, 5)
    flat = rows(stacked)
    assert flat.shape == (40, 3)
    for n, y, x in ((0, 0, 1), (1, 2, 3), (1, 3, 4)):
        assert torch.equal(flat[n * 20 + y * 5 + x], stacked[n, :, y, x])


def test_patches_hold_their_neighbours_and_their_place() -> None:
    images = torch.randint(0, 256, (2, 3, 6, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    scaled = to_unit_range(images)
    found = patches(images, 3, position=True)
    assert found.shape == (2, 27 + 2, 6, 5)
    assert torch.equal(found[1, :27, 2, 3], scaled[1, :, 1:4, 2:5].flatten())
    corner = found[0, :27, 0, 0].reshape(3, 3, 3)
    assert torch.equal(corner[:, 0, 0], scaled[0, :, 0, 0]) and torch.equal(corner[:, 2, 2], scaled[0, :, 1, 1])
    assert found[0, 27:, 0, 4].tolist() == [-1, 1] and found[0, 27:, 5, 2].tolist() == [1, 0]
    assert torch.equal(patches(images, 1), scaled) and torch.equal(patches(images, 3), found[:, :27])
    for window in (0, 2, -1):
        with pytest.raises(ValueError, match="^window"):
            patches(images, window)


def test_masks_of_objects_before_a_black_ground() -> None:
    data = load("fashion-mnist-mini", "test")
    found, classes = masks(data, 16)
    assert classes == ("background", *FASHION_CLASSES) and found.dtype == torch.int64
    assert torch.equal(found > 0, data.images[:, 0] > 16)
    assert all(set(mask.unique().tolist()) == {0, int(label) + 1} for mask, label in zip(found[:50], data.labels))
    for threshold in (None, -1, 256):
        with pytest.raises(ValueError, match=f"^threshold .*{threshold}"):
            masks(data, threshold)


def test_masks_that_are_there_are_kept() -> None:
    data = ImageSet(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.ones(2, 4, 4, dtype=torch.int64), ("a", "b"), "")
    assert masks(data) == (data.labels, ("a", "b"))
    with pytest.raises(ValueError, match="^threshold .*masks"):
        masks(data, 16)
