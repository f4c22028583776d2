"""Subspaces at the edges of what is allowed, and when the search for them stands still."""

from __future__ import annotations

import pytest
import torch

from repdyn.theory.molrg import NoisyMoLRG
from repdyn.theory.subspaces import alternate, overlapping, random_bases


@pytest.mark.parametrize(("K", "n", "d"), [(1, 3, 1), (2, 3, 3), (1, 1, 1)])
def test_lines_and_whole_spaces_are_subspaces(K: int, n: int, d: int) -> None:
    """Guards the smallest and the largest dimension."""
    bases = random_bases(K, n, d, 0)
    torch.testing.assert_close(bases.mT @ bases, torch.eye(d, dtype=torch.float64).expand(K, d, d))


def test_without_overlap_no_common_subspace_takes_room() -> None:
    """Guards the case of orthogonal subspaces that fill the space."""
    model, plain = overlapping(6, 2, 3, 0.1, 0.0, 4), NoisyMoLRG.random(6, 2, 3, 0.1, 4)
    assert all(torch.equal(a, b) for a, b in zip(model.bases, plain.bases, strict=True))
    filled = torch.stack(overlapping(6, 2, 2, 0.1, 0.3, 4).bases)  # (K + 1) d = n: just room enough
    torch.testing.assert_close(filled[0].mT @ filled[1], 0.3 * torch.eye(2, dtype=torch.float64))
    with pytest.raises(ValueError, match="n must"):
        overlapping(6, 2, 3, 0.1, 0.3, 4)


def test_em_stops_when_responsibilities_move_by_less_than_a_ten_thousandth() -> None:
    """Guards when the search ends, from both sides, and its limit."""
    model = NoisyMoLRG.random(n=8, d=1, K=2, delta=0.5, seed=0)
    x, start = model.sample(300, seed=1)[0], random_bases(2, 8, 1, seed=3)
    fit = alternate(x, start, delta=0.5)
    rounds = [alternate(x, start, delta=0.5, max_rounds=fit.rounds - back).responsibilities for back in (0, 1, 2)]
    moves = [(late - early).abs().max().item() for late, early in zip(rounds, rounds[1:])]
    assert 5 < fit.rounds < 200 and moves[0] < 1e-4 <= moves[1]
    assert alternate(x, start, delta=0.5, max_rounds=3).rounds == 3
    assert torch.equal(alternate(x, start, delta=0.5, max_rounds=200).bases, fit.bases)
