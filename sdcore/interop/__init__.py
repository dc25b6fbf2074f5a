"""Both ways with the tools that people have: our solvers in theirs, theirs in our loop.

None of those tools is imported before one of these functions is called.
"""

from sdcore.interop.diffusers import as_diffusers
from sdcore.interop.diffusers_solver import brought, from_diffusers, is_foreign
from sdcore.interop.k_diffusion import as_k_diffusion, from_k_diffusion

__all__ = [
    "as_diffusers",
    "as_k_diffusion",
    "brought",
    "from_diffusers",
    "from_k_diffusion",
    "is_foreign",
]
