"""Weights in a library's own order, in place of torch's and not beside it.

oneDNN multiplies fastest by matrices that lie in memory in an order of its own, which would be a
second copy of a network. A `Reordered` stands where the weight stood, with its shape and dtype, and
holds that order alone: the same object, so that whoever holds it goes on holding the weight. What
computes with it gets the plain weight, worked out for that one operation. What writes to it, or
asks for memory to write to (`data`, a view), makes it plain, until it is laid anew. A weight whose
memory somebody else holds stays as it is, and its other order lies beside it.

Nothing here that drawing needs is such an operation: at the first one torch loads
`torch.distributed.tensor`, and sympy with it, 0.4 s and 40 MB.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

# A plain weight [rows, ...] -> tensors in the library's order, of its rows in order.
ALONE = 2  # that hold a storage: the weight, and whoever asks
Reorder = Callable[[Tensor], tuple[Tensor, ...]]


class Reordered(Tensor):
    """A weight in another order: some rows of what `parts` hold, one after another."""

    parts: tuple[Tensor, ...]  # in the library's order; shared by layers whose weights lie together
    begin: int  # the first of the rows that are this weight's
    order: Hashable  # what tells whether somebody else needs the same order
    plain: Tensor | None  # the weight itself, once it was written to, or its memory given away

    @staticmethod
    def __new__(
        cls, weight: Tensor, parts: tuple[Tensor, ...], begin: int, order: Hashable
    ) -> Reordered:
        """weight: in whose place it stands; what was noted of that is noted of this."""
        made = torch.Tensor._make_wrapper_subclass(
            cls, weight.shape, dtype=weight.dtype, device=weight.device
        )
        vars(made).update(vars(weight))
        made.parts, made.begin, made.order, made.plain = parts, begin, order, None
        made._is_param = True  # as nn.Parameter asks, which takes only what detaches to its like
        return made

    def dense(self) -> Tensor:
        """The weight as torch has it, to the bit."""
        if self.plain is not None:
            return self.plain
        # A view of an inference tensor cannot stand for one of a parameter, nor ask for gradients.
        with torch.inference_mode(False), torch.no_grad():
            rows = [part.to_dense() for part in self.parts]
            whole = rows[0] if len(rows) == 1 else torch.cat(rows)
            if len(whole) != len(self):
                whole = whole[self.begin : self.begin + len(self)].clone()
            return whole.view(self.shape)

    @property
    def data(self) -> Tensor:  # type: ignore[override]
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        self.plain = value.detach()

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"Reordered({list(self.shape)}, {self.dtype})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        """A plain weight: nothing is shared."""
        if id(self) not in memo:
            memo[id(self)] = nn.Parameter(self.dense().clone(), self.requires_grad)
        return memo[id(self)]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return nn.Parameter(self.dense().clone(), self.requires_grad).__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        schema = func._schema
        shared = any(out.alias_info is not None for out in schema.returns)
        # A linear layer asks for the transpose, and does not write to it.
        lasts = (shared or schema.is_mutable) and func is not torch.ops.aten.t.default
        given: dict[int, Reordered] = {}  # by the plain tensor that goes in its place

        def whole(value: Any) -> Any:
            if not isinstance(value, Reordered):
                return value
            dense = value.dense()
            if lasts:
                value.plain = dense
            given[id(dense)] = value
            return dense

        args, kwargs = tree_map(whole, (args, {} if kwargs is None else kwargs))
        out = func(*args, **kwargs)
        return given.get(id(out), out) if schema.is_mutable else out


def dense(weight: Tensor) -> Tensor:
    """A weight as torch has it, in whatever order it lies; its own memory where that is so."""
    return weight.dense() if isinstance(weight, Reordered) else weight.detach()


def reorder(layers: Sequence[nn.Module], order: Hashable, make: Reorder) -> tuple[Tensor, ...]:
    """The weights of the layers, side by side, in another order: what `make` makes of them.

    From then on the layers hold them in that order alone, unless somebody else holds their memory.
    Where they lie in it already, nothing is made.
    """
    weights: list[Any] = [layer.weight for layer in layers]
    order = (order, tuple(weight.shape for weight in weights))
    begins = [sum(len(weight) for weight in weights[:i]) for i in range(len(weights))]
    if _lie_so(weights, order, begins):
        return weights[0].parts
    plain = [dense(weight) for weight in weights]
    parts = make(plain[0] if len(plain) == 1 else torch.cat([each.flatten(1) for each in plain]))
    del plain
    for weight, begin in zip(weights, begins, strict=True):
        _take_over(weight, parts, begin, order)
    return parts


def _take_over(weight: Any, parts: tuple[Tensor, ...], begin: int, order: Hashable) -> None:
    """Make the weight itself a Reordered, where nobody else holds its memory."""
    held = weight.plain if isinstance(weight, Reordered) else weight
    if held is not None and torch._C._storage_Use_Count(held.untyped_storage()._cdata) > ALONE:
        return
    made = Reordered(weight, parts, begin, order)
    made.requires_grad_(weight.requires_grad)
    with suppress(RuntimeError):  # a weak reference to it, or a graph of gradients, holds it
        torch.utils.swap_tensors(weight, made)


def _lie_so(weights: Sequence[Tensor], order: Hashable, begins: Sequence[int]) -> bool:
    first = weights[0]
    return isinstance(first, Reordered) and all(
        isinstance(weight, Reordered)
        and weight.plain is None
        and weight.parts is first.parts
        and (weight.order, weight.begin) == (order, begin)
        for weight, begin in zip(weights, begins, strict=True)
    )


def restore(module: nn.Module) -> bool:
    """Make every weight of a network plain again. Returns whether one was not."""
    found = False
    for layer in module.modules():
        for name, weight in layer._parameters.items():
            if isinstance(weight, Reordered):
                plain = nn.Parameter(weight.dense(), requires_grad=weight.requires_grad)
                vars(plain).update(_notes(weight))
                try:
                    torch.utils.swap_tensors(weight, plain)
                except RuntimeError:
                    layer._parameters[name] = plain
                found = True
    return found


def _notes(weight: Reordered) -> dict[str, Any]:
    """What was noted of it by others."""
    mine = {"parts", "begin", "order", "plain", "_is_param"}
    return {name: value for name, value in vars(weight).items() if name not in mine}
