"""Drawing items of every class in equal numbers, from a seed."""

from __future__ import annotations

import torch
from torch import Tensor


def stratified_split(labels: Tensor, num: int, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of ``num`` items with classes in equal numbers (to one), and of all the others; both in random order.

    ``labels`` (N,) integers. Raises ``ValueError`` when a class has too few items.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    rank_in_class = torch.empty(len(labels), dtype=torch.long)
    classes = labels.unique()
    for label in classes:
        members = order[labels[order] == label]
        rank_in_class[members] = torch.arange(len(members))
    share, extra = divmod(num, len(classes))
    quota = share + (torch.searchsorted(classes, labels) < extra).long()
    chosen = rank_in_class < quota
    if int(chosen.sum()) != num:
        raise ValueError(f"num={num} asks for more items of some class than there are")
    return order[chosen[order]], order[~chosen[order]]
