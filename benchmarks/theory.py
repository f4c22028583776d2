"""How much the closed forms save: ``python benchmarks/theory.py``, one thread, seeded.

The posterior mean against a dense Gaussian mixture with n x n covariances, and the exact CSNR against Monte Carlo.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import torch

from repdyn.theory import csnr
from repdyn.theory.molrg import NoisyMoLRG

SIGMA, DELTA, D, K, NUM = 0.7, 0.2, 5, 3, 64
SIZES = (64, 128, 256, 512, 1024, 2048)
ACCURACY = 1e-3


def rows() -> list[dict]:
    """Name, seconds of ours and of the other, ours / other, its target (at most, or None) and a note; in one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [*posterior_mean_rows(), *exact_rows()]
    finally:
        torch.set_num_threads(threads)


def posterior_mean_rows() -> list[dict]:
    """The posterior mean of NUM samples for growing n, and the exponent with which our time grows."""
    result, times = [], []
    for n in SIZES:
        model = NoisyMoLRG.random(n, D, K, DELTA, seed=0)
        x = model.sample(NUM, seed=1)[0]
        x = x + SIGMA * torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(2))
        error = float((model(x, SIGMA) - dense_posterior_mean(model, x, SIGMA)).abs().max())
        ours = seconds(lambda model=model, x=x: model(x, SIGMA))
        other = seconds(lambda model=model, x=x: dense_posterior_mean(model, x, SIGMA), least=0.1)
        note = f"dense mixture {other / ours:.0f}x; {NUM} samples, K = {K}, d = {D}; largest difference {error:.0e}"
        result.append(row(f"posterior mean, n = {n}", ours, other, 1 / 50 if n == 512 else None, note))
        times.append(ours)
    exponent = np.polyfit(np.log(SIZES[3:]), np.log(times[3:]), 1)[0]
    linear = times[3] * SIZES[-1] / SIZES[3]
    note = f"other: linear growth from n = {SIZES[3]} to {SIZES[-1]}; ours grows as n^{exponent:.2f} there"
    result.append(row("posterior mean, growth in n", times[-1], linear, 1.5, note))
    return result


def dense_posterior_mean(model: NoisyMoLRG, x: torch.Tensor, sigma: float) -> torch.Tensor:
    """sum_l w_l C_l (C_l + sigma^2 I)^-1 x with Cholesky factors of the n x n covariances."""
    eye = torch.eye(model.n, dtype=torch.float64)
    logits, means = [], []
    for basis, weight in zip(model.bases, model.weights):
        covariance = model.delta**2 * eye + (1.0 - model.delta**2) * basis @ basis.mT
        factor = torch.linalg.cholesky(covariance + sigma**2 * eye)
        solved = torch.cholesky_solve(x.mT, factor)  # (n, num)
        logits.append(weight.log() - 0.5 * (x.mT * solved).sum(0) - factor.diagonal().log().sum())
        means.append((covariance @ solved).mT)
    weights = torch.softmax(torch.stack(logits, dim=1), dim=1)  # (num, K)
    return torch.einsum("bk,kbn->bn", weights, torch.stack(means))


def exact_rows() -> list[dict]:
    """The exact CSNR: against Monte Carlo with the same optimal denoiser, for another n, for other K."""
    ours = seconds(lambda: csnr.exact(SIGMA, d=D, K=K, delta=DELTA))
    result = []
    for n in (50, 500):
        cost, spread, draws = monte_carlo(n)
        needed = (spread / ACCURACY) ** 2
        other = needed * cost
        note = (
            f"Monte Carlo {other / ours:.0f}x, to a standard error of {ACCURACY:g}: EXTRAPOLATED to {needed:.1e} draws "
            f"from the variance and the rate of {draws:.0e}; ours has no n in it"
        )
        result.append(row(f"exact CSNR, n = {n}", ours, other, 1 / 1000, note))
    for classes in (30, 1000):
        more = seconds(lambda classes=classes: csnr.exact(SIGMA, d=D, K=classes, delta=DELTA))
        result.append(row(f"exact CSNR, K = {classes}", more, ours, 3.0, f"both exact; other: K = {K}"))
    return result


def monte_carlo(n: int, num: int = 4000, batches: int = 25) -> tuple[float, float, float]:
    """Seconds a draw, relative standard deviation of one draw of the CSNR, and the number of draws."""
    model = NoisyMoLRG.random(n, D, K, DELTA, seed=0)
    signals, noises, spent = [], [], 0.0
    for batch in range(batches):
        start = time.perf_counter()
        x, labels = model.sample(num, seed=batch)
        x_hat = model(x, SIGMA)
        energies = torch.stack([(x_hat @ basis).square().sum(1) for basis in model.bases], dim=1)
        own = energies.gather(1, labels[:, None])[:, 0]
        spent += time.perf_counter() - start
        signals.append(own)
        noises.append(energies.sum(1) - own)
    signal, noise = torch.cat(signals), torch.cat(noises)
    influence = signal / signal.mean() - noise / noise.mean()  # of one draw on the logarithm of the ratio
    return spent / (num * batches), float(influence.std()), float(num * batches)


def seconds(call: Callable[[], object], least: float = 0.2, repeats: int = 5) -> float:
    """Shortest mean time of a call in a few rounds, each of ``least`` seconds in all."""
    start = time.perf_counter()
    call()
    number = max(1, math.ceil(least / repeats / max(time.perf_counter() - start, 1e-7)))
    rounds = []
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(number):
            call()
        rounds.append((time.perf_counter() - start) / number)
    return min(rounds)


def row(name: str, ours: float, other: float, target: float | None, note: str) -> dict:
    return {"name": name, "ours_s": ours, "other_s": other, "ratio": ours / other, "target": target, "note": note}


def main() -> None:
    for entry in rows():
        target = "" if entry["target"] is None else f"<= {entry['target']:g}"
        times = f"{entry['ours_s']:10.2e} {entry['other_s']:10.2e} {entry['ratio']:10.2e}"
        print(f"{entry['name']:<28} {times} {target:<8} {entry['note']}")


if __name__ == "__main__":
    main()
