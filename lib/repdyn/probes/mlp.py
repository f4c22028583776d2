"""A two-layer probe with scikit-learn's interface, for posteriors, whose classes no plane separates."""

from __future__ import annotations

import copy

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import train_test_split
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn
from torch.nn import functional as F

from repdyn._torch import seeded

__all__ = ["MLPProbe"]


class MLPProbe(ClassifierMixin, BaseEstimator):
    """Batch normalisation, a linear layer, ReLU, a linear layer; trained by Adam until held-out data says stop.

    ``hidden`` is the width; ``learning_rate`` and ``weight_decay`` are Adam's (AdamW's); training stops after
    ``max_epochs``, or when the cross-entropy on ``validation_share`` of the training data, stratified by class, has
    not fallen for ``patience`` epochs, and keeps the weights that were best on it. Everything random depends on
    ``seed``: initial weights, the held-out part, the order of the batches. Training runs on ``device``.

    After ``fit``, ``module_`` is the network, on the CPU, and ``validation_losses_`` has one number an epoch.

    Source: the posterior probe of Li et al., arXiv 2502.05743.
    """

    def __init__(
        self,
        hidden: int = 512,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        batch_size: int = 128,
        max_epochs: int = 100,
        patience: int = 5,
        validation_share: float = 0.1,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self.hidden = hidden
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.patience = patience
        self.validation_share = validation_share
        self.seed = seed
        self.device = device

    def fit(self, X: Tensor | np.ndarray, y: Tensor | np.ndarray) -> MLPProbe:
        """Fit on features ``X`` (N, D) and labels ``y`` (N,).

        Raises ``ValueError`` for shapes that do not fit, features that are not finite, parameters out of range, fewer
        than two classes, or too few items of a class to hold some out.
        """
        x, y = self._checked(X, y)
        self.classes_, of_item = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError("y holds fewer than two classes")
        self.n_features_in_ = x.shape[1]
        train, held_out = train_test_split(
            np.arange(len(x)), test_size=self.validation_share, stratify=of_item, random_state=self.seed
        )
        x, targets = x.to(self.device), torch.as_tensor(of_item, device=self.device)
        with seeded(self.seed):
            module = self._network(x[train]).to(self.device)
        self._train(module, x[train], targets[train], x[held_out], targets[held_out])
        return self

    def decision_function(self, X: Tensor | np.ndarray) -> np.ndarray:
        """Logits (N, classes)."""
        check_is_fitted(self)
        x = torch.as_tensor(X, dtype=torch.float32)
        if x.ndim != 2 or x.shape[1] != self.n_features_in_:
            raise ValueError(f"X must be (N, {self.n_features_in_}), got {tuple(x.shape)}")
        with torch.no_grad():
            return torch.cat([self.module_(part) for part in x.cpu().split(8192)]).numpy()

    def predict_proba(self, X: Tensor | np.ndarray) -> np.ndarray:
        """Class probabilities (N, classes)."""
        return torch.from_numpy(self.decision_function(X)).softmax(1).numpy()

    def predict(self, X: Tensor | np.ndarray) -> np.ndarray:
        """Labels (N,)."""
        logits = self.decision_function(X)
        return self.classes_[logits.argmax(1)]

    def _checked(self, X: Tensor | np.ndarray, y: Tensor | np.ndarray) -> tuple[Tensor, np.ndarray]:
        for name in ("hidden", "learning_rate", "batch_size", "max_epochs", "patience"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay must not be negative, got {self.weight_decay}")
        if not 0 < self.validation_share < 1:
            raise ValueError(f"validation_share must be between 0 and 1, got {self.validation_share}")
        x, y = torch.as_tensor(X, dtype=torch.float32), torch.as_tensor(y).cpu().numpy()
        if x.ndim != 2 or y.shape != (len(x),):
            raise ValueError(f"X must be (N, D) and y (N,), got {tuple(x.shape)} and {y.shape}")
        if not torch.isfinite(x).all():
            raise ValueError("X holds NaN or infinity")
        return x, y

    def _network(self, x: Tensor) -> nn.Sequential:
        variance, mean = torch.var_mean(x, 0, correction=0)
        eps = 1e-5 * variance.mean().clamp_min(1e-30).item()  # relative: the units of the features do not matter
        norm = nn.BatchNorm1d(x.shape[1], eps=eps, momentum=0.0)  # evaluation uses the statistics of all of x
        norm.running_mean, norm.running_var = mean, variance
        return nn.Sequential(
            norm,
            nn.Linear(x.shape[1], self.hidden),
            nn.ReLU(),
            nn.Linear(self.hidden, len(self.classes_)),
        )

    def _train(self, module: nn.Module, x: Tensor, targets: Tensor, x_held: Tensor, targets_held: Tensor) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        optimizer = torch.optim.AdamW(module.parameters(), self.learning_rate, weight_decay=self.weight_decay)
        num_batches = max(1, len(x) // self.batch_size)  # of equal size: no last one too small to normalise
        self.validation_losses_: list[float] = []
        best = module
        for _ in range(self.max_epochs):
            module.train()
            for batch in torch.randperm(len(x), generator=generator).to(x.device).tensor_split(num_batches):
                optimizer.zero_grad()
                F.cross_entropy(module(x[batch]), targets[batch]).backward()
                optimizer.step()
            module.eval()
            with torch.no_grad():
                loss = F.cross_entropy(module(x_held), targets_held).item()
            if not np.isfinite(loss):
                raise FloatingPointError(f"the loss is {loss}: lower learning_rate, or scale the features")
            if not loss >= min(self.validation_losses_, default=np.inf):
                best = copy.deepcopy(module)
            self.validation_losses_.append(loss)
            if len(self.validation_losses_) - np.argmin(self.validation_losses_) > self.patience:
                break
        self.module_ = best.cpu()
