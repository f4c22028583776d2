"""Training of any denoiser: what determines it, what a step sees, the loop."""

from repdyn.training.batches import Batch
from repdyn.training.config import CIFAR_UNET, FASHION_UNET, TrainConfig, config_from_dict, make_denoiser
from repdyn.training.loop import Objective, Step, train

__all__ = [
    "CIFAR_UNET",
    "FASHION_UNET",
    "Batch",
    "Objective",
    "Step",
    "TrainConfig",
    "config_from_dict",
    "make_denoiser",
    "train",
]
