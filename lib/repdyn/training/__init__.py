"""Training of any denoiser: what determines it, what a step sees, the loop."""

from repdyn.training.batches import Batch
from repdyn.training.config import CIFAR_UNET, FASHION_UNET, TrainConfig, config_from_dict, make_denoiser
from repdyn.training.loop import Objective, Step, train
from repdyn.training.terms import (
    EDM,
    VP,
    DDPMSteps,
    EDMWeight,
    Epsilon,
    EpsilonWeight,
    Listed,
    LogNormal,
    NoWeight,
    OwnWeight,
    Plain,
    VPTime,
)

__all__ = [
    "CIFAR_UNET",
    "EDM",
    "FASHION_UNET",
    "VP",
    "Batch",
    "DDPMSteps",
    "EDMWeight",
    "Epsilon",
    "EpsilonWeight",
    "Listed",
    "LogNormal",
    "NoWeight",
    "Objective",
    "OwnWeight",
    "Plain",
    "Step",
    "TrainConfig",
    "VPTime",
    "config_from_dict",
    "make_denoiser",
    "train",
]
