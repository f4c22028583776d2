"""Batches of a training: the stream of images, noise levels, mirrored and moved images, labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from repdyn import datasets
from repdyn.noise import ddpm_alpha_bar, ddpm_sigma
from repdyn.training import VP, DDPMSteps, LogNormal, TrainConfig, VPTime, batches, make_denoiser, train
from repdyn.training.augment import MAX_SHIFT, NUM_LABELS, augment

# ------------------------------------------------------------------------------------------------- noise levels


def test_noise_levels_are_log_normal_and_the_noise_standard(tiny: TrainConfig) -> None:
    config = replace(tiny, batch_size=20_000, levels=LogNormal(-0.7, 0.9))
    x0, sigma, noise, *_ = batches.draw(5, config, datasets.load("digits"))
    assert sigma.log().mean().item() == pytest.approx(-0.7, abs=0.03)
    assert sigma.log().std().item() == pytest.approx(0.9, abs=0.02)
    assert (noise.mean().item(), noise.std().item()) == pytest.approx((0, 1), abs=0.01)
    assert (x0.min().item(), x0.max().item()) == (-1, 1)
    other_sigma = batches.draw(6, config, datasets.load("digits")).sigma
    assert abs(torch.corrcoef(torch.stack([sigma, other_sigma]))[0, 1]) < 0.03


@pytest.mark.parametrize("levels", [DDPMSteps(), VPTime()])
def test_noise_levels_of_a_ddpm_are_even_in_time(tiny: TrainConfig, levels: DDPMSteps | VPTime) -> None:
    config = replace(tiny, batch_size=50_000, levels=levels)
    sigma = batches.draw(0, config, datasets.load("digits")).sigma
    if levels == DDPMSteps():
        schedule = ddpm_sigma(np.arange(1000), ddpm_alpha_bar()).astype(np.float32)
        assert set(sigma.tolist()) == set(schedule.tolist())  # each level, and no other
        steps = np.searchsorted(schedule, sigma.numpy())
        counts = np.bincount(steps, minlength=1000)
        assert 0.8 < ((counts - 50) ** 2 / 50).mean() < 1.2  # chi squared: 1 with a standard deviation of 0.045
    else:
        rate = np.log1p(sigma.double().numpy() ** 2)  # 19.9 t^2 / 2 + 0.1 t
        times = np.sort((np.sqrt(0.1**2 + 2 * 19.9 * rate) - 0.1) / 19.9)
        assert np.abs(times - np.linspace(0, 1, len(times))).max() < 0.01  # Kolmogorov's distance, 0.0027 at 15 %


def test_the_vp_network_is_told_the_time(tiny: TrainConfig) -> None:
    denoiser = make_denoiser(replace(tiny, preconditioning=VP()))
    times = np.array([0.002, 0.0123, 0.2, 0.5004, 0.999, 1.0])
    sigma = torch.as_tensor(np.sqrt(np.exp(19.9 / 2 * times**2 + 0.1 * times) - 1))
    np.testing.assert_allclose(denoiser.timestep(sigma).numpy(), 999 * times, atol=0.1)


# -------------------------------------------------------------------------------------------- the stream of images


def stream(config: TrainConfig, num_images: int, length: int) -> Tensor:
    parts = [batches.batch_indices(i, config, num_images) for i in range(-(-length // config.batch_size))]
    return torch.cat(parts)[:length]


@pytest.mark.parametrize("batch_size", [1, 7, 16, 25, 64])
def test_every_epoch_is_a_permutation_and_no_two_are_alike(tiny: TrainConfig, batch_size: int) -> None:
    epochs = stream(replace(tiny, batch_size=batch_size), 25, 100).reshape(4, 25)
    assert (epochs.sort(1).values == torch.arange(25)).all()
    assert len(epochs.unique(dim=0)) == 4
    assert (epochs != torch.arange(25)).any(1).all()


def test_the_stream_of_images_does_not_depend_on_how_it_is_cut(tiny: TrainConfig) -> None:
    whole = stream(replace(tiny, batch_size=100), 25, 100)
    for batch_size in (1, 7, 16, 25, 64):
        assert torch.equal(stream(replace(tiny, batch_size=batch_size), 25, 100), whole)


# ---------------------------------------------------------------------------------------- mirrored images, labels


def test_flip_mirrors_half_of_the_images_and_changes_nothing_else(tiny: TrainConfig) -> None:
    config, data = replace(tiny, batch_size=1000), datasets.load("digits")
    plain, flipped = batches.draw(3, config, data), batches.draw(3, replace(config, flip=True), data)
    assert torch.equal(plain.sigma, flipped.sigma) and torch.equal(plain.noise, flipped.noise)
    mirrored = (flipped.x0 == plain.x0.flip(3)).flatten(1).all(1)
    kept = (flipped.x0 == plain.x0).flatten(1).all(1)
    assert (mirrored | kept).all() and not (mirrored & kept).any()  # no digit here is its own mirror image
    assert mirrored.float().mean().item() == pytest.approx(0.5, abs=0.05)
    again, other = (batches.draw(3, replace(config, flip=True, seed=seed), data).x0 for seed in (config.seed, 9))
    assert torch.equal(again, flipped.x0) and not torch.equal(other, flipped.x0)


def test_labels_are_those_of_the_images(tiny: TrainConfig) -> None:
    config, data = replace(tiny, network=replace(tiny.network, num_classes=10)), datasets.load("digits")
    batch = batches.draw(2, config, data)
    labels = data.labels[batches.batch_indices(2, config, len(data.images))]
    assert batch.conditions.keys() == {"class_labels"} and batch.conditions["class_labels"].dtype == torch.float32
    assert torch.equal(batch.conditions["class_labels"], torch.eye(10)[labels])
    assert len(set(labels.tolist())) > 3


def test_classes_that_the_data_has_not_are_refused(tiny: TrainConfig) -> None:
    config = replace(tiny, network=replace(tiny.network, num_classes=4))
    with pytest.raises(ValueError, match="num_classes is 4, .* up to 9"):
        next(train(config, cpu=True))
    data = datasets.load("digits")
    with pytest.raises(ValueError, match="num_classes is 4, .* every pixel"):
        batches.check(config, data._replace(labels=data.images[:, 0]))


def test_shares_are_the_batch_and_no_image_is_in_two(tiny: TrainConfig) -> None:
    network = replace(tiny.network, num_classes=10)
    batch = batches.draw(0, replace(tiny, network=network, batch_size=10), datasets.load("digits"))
    shares = [batches.share(batch, index, 3, torch.device("cpu")) for index in range(3)]
    assert [len(share.x0) for share in shares] == [4, 3, 3]
    order = torch.cat([torch.arange(index, 10, 3) for index in range(3)])
    for part in ("x0", "sigma", "noise"):
        assert torch.equal(torch.cat([getattr(s, part) for s in shares]), getattr(batch, part)[order])
    labels = torch.cat([share.conditions["class_labels"] for share in shares])
    assert torch.equal(labels, batch.conditions["class_labels"][order])


# ----------------------------------------------------------------------------------------------------- augmentation


def distinct(num: int, side: int = 16) -> Tensor:
    """Images no two pixels of which are equal, so that it can be seen where each went."""
    return torch.arange(num * 2 * side * side, dtype=torch.float32).reshape(num, 2, side, side)


def moved(num: int, probability: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    return augment(distinct(num), probability, torch.Generator().manual_seed(seed))


def redo(image: Tensor, label: Tensor) -> Tensor:
    """What the label says, done pixel by pixel."""
    mirror_x, mirror_y, sine, one_minus_cosine, down, right = label.tolist()
    side = image.shape[-1]
    largest = MAX_SHIFT * side
    result = torch.empty_like(image)
    for row in range(side):
        for column in range(side):
            y, x = row - round(down * largest), column - round(right * largest)
            y, x = (-v if v < 0 else 2 * (side - 1) - v if v >= side else v for v in (y, x))
            # Turned about the centre, back by the angle; rows count downwards.
            cosine, centre = 1 - one_minus_cosine, (side - 1) / 2
            dx, up = x - centre, centre - y
            x, y = centre + cosine * dx + sine * up, centre - (cosine * up - sine * dx)
            y = side - 1 - y if mirror_y else y
            x = side - 1 - x if mirror_x else x
            result[:, row, column] = image[:, round(y), round(x)]
    return result


def test_the_labels_say_what_was_done() -> None:
    images, labels = moved(60, 0.6)
    assert len(labels.unique(dim=0)) > 40
    for before, after, label in zip(distinct(60), images, labels):
        assert torch.equal(redo(before, label), after), label.tolist()


def test_what_was_done_can_be_undone_by_the_labels() -> None:
    images, labels = moved(200, 0.5)
    side, edge = images.shape[-1], int(MAX_SHIFT * images.shape[-1])
    for before, image, label in zip(distinct(200), images, labels):
        down, right = (label[4:] * edge).round().int().tolist()
        image = image.roll((-down, -right), (1, 2))  # right but for the pixels near the edges
        turns = next(
            k
            for k in range(4)
            if (label[2], 1 - label[3]) == (round(np.sin(k * np.pi / 2)), round(np.cos(k * np.pi / 2)))
        )
        image = image.rot90(-turns, (1, 2))
        image = image.flip(1) if label[1] else image
        image = image.flip(2) if label[0] else image
        inner = slice(edge, side - edge)
        assert torch.equal(image[:, inner, inner], before[:, inner, inner])
        if not label[4:].any():
            assert torch.equal(image, before)


def test_probability_zero_changes_nothing_and_one_everything() -> None:
    images, labels = moved(500, 0.0)
    assert torch.equal(images, distinct(500)) and not labels.any()
    _, labels = moved(500, 1.0)
    assert (labels[:, :2] == 1).all() and (labels[:, 3] > 0).all()


def test_each_transform_is_as_likely_as_was_asked_for_and_independent() -> None:
    labels = moved(4000, 0.3)[1]
    turned, shifted = labels[:, 3] > 0, labels[:, 4:].any(1)
    # Of the shifts of whole pixels in -2..2, one in 25 is none.
    for done, expected in ((labels[:, 0], 0.3), (labels[:, 1], 0.3), (turned, 0.3), (shifted, 0.3 * 24 / 25)):
        assert done.float().mean().item() == pytest.approx(expected, abs=0.03)
    together = torch.stack([labels[:, 0], labels[:, 1], turned.float(), shifted.float()])
    assert (torch.corrcoef(together) - torch.eye(4)).abs().max() < 0.06
    turns = labels[turned][:, 2:4].unique(dim=0, return_counts=True)
    assert turns[0].tolist() == [[-1, 1], [0, 2], [1, 1]] and (turns[1] > 330).all()
    assert labels[:, 4:].unique().tolist() == [-1, -0.5, 0, 0.5, 1]


def test_augmentation_depends_on_seed_and_step_alone_and_leaves_the_noise(tiny: TrainConfig) -> None:
    config = replace(tiny, network=replace(tiny.network, augment_dim=NUM_LABELS))
    data = datasets.load("digits")
    plain, first, again = (batches.draw(4, replace(config, augment=p), data) for p in (0.0, 0.5, 0.5))
    assert torch.equal(first.x0, again.x0) and not torch.equal(first.x0, plain.x0)
    assert torch.equal(first.sigma, plain.sigma) and torch.equal(first.noise, plain.noise)
    assert not plain.conditions["augment_labels"].any() and first.conditions["augment_labels"].any()
    for other in (
        batches.draw(5, replace(config, augment=0.5), data),
        batches.draw(4, replace(config, augment=0.5, seed=8), data),
    ):
        assert not torch.equal(other.conditions["augment_labels"], first.conditions["augment_labels"])


def test_images_that_are_not_square_are_refused() -> None:
    with pytest.raises(ValueError, match="square.*augment"):
        augment(torch.zeros(1, 1, 3, 4), 0.5, torch.Generator())
