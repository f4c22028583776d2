"""The same network under other objectives: what is hidden, what is scored, and the training loop around it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from repdyn import datasets, features, training
from repdyn.chapters.ensembles import references
from repdyn.chapters.ensembles.objectives import (
    ClassifyingEncoder,
    Unconditioned,
    classification,
    masked_reconstruction,
    random_mask,
)
from repdyn.denoisers import EDMDenoiser
from repdyn.images import to_unit_range
from repdyn.training import Batch, TrainConfig, batches


def batch(num: int = 64, side: int = 8, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    x0, noise = torch.randn(2, num, 1, side, side, generator=generator)
    return Batch(x0, torch.ones(num), noise, {}, torch.arange(num) % 10)


def last(config: TrainConfig, **options: object) -> training.Step:
    *_, step = training.train(config, cpu=True, **options)
    return step


# ------------------------------------------------------------------------------------------------------------ masking


@pytest.mark.parametrize(("patch", "share", "count"), [(2, 0.75, 12), (4, 0.5, 2), (4, 0.7, 3), (1, 0.01, 1)])
def test_the_stated_number_of_whole_patches_is_hidden(patch: int, share: float, count: int) -> None:
    hidden = random_mask(torch.randn(9, 3, 8, 8, generator=torch.Generator().manual_seed(1)), patch, share)
    assert hidden.shape == (9, 1, 8, 8) and set(hidden.unique().tolist()) == {0.0, 1.0}
    patches = hidden.unfold(2, patch, patch).unfold(3, patch, patch).flatten(4)  # (9, 1, h, w, patch^2)
    assert (patches == patches[..., :1]).all() and (patches[..., 0].flatten(1).sum(1) == count).all()


def test_every_patch_is_hidden_equally_often() -> None:
    hidden = random_mask(torch.randn(4000, 1, 8, 8, generator=torch.Generator().manual_seed(2)), 2, 0.75)
    assert (hidden.mean(0) - 0.75).abs().max() < 4 * (0.75 * 0.25 / 4000) ** 0.5


@pytest.mark.parametrize(("patch", "share", "named"), [(3, 0.5, "patch"), (4, 0.05, "share"), (4, 1.0, "share")])
def test_masks_that_cannot_be(patch: int, share: float, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        random_mask(torch.zeros(1, 1, 8, 8), patch, share)


def test_hidden_pixels_are_not_seen_and_only_they_are_scored() -> None:
    one, seen = batch(), []

    def model(x: Tensor, sigma: Tensor) -> Tensor:
        seen.append(x)
        return torch.zeros_like(x)

    loss = masked_reconstruction(2, 0.75)(model, one)
    hidden = random_mask(one.noise, 2, 0.75).bool()
    assert (seen[0][hidden] == 0).all() and torch.equal(seen[0][~hidden], one.x0[~hidden])
    expected = torch.stack([x[h].square().mean() for x, h in zip(one.x0, hidden, strict=True)])
    torch.testing.assert_close(loss, expected)
    visible = one._replace(x0=torch.where(hidden, one.x0, 100.0))
    torch.testing.assert_close(masked_reconstruction(2, 0.75)(model, visible), expected)


# ----------------------------------------------------------------------------------------------------------- networks


def test_a_network_that_is_told_no_level(denoiser: EDMDenoiser) -> None:
    network, x = Unconditioned(denoiser.model).eval(), batch(4).x0
    low, high = (features.extract(network, x, sigma) for sigma in (0.01, 5.0))
    assert list(low) == features.layers(denoiser)
    assert all(torch.equal(low[name], high[name]) for name in low)
    # EDM's input scaling and noise label go to 1 / sigma_data and to ln(sigma) / 4, here 0, at which sigma is 1.
    expected = denoiser.model(2 * x, torch.zeros(4)).detach()
    torch.testing.assert_close(low[features.POSTERIOR], expected.flatten(1))


def test_the_classifier_is_the_encoder_and_nothing_of_the_decoder(denoiser: EDMDenoiser) -> None:
    x = batch(4).x0
    names = [name for name in features.layers(denoiser) if name.startswith("enc")]
    whole = features.extract(Unconditioned(denoiser.model).eval(), x, 1.0, names)
    classifier = ClassifyingEncoder(denoiser.model, 10).eval()
    assert features.layers(classifier) == [*names, features.POSTERIOR] and "dec" not in str(classifier.state_dict())
    assert classifier(x).shape == (4, 10) and (classifier(x) == 0).all()
    nn.init.eye_(classifier.head.weight)
    torch.testing.assert_close(classifier(x).detach(), whole[names[-1]][:, :10])
    with pytest.raises(ValueError, match="^num_classes"):
        ClassifyingEncoder(denoiser.model, 1)


def test_classification_is_the_cross_entropy() -> None:
    logits = torch.randn(64, 10, generator=torch.Generator().manual_seed(3))
    loss = classification(lambda x, sigma: logits.bfloat16(), batch())
    expected = -logits.bfloat16().float().log_softmax(1)[torch.arange(64), batch().labels]
    torch.testing.assert_close(loss, expected)


# ----------------------------------------------------------------------------------------------------------- training


def test_an_objective_of_ones_own_is_what_is_minimised(tiny: TrainConfig) -> None:
    config = replace(tiny, images=6400, weighting=training.NoWeight(), learning_rate=1e-2)
    digits = datasets.load("digits")
    start = ClassifyingEncoder(training.make_denoiser(tiny).model, 10)
    trained = last(config, denoiser=start, objective=classification).denoiser.eval()
    right = trained(to_unit_range(digits.images)).argmax(1) == digits.labels
    assert right.float().mean() > 0.5, "ten classes: chance is 0.1"


def test_labels_travel_with_their_images(tiny: TrainConfig) -> None:
    digits = datasets.load("digits")
    one = batches.draw(3, tiny, digits)
    where = [int((digits.images == image).flatten(1).all(1).nonzero()[0]) for image in ((one.x0 + 1) * 127.5).round()]
    assert torch.equal(digits.labels[where], one.labels)
    for index in range(3):
        assert torch.equal(batches.share(one, index, 3, torch.device("cpu")).labels, one.labels[index::3])


def test_a_data_set_of_ones_own_keeps_its_labels(tiny: TrainConfig) -> None:
    digits = datasets.load("digits")
    wrong = digits._replace(labels=(digits.labels + 1) % 10)
    seen = []

    def spy(model: nn.Module, one: Batch) -> Tensor:
        seen.append(one.labels)
        return classification(model, one)

    network = ClassifyingEncoder(training.make_denoiser(tiny).model, 10)
    last(replace(tiny, images=32, weighting=training.NoWeight()), denoiser=network, data=wrong, objective=spy)
    assert torch.equal(seen[-1], (batches.draw(1, tiny, digits).labels + 1) % 10)


def test_an_objective_goes_without_a_weighting(tiny: TrainConfig) -> None:
    with pytest.raises(ValueError, match="weighting"):
        last(tiny, objective=classification)


@pytest.mark.parametrize("kind", ["diffusion", "masked", "supervised"])
def test_references_go_on_from_their_state(kind: str, tiny: TrainConfig, tmp_path: Path) -> None:
    """Trained in one go, from a file of a finished training, and with the averaged, not the last, weights."""
    once = references.trained(tiny, kind).state_dict()
    references.trained(tiny, kind, tmp_path / "state")
    again = references.trained(tiny, kind, tmp_path / "state")
    assert not again.training and not any(p.requires_grad for p in again.parameters())
    assert all(torch.equal(once[name].cpu(), value.cpu()) for name, value in again.state_dict().items())
    start = training.make_denoiser(tiny).state_dict()
    moved = [not torch.equal(start[n].cpu(), v.cpu()) for n, v in again.state_dict().items() if n in start]
    assert sum(moved) > len(moved) / 2


def test_references_start_alike_and_others_are_refused(tiny: TrainConfig) -> None:
    start = training.make_denoiser(tiny).state_dict()
    untrained = references.trained(tiny, "untrained").state_dict()
    assert all(torch.equal(start[name], value.cpu()) for name, value in untrained.items())
    with pytest.raises(ValueError, match="^kind .*'contrastive'"):
        references.trained(tiny, "contrastive")
