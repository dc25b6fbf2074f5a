"""Schedulers: a solver and a spacing on a noise schedule, picked by one name."""

from sdcore.schedulers.noise_schedule import NoiseSchedule
from sdcore.schedulers.scheduler import Scheduler, resolve
from sdcore.schedulers.spacing import SPACINGS, TOOLS, Grid, Plan, Spacing, Tool
from sdcore.schedulers.table import TABLE
from sdcore.schedulers.table_entry import Entry
from sdcore.schedulers.user_solver import load_solver

__all__ = ["SPACINGS", "TABLE", "TOOLS", "Entry", "Grid", "NoiseSchedule", "Plan",
           "Scheduler", "Spacing", "Tool", "load_solver", "resolve"]  # fmt: skip
