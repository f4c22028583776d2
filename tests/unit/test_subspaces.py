"""k-subspaces, EM, and mixtures whose subspaces overlap."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles

from repdyn.metrics import class_bases, match_subspaces
from repdyn.theory.molrg import NoisyMoLRG
from repdyn.theory.subspaces import alternate, overlapping, random_bases

MODEL = NoisyMoLRG.random(n=12, d=2, K=3, delta=0.2, seed=0)
X, LABELS = MODEL.sample(900, seed=1)


def objective(x: torch.Tensor, bases: torch.Tensor) -> float:
    """What k-subspaces minimises."""
    projections = torch.einsum("bn,knd->bkd", x, bases).square().sum(2)
    return (x.square().sum(1) - projections.max(1).values).mean().item()


def near(angle: float) -> torch.Tensor:
    noise = random_bases(3, 12, 2, seed=5)
    return torch.linalg.qr(torch.stack(MODEL.bases) + angle * noise).Q


@pytest.mark.parametrize("delta", [None, 0.2])
def test_from_nearby_it_finds_what_labels_would(delta: float | None) -> None:
    fit = alternate(X, near(0.5), delta=delta)
    supervised = class_bases(X, LABELS, 2)
    assert match_subspaces(near(0.5), MODEL.bases).angles.max() > 0.3
    assert match_subspaces(fit.bases, supervised).angles.max() < 0.03
    assert fit.responsibilities.shape == (900, 3) and fit.rounds < 30
    torch.testing.assert_close(fit.responsibilities.sum(1), torch.ones(900, dtype=torch.float64))
    assigned, told = fit.responsibilities.argmax(1), MODEL.class_posterior(X, 0.0).argmax(1)
    accuracy, bayes = ((guess == LABELS).double().mean().item() for guess in (assigned, told))
    assert 0.9 < bayes and accuracy == pytest.approx(bayes, abs=0.01)


def test_no_round_makes_it_worse() -> None:
    """k-subspaces lowers its objective, EM raises the likelihood, from any start."""
    for seed in range(3):
        start = random_bases(3, 12, 2, seed)
        hard = [objective(X, alternate(X, start, max_rounds=r).bases) for r in (1, 2, 4, 8, 50)]
        assert all(a >= b - 1e-12 for a, b in zip([objective(X, start), *hard], hard))
        soft = [alternate(X, start, delta=0.2, max_rounds=r).bases for r in (1, 2, 4, 8, 50)]
        likelihood = [NoisyMoLRG(b, 0.2).log_density(X, 0.0).mean().item() for b in (start, *soft)]
        assert all(a <= b + 1e-9 for a, b in zip(likelihood, likelihood[1:]))


def test_responsibilities_of_em_are_the_class_posterior() -> None:
    start = near(0.5)
    first = alternate(X, start, delta=0.2, max_rounds=1)
    expected = NoisyMoLRG(start, 0.2).class_posterior(X, 0.0)
    torch.testing.assert_close(first.responsibilities, expected, rtol=1e-9, atol=1e-12)
    k = 1
    moment = (X * expected[:, k : k + 1]).mT @ X
    top = np.linalg.eigh(moment.numpy())[1][:, -2:]
    assert subspace_angles(first.bases[k].numpy(), top).max() < 1e-7


@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.9])
def test_all_angles_have_the_given_cosine(overlap: float) -> None:
    model = overlapping(20, 3, 4, delta=0.1, overlap=overlap, seed=2)
    for a in range(4):
        for b in range(a):
            angles = subspace_angles(model.bases[a].numpy(), model.bases[b].numpy())
            np.testing.assert_allclose(np.cos(angles), overlap, atol=1e-9)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: overlapping(10, 3, 3, 0.1, 0.5, 0), "^n .*12"),
        (lambda: overlapping(20, 3, 3, 0.1, 1.0, 0), "^overlap"),
        (lambda: random_bases(2, 3, 4, 0), "^d .*n = 3"),
        (lambda: alternate(X[:, :5], MODEL.bases), "^x .*12"),
        (lambda: alternate(X, 2 * torch.stack(MODEL.bases)), "^bases.*orthonormal"),
        (lambda: alternate(X, [MODEL.bases[0], MODEL.bases[1][:, :1]]), "^bases .*one dimension"),
        (lambda: alternate(X, MODEL.bases, delta=0.0), "^delta"),
        (lambda: alternate(X, MODEL.bases, max_rounds=0), "^max_rounds"),
    ],
)
def test_what_makes_no_sense_is_refused(call: object, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        call()
