"""What the exact curves are of unless told otherwise: a clean input, by quadrature."""

from __future__ import annotations

from repdyn.theory import csnr

MODEL = {"d": 3, "K": 3, "delta": 0.3}


def test_the_input_is_clean_unless_it_is_said_to_be_noisy() -> None:
    """Guards the defaults of every exact quantity: the chapters name them only where they differ."""
    for function, model in (
        (lambda **more: csnr.exact(0.7, **more), MODEL),
        (lambda **more: csnr.exact_energies(0.7, **more), MODEL | {"n": 12}),
        (csnr.peak, MODEL),
    ):
        assert function(**model) == function(**model, noisy_input=False) != function(**model, noisy_input=True)
    assert csnr.peak(**MODEL) == csnr.peak(**MODEL, method="exact")
