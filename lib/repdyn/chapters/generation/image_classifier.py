"""A small convolutional classifier of images with scikit-learn's interface, whose features judge generated images."""

from __future__ import annotations

import json
import os
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.nn import functional as F

from repdyn._files import read_state, write_tensors
from repdyn._torch import seeded
from repdyn.images import to_unit_range
from repdyn.training.augment import mirror

__all__ = ["ImageClassifier"]

_SHIPPED = files("repdyn") / "assets/classifiers"


class ImageClassifier(ClassifierMixin, BaseEstimator):
    """Five 3x3 convolutions with batch normalisation, two of them of stride 2, a mean over positions, a linear layer.

    ``width`` is the number of channels of the first convolution; the ``4 * width`` means over positions are the
    features. Trained by AdamW under a learning rate that rises to ``learning_rate`` and falls to zero over ``epochs``;
    with ``flip`` every other image is mirrored, with ``shift`` each is moved by up to so many pixels, edges repeated.
    Everything random depends on ``seed``. Training runs on ``device``.

    After ``fit``, ``module_`` is the network, on the CPU, ``classes_`` the labels, ``image_shape_`` (C, H, W).
    """

    def __init__(
        self,
        width: int = 16,
        epochs: int = 8,
        batch_size: int = 128,
        learning_rate: float = 4e-3,
        weight_decay: float = 0.02,
        flip: bool = False,
        shift: int = 0,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self.width = width
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.flip = flip
        self.shift = shift
        self.seed = seed
        self.device = device

    def fit(self, X: Tensor | np.ndarray, y: Tensor | np.ndarray) -> ImageClassifier:
        """Fit on images ``X``, uint8 (N, C, H, W), or float in [-1, 1], and labels ``y`` (N,).

        Raises ``ValueError`` for other shapes and types, values that are not finite, fewer than two classes, fewer
        images than a batch, or a parameter out of range.
        """
        for name in ("width", "epochs", "batch_size", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.shift < 0:
            raise ValueError(f"shift must not be negative, got {self.shift}")
        images, y = self._images(X), torch.as_tensor(y).cpu().numpy()
        if y.shape != (len(images),):
            raise ValueError(f"y must hold one label per image, {len(images)}, got shape {y.shape}")
        self.classes_, targets = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError("y holds fewer than two classes")
        if len(images) < self.batch_size:
            raise ValueError(f"batch_size must be at most the number of images, {len(images)}, got {self.batch_size}")
        if self.epochs * (len(images) // self.batch_size) < 2:
            raise ValueError("one step trains nothing: more epochs, or a smaller batch_size")
        self.image_shape_ = tuple(images.shape[1:])
        with seeded(self.seed):
            module = _network(images.shape[1], self.width, len(self.classes_)).to(self.device)
        self._train(module, images, torch.as_tensor(targets))
        self.module_ = module.eval().cpu().requires_grad_(False)
        return self

    def transform(self, X: Tensor | np.ndarray) -> Tensor:
        """Features (N, 4 * width), float32: the last convolution's channels, after ReLU, averaged over positions."""
        check_is_fitted(self, "module_")
        return self._read(X, self.module_[:-1])

    def decision_function(self, X: Tensor | np.ndarray) -> np.ndarray:
        """Logits (N, classes)."""
        check_is_fitted(self, "module_")
        return self._read(X, self.module_).numpy()

    def predict(self, X: Tensor | np.ndarray) -> np.ndarray:
        """Labels (N,)."""
        return self.classes_[self.decision_function(X).argmax(1)]

    def save(self, path: str | os.PathLike) -> None:
        """Write the fitted classifier to ``path``: weights in half precision, parameters in the metadata."""
        check_is_fitted(self, "module_")
        about = {"params": self.get_params(), "classes": self.classes_.tolist(), "image_shape": self.image_shape_}
        tensors = {name: v.half() if v.is_floating_point() else v for name, v in self.module_.state_dict().items()}
        write_tensors(Path(path), tensors, {"classifier": json.dumps(about)})

    @classmethod
    def load(cls, name_or_path: str | os.PathLike) -> ImageClassifier:
        """Load a classifier written by :meth:`save`, or one that ships with the package, by its name.

        Raises ``ValueError`` for an unknown name and for a file that holds no classifier.
        """
        if Path(name_or_path).is_file():
            return cls._from_file(Path(name_or_path))
        shipped = sorted(i.name.removesuffix(".safetensors") for i in _SHIPPED.iterdir() if "safetensors" in i.name)
        if name_or_path not in shipped:
            raise ValueError(f"{name_or_path!r} is neither a file nor shipped: shipped are {', '.join(shipped)}")
        with as_file(_SHIPPED / f"{name_or_path}.safetensors") as path:
            return cls._from_file(path)

    @classmethod
    def _from_file(cls, path: Path) -> ImageClassifier:
        tensors, metadata = read_state(path)
        if "classifier" not in metadata:
            raise ValueError(f"{path} holds no classifier: it was not written by ImageClassifier.save")
        about = json.loads(metadata["classifier"])
        classifier = cls(**about["params"])
        classifier.classes_, classifier.image_shape_ = np.array(about["classes"]), tuple(about["image_shape"])
        module = _network(classifier.image_shape_[0], classifier.width, len(classifier.classes_))
        module.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})
        classifier.module_ = module.eval().requires_grad_(False)
        return classifier

    def _train(self, module: nn.Module, images: Tensor, targets: Tensor) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        optimizer = torch.optim.AdamW(module.parameters(), weight_decay=self.weight_decay)
        steps = self.epochs * (len(images) // self.batch_size)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, total_steps=steps)
        for _ in range(self.epochs):
            order = torch.randperm(len(images), generator=generator)
            for batch in order[: len(order) // self.batch_size * self.batch_size].split(self.batch_size):
                x = self._augmented(images[batch], generator).to(self.device)
                loss = F.cross_entropy(module(x), targets[batch].to(self.device), label_smoothing=0.05)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()

    def _augmented(self, images: Tensor, generator: torch.Generator) -> Tensor:
        if self.flip:
            images = mirror(images, generator)
        if self.shift:
            height, width = images.shape[-2:]
            padded = F.pad(images, (self.shift,) * 4, mode="replicate")
            rows, columns = torch.randint(2 * self.shift + 1, (2, len(images)), generator=generator)
            rows, columns = rows[:, None] + torch.arange(height), columns[:, None] + torch.arange(width)
            every = torch.arange(len(images))[:, None, None]
            images = padded[every, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        return images

    @torch.no_grad()
    def _read(self, X: Tensor | np.ndarray, module: nn.Module) -> Tensor:
        images = self._images(X)
        if tuple(images.shape[1:]) != self.image_shape_:
            raise ValueError(f"X must hold images of shape {self.image_shape_}, got {tuple(images.shape[1:])}")
        return torch.cat([module(batch.cpu()) for batch in images.split(256)])

    @staticmethod
    def _images(X: Tensor | np.ndarray) -> Tensor:
        x = torch.as_tensor(X)
        if x.ndim != 4 or not len(x) or not (x.dtype == torch.uint8 or x.is_floating_point()):
            raise ValueError(f"X must be uint8 or float (N, C, H, W) with N > 0, got {x.dtype} of {tuple(x.shape)}")
        if not torch.isfinite(x).all():
            raise ValueError("X holds NaN or infinity")
        return to_unit_range(x) if x.dtype == torch.uint8 else x.float()


def _network(channels: int, width: int, num_classes: int) -> nn.Sequential:
    """The last module is the linear layer; what comes before it gives the features."""
    layers: list[nn.Module] = []
    for inside, outside, stride in (
        (channels, width, 1),
        (width, 2 * width, 2),
        (2 * width, 2 * width, 1),
        (2 * width, 4 * width, 2),
        (4 * width, 4 * width, 1),
    ):
        convolution = nn.Conv2d(inside, outside, 3, stride, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(outside), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, num_classes))
