"""Probes with scikit-learn's interface: linear, two-layer, voting; and many of them at many noise levels."""

from repdyn.probes.levels import Curves, probe_curves
from repdyn.probes.linear import LinearProbe, fit_many, fit_path
from repdyn.probes.mlp import MLPProbe
from repdyn.probes.voting import SoftVoting, vote

__all__ = ["Curves", "LinearProbe", "MLPProbe", "SoftVoting", "fit_many", "fit_path", "probe_curves", "vote"]
