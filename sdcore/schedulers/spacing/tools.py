"""How ComfyUI, A1111 and k-diffusion lay the grids that they have.

Restated from what these tools do (with numbers in tests/schedulers/test_spacing.py), where they
differ from diffusers: which rules there are, the timestep sent, both ends, the table's precision.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import torch

from sdcore.errors import unknown
from sdcore.schedulers.spacing import sigmas as curves
from sdcore.schedulers.spacing import timesteps as grids
from sdcore.schedulers.spacing.plan import Rule, Spacing, without_penultimate
from sdcore.schedulers.spacing.variants import variants

_RULES = variants()


@dataclass(frozen=True)
class Tool:
    """What sets a tool apart. Its betas are computed in float64."""

    key: str
    label: str
    spacings: Mapping[str, Rule]
    default: str  # the spacing that it runs when none is chosen
    has: frozenset[str]  # the schedulers that it runs by sigma, in our names
    renamed: Mapping[str, str] = field(default_factory=dict)  # a name that means another here
    unit_variance: bool = False  # scales the noise by sqrt(1 + sigma^2) where sigma is the largest
    whole: bool = False  # sends the network whole timesteps only
    automatic: Mapping[str, str] = field(default_factory=dict)  # scheduler: its own default
    discards: frozenset[str] = frozenset()  # schedulers that leave out the last but one sigma
    to_sigma_min: frozenset[str] = frozenset()  # spacings that do not end at 0
    dtype: torch.dtype = torch.float32  # in which sigma is computed
    floor: float = 0.0  # the last alphas_cumprod of a zero terminal SNR table

    def spacing(self, name: str | None, scheduler: str) -> Spacing:
        """The spacing of this name as the tool runs this scheduler. InputError if it has none."""
        name = self.automatic.get(scheduler, self.default) if name is None else name
        if name not in self.spacings:
            raise unknown(f"spacing of {self.label}", name, self.spacings)
        rule = self.spacings[name]
        spacing = Spacing(
            name=f"{self.key}:{name}",
            rule=rule,
            whole=self.whole,
            tail="sigma_min" if name in self.to_sigma_min else "zero",
            # ddim_uniform alone does not start at the table's largest sigma
            start="unit_variance" if self.unit_variance and name != "ddim_uniform" else "sigma",
        )
        return without_penultimate(spacing) if scheduler in self.discards else spacing


def _some(*names: str) -> dict[str, Rule]:
    return {name: _RULES[name] for name in names}


_AYS = {
    "ays": partial(curves.along, curve=curves.align_your_steps(curves.AYS_SD15)),
    "ays_sdxl": partial(curves.along, curve=curves.align_your_steps(curves.AYS_SDXL)),
}
_KARRAS = ("karras", "exponential", "polyexponential")
_DPM2 = ("dpm2", "dpm2_a")
_KDIFFUSION = frozenset(
    (
        *("euler", "euler_a", "heun", *_DPM2, "lms", "dpm_fast", "dpm_adaptive", "dpmpp_2s_a"),
        *("dpmpp_sde", "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_2m_sde_heun", "dpmpp_3m_sde"),
    )
)

TOOLS: Mapping[str, Tool] = {
    tool.key: tool
    for tool in (
        Tool(
            key="kdiffusion",
            label="k-diffusion",
            spacings=_some("normal", *_KARRAS),
            default="normal",
            has=_KDIFFUSION,
        ),
        Tool(
            key="a1111",
            label="A1111",
            spacings={
                **_some("normal", *_KARRAS, "sgm_uniform", "simple", "ddim_uniform", "beta"),
                "kl_optimal": partial(curves.along, curve=curves.without_last(curves.kl_optimal)),
                **_AYS,
                "lcm": grids.distilled_evenly,
            },
            default="normal",
            automatic={
                "lcm": "lcm",
                **dict.fromkeys(("dpmpp_2m", "dpmpp_sde", "dpmpp_2s_a", *_DPM2), "karras"),
                "restart": "karras",
                **dict.fromkeys(("dpmpp_2m_sde", "dpmpp_2m_sde_heun"), "exponential"),
                "dpmpp_3m_sde": "exponential",
            },
            discards=frozenset((*_DPM2, "dpmpp_3m_sde")),
            to_sigma_min=frozenset({"kl_optimal"}),
            has=_KDIFFUSION | {"restart", "lcm"},
        ),
        Tool(
            key="comfyui",
            label="ComfyUI",
            spacings={
                **_some("simple", "sgm_uniform", "karras", "exponential", "ddim_uniform"),
                "beta": grids.beta_timesteps,
                **_some("normal", "kl_optimal", "linear_quadratic", "ays", "ays_sdxl"),
            },
            default="simple",
            unit_variance=True,
            has=_KDIFFUSION.union(
                ("ddim", "ddpm", "lcm", "ipndm", "ipndm_v", "deis", "euler_ge", "er_sde"),
                ("res_multistep", "res_multistep_a", "sa_solver", "sa_solver_pece", "unipc"),
                ("unipc_bh1", "heunpp2", "seeds_2", "seeds_3", "exp_heun_2_x0"),
                ("exp_heun_2_x0_sde",),
            ),
            renamed={"unipc": "unipcbh1"},  # its uni_pc; uni_pc_bh2 is ours
            whole=True,
            discards=frozenset((*_DPM2, "unipc", "unipc_bh1", "unipc_bh2")),
            dtype=torch.float64,
            floor=4.8973e-8,
        ),
    )
}
