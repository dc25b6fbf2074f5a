"""The laboratory: worlds with known answers, the order of a solver, and the laws it must keep."""

from sdcore.lab.check import Finding, Report, check
from sdcore.lab.order import Convergence, Moments, Window, measure, moments
from sdcore.lab.worlds import Gaussian, Mixture, Network, World, denoiser, point

__all__ = [
    "Convergence",
    "Finding",
    "Gaussian",
    "Mixture",
    "Moments",
    "Network",
    "Report",
    "Window",
    "World",
    "check",
    "denoiser",
    "measure",
    "moments",
    "point",
]
