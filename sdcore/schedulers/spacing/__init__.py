"""How a loop's sigmas are chosen. For one plain run read plan.py and linspace in timesteps.py."""

from sdcore.schedulers.spacing.explicit import explicit
from sdcore.schedulers.spacing.flow import shifted
from sdcore.schedulers.spacing.plan import Grid, Plan, Rule, Spacing, without_penultimate
from sdcore.schedulers.spacing.sigmas import along, at_sigmas
from sdcore.schedulers.spacing.timesteps import at_timesteps
from sdcore.schedulers.spacing.tools import TOOLS, Tool
from sdcore.schedulers.spacing.user_spacing import installed_spacing, load_spacing, user_spacing
from sdcore.schedulers.spacing.variants import SPACINGS, variants

__all__ = ["SPACINGS", "TOOLS", "Grid", "Plan", "Rule", "Spacing", "Tool", "along", "at_sigmas",
           "at_timesteps", "explicit", "installed_spacing", "load_spacing", "shifted",
           "user_spacing", "variants", "without_penultimate"]  # fmt: skip
