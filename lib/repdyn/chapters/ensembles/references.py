"""Networks that a diffusion model's features are compared with: the same architecture, data and number of images."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from repdyn import datasets, features, training
from repdyn.chapters.ensembles.ensembling import Labelled, scores
from repdyn.chapters.ensembles.objectives import (
    ClassifyingEncoder,
    Unconditioned,
    classification,
    masked_reconstruction,
)
from repdyn.images import ImageSet
from repdyn.networks import UNet
from repdyn.training import EDM, NoWeight, TrainConfig

__all__ = ["end_to_end", "trained"]

_STOPS = 12  # looks at the end-to-end classifier, evenly over its training


def trained(plan: TrainConfig, kind: str, state_file: str | os.PathLike | None = None) -> nn.Module:
    """The network of ``plan`` after its training as ``kind``: a frozen module whose layers can be read.

    ``diffusion`` is a denoiser; ``masked`` a masked auto-encoder, 75 % of the patches of 4 by 4 pixels hidden;
    ``supervised`` the encoder as a classifier of the data set's true labels; ``untrained`` what the training of the
    diffusion model starts from. All see the same images in the same order, under the same optimiser, and of all the
    averaged weights are returned. With ``state_file`` a training goes on where it was.

    Raises ``ValueError`` for another ``kind``, and where the network is no denoiser for a ``plan`` without EDM's
    preconditioning, which says how images are scaled.
    """
    start = training.make_denoiser(plan)
    if kind == "untrained":
        return start.requires_grad_(False).eval().to(features.default_device())
    network: nn.Module = start
    objective: training.Objective | None = None
    unet = cast(UNet, start.model)
    if kind == "diffusion":
        pass
    elif kind == "masked":
        network, objective = Unconditioned(unet, _sigma_data(plan)), masked_reconstruction()
    elif kind == "supervised":
        classes = len(datasets.load(plan.dataset, "train").classes)
        network, objective = ClassifyingEncoder(unet, classes, _sigma_data(plan)), classification
    else:
        raise ValueError(f"kind must be 'diffusion', 'masked', 'supervised' or 'untrained', got {kind!r}")
    if objective is not None:
        plan = replace(plan, weighting=NoWeight())
    *_, last = training.train(plan, state_file, denoiser=network, objective=objective)
    return last.ema


def _sigma_data(plan: TrainConfig) -> float:
    if not isinstance(plan.preconditioning, EDM):
        raise ValueError(f"plan.preconditioning must be EDM, got {plan.preconditioning}: it says how images are scaled")
    return plan.preconditioning.sigma_data


def end_to_end(plan: TrainConfig, images: Tensor, labels: Labelled) -> dict[str, Any]:
    """The encoder of ``plan`` trained on the labelled images alone, wrong labels and all, for at most as many images.

    ``images`` (N + M, C, H, W) are those of ``labels``, in its order. The network is looked at twelve times, and the
    moment with the highest accuracy on the held-out images is taken. Returns ``images`` seen until then, and the test
    scores ``accuracy``, ``nll``, ``ece``.
    """
    plan = replace(plan, weighting=NoWeight())
    fitted, held = torch.from_numpy(labels.fitted), torch.from_numpy(labels.held)
    data = ImageSet(images[fitted], torch.from_numpy(labels.train)[fitted], (), "")
    network = ClassifyingEncoder(cast(UNet, training.make_denoiser(plan).model), labels.classes, _sigma_data(plan))
    stops = {-(-plan.steps * i // _STOPS) for i in range(1, _STOPS + 1)}
    best, highest = {}, -np.inf
    for step in training.train(plan, denoiser=network, data=data, objective=classification):
        if step.step not in stops:
            continue
        accuracy = scores(_logits(step.ema, images[held]), labels.train[labels.held])["accuracy"]
        if accuracy > highest:
            test = scores(_logits(step.ema, images[len(labels.train) :]), labels.test)
            best, highest = {"images": step.images, **test}, accuracy
    return best


@torch.no_grad()
def _logits(network: nn.Module, images: Tensor) -> np.ndarray:
    device = next(network.parameters()).device
    return torch.cat([network(x.to(device)).cpu() for x in images.split(512)]).double().numpy()
