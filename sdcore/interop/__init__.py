"""Both ways with the tools that people have: our solvers in theirs, theirs in our loop.

None of those tools is imported before one of these functions is called.
"""

from sdcore.interop.diffusers import as_diffusers
from sdcore.interop.diffusers_solver import brought, from_diffusers, is_foreign

__all__ = ["as_diffusers", "brought", "from_diffusers", "is_foreign"]
