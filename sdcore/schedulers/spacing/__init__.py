"""How a loop's sigmas are chosen. For one plain run read plan.py and linspace in timesteps.py."""

from sdcore.schedulers.spacing.plan import TAILS, Grid, Plan, Rule, Spacing, Tail
from sdcore.schedulers.spacing.sigmas import along, at_sigmas
from sdcore.schedulers.spacing.timesteps import at_timesteps
from sdcore.schedulers.spacing.tools import TOOLS, Tool, listed
from sdcore.schedulers.spacing.variants import SPACINGS, variants

__all__ = ["SPACINGS", "TAILS", "TOOLS", "Grid", "Plan", "Rule", "Spacing", "Tail", "Tool", "along",
           "at_sigmas", "at_timesteps", "listed", "variants"]  # fmt: skip
