"""Beside others: a checkpoint and a run beside diffusers, a schedule beside four tools', and where
a reference is wrong."""

# Whose schedule `sdcore.compare.tools` restates, by the prefixes that schedulers' names take.
TOOLS = ("diffusers", "comfyui", "a1111", "kdiffusion")
