"""The matrix of a given rank that is nearest to another: its singular values cut off.

The truncated singular value decomposition is the nearest in the Frobenius norm (Eckart and Young
1936), and what it leaves out is the square root of the sum of the squares of the other values.
"""

from __future__ import annotations

import torch
from torch import Tensor


def factors(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """down [r, n] and up [out, r] of the nearest up @ down to `matrix` [out, n]; float32.

    r is `rank`, or less where the matrix has fewer rows or columns. Both factors share the singular
    values: up has orthogonal columns, down orthogonal rows, of equal lengths.

    Of D D^T (or D^T D, whichever is smaller) in float64: its eigenvectors are D's singular vectors,
    and convolutions have nine times as many columns as rows.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    wide = (matrix.T if tall else matrix).double()
    _, vectors = torch.linalg.eigh(wide @ wide.T)  # the largest last
    left = vectors[:, -min(rank, len(wide)) :].flip(1)
    right = left.T @ wide
    lengths = right.norm(dim=1).sqrt().clamp_min(torch.finfo(torch.float64).tiny)
    left, right = (left * lengths).float(), (right / lengths[:, None]).float()
    return (left.T, right.T) if tall else (right, left)


def fewer(down: Tensor, up: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The same of the product up @ down, which is never multiplied out."""
    q_up, r_up = torch.linalg.qr(up.double())
    q_down, r_down = torch.linalg.qr(down.double().T)
    core_down, core_up = factors(r_up @ r_down.T, rank)
    return (core_down.double() @ q_down.T).float(), (q_up @ core_up.double()).float()


def product_norm(down: Tensor, up: Tensor) -> float:
    """|up @ down| (Frobenius), which is never multiplied out."""
    r_up, r_down = (torch.linalg.qr(each.double()).R for each in (up, down.T))
    return float((r_up @ r_down.T).norm())
