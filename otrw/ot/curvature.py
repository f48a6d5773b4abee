"""Newton steps of the semi-dual: its Hessian is minus a graph's Laplacian, -(diag(r) - P diag(1/b) P^T) / epsilon, r = P 1.

With P diag(1/b) P^T = S S^T the Laplacian is L = diag(S S^T 1) - S S^T, whether S has all columns or stands for them. It is
zero along the constant direction, since the plan stays as it is when all of f moves. The system is scaled by D = diag(d),
d = max(r, a), which puts its eigenvalues into [0, 1] however unequal the masses are, and gets

- diag(d - r): an atom that receives too little moves by (a - r) / d < 1 epsilon at once; at the solution the term is 0;
- sqrt(d) sqrt(d)^T, which pins the constant direction;
- a Levenberg term on the diagonal, which keeps what is nearly singular solvable.
"""

from typing import Protocol

import torch
from torch import Tensor

from otrw.ot.semi_dual import Marginal, SumSamples

LEAST_DAMPING = {torch.float32: 1e-6, torch.float64: 1e-12}
"""Of eigenvalues in [0, 1], which the kernel's precision gives to about this."""
FIRST_DAMPING = 1e-3
TINY_MASS = 1e-150
"""Of atoms that neither have nor get any mass."""
RELATIVE_RESIDUAL = 0.1
MAX_PRODUCTS = 60
"""Conjugate gradients stop at one of the two (truncated Newton: Dembo and Steihaug 1983)."""


class Curvature(Protocol):
    """What turns a residual into a step."""

    def step(self, now: Marginal) -> Tensor:
        """(K,) change of f, in units of epsilon, that Newton takes at `now`, or with an older Hessian (chord method)."""

    def damp(self, damping: float) -> None:
        """Set the Levenberg term, after a step that was refused."""


def scale_of(a: Tensor, mass: Tensor) -> Tensor:
    """sqrt(d), (K,)."""
    return torch.maximum(a, mass).clamp_min(TINY_MASS).sqrt()


class DirectCurvature:
    """The K x K matrix, factored.

    Args:
        a: (K,) mass of the atoms.
        at: where S was taken.
        columns: S (K, m), the local columns.
        sum_samples: all-reduce, of K^2 numbers.
        damping: Levenberg term.
    """

    def __init__(self, a: Tensor, at: Marginal, columns: Tensor, sum_samples: SumSamples, damping: float) -> None:
        self.a = a
        scale = scale_of(a, at.mass)
        matrix = sum_samples(torch.mm(columns, columns.T).double()).neg()
        matrix.diagonal().sub_(matrix.sum(1)).add_((a - at.mass).clamp_min(0))
        matrix.div_(scale[:, None]).div_(scale)
        scale = scale / scale.norm()
        self._matrix = matrix.addr_(scale, scale)
        self._damping = damping
        self._factor: Tensor | None = None

    def step(self, now: Marginal) -> Tensor:
        """With the scale of the present potential."""
        scale = scale_of(self.a, now.mass)
        return torch.cholesky_solve(((self.a - now.mass) / scale)[:, None], self._factored())[:, 0] / scale

    def damp(self, damping: float) -> None:
        """Set the Levenberg term."""
        self._damping, self._factor = damping, None

    def _factored(self) -> Tensor:
        while self._factor is None:
            damped = self._matrix.clone()
            damped.diagonal().add_(self._damping)
            factor, failure = torch.linalg.cholesky_ex(damped)
            if int(failure) == 0:
                self._factor = factor
            else:
                self._damping = max(10 * self._damping, FIRST_DAMPING)
        return self._factor


class ConjugateGradientCurvature:
    """The same system by conjugate gradients: two products with S an iteration, nothing of size K x K. Arguments as above."""

    def __init__(self, a: Tensor, at: Marginal, columns: Tensor, sum_samples: SumSamples, damping: float) -> None:
        self.a, self.columns, self.sum_samples = a, columns, sum_samples
        self._scale = scale_of(a, at.mass)
        self._constant = self._scale / self._scale.norm()
        self._damping = damping
        degree = self._overlap(torch.ones_like(a)) + (a - at.mass).clamp_min(0)
        self._diagonal = degree / self._scale.square()

    def step(self, now: Marginal) -> Tensor:
        """With the scale of the present potential."""
        scale = scale_of(self.a, now.mass)
        rest = (self.a - now.mass) / scale
        solution, direction, size = torch.zeros_like(rest), rest, float(rest @ rest)
        enough = RELATIVE_RESIDUAL**2 * size
        for _ in range(MAX_PRODUCTS):
            if size <= enough:
                break
            image = (self._diagonal + self._damping) * direction + self._constant * (self._constant @ direction)
            image = image - self._overlap(direction / self._scale) / self._scale
            curvature = float(direction @ image)
            if curvature <= 0:
                break  # rounding; the solution so far is an ascent direction
            length = size / curvature
            solution = solution + length * direction
            rest = rest - length * image
            new_size = float(rest @ rest)
            direction = rest + (new_size / size) * direction
            size = new_size
        return solution / scale

    def damp(self, damping: float) -> None:
        """Set the Levenberg term."""
        self._damping = damping

    def _overlap(self, x: Tensor) -> Tensor:
        """S S^T x (K,), float64, one reduction of K numbers."""
        return self.sum_samples(torch.mv(self.columns, torch.mv(self.columns.T, x.to(self.columns.dtype))).double())
