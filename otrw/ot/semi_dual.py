"""The semi-dual of entropic transport: value, marginal and curvature as functions of the reference potential alone.

With g eliminated exactly, every plan meets b, and what is left to find is f with P 1 = a (Cuturi and Peyre, SIAM J. Imaging
Sci. 2016; Blondel, Seguy and Rolet, arXiv 1710.06276, section 4). A sweep over the cost takes one exponential an entry in
the log domain, which costs several times as much as reading the matrix, so the kernel is taken once, around a potential f0,

    Q_kn = exp((f0_k - C_kn - M_n) / epsilon),   M_n = max_k (f0_k - C_kn),

and the plan of a potential f near by is diag(u) Q diag(b / z) with u = exp((f - f0) / epsilon) and z = Q^T u: two products of
a matrix with a vector (absorption: Schmitzer, arXiv 1610.06519). Nothing can overflow. Entries below exp(-60) of the largest
in their column are raised to that, because denormal numbers are slow. Once f leaves f0 by more than `MAX_SHIFT` epsilon, the
kernel is taken again.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from otrw.ot.cost import Cost, blocks

SumSamples = Callable[[Tensor], Tensor]
"""Sum of a tensor over the processes that share the samples: all-reduce; the identity on one process."""

LOWEST_EXPONENT = {torch.float32: -60.0, torch.float64: -600.0}
MAX_SHIFT = {torch.float32: 25.0, torch.float64: 250.0}
"""An entry raised from below exp(-60) then still is below exp(-60 + 25) of its column: nothing."""
BLOCK_ENTRIES = 1 << 20
"""Entries of a block of columns (4 MiB in float32). Sums within it are in the cost's precision, over blocks in float64."""


def whole(x: Tensor) -> Tensor:
    """The sum over processes where there is one."""
    return x


class Marginal(NamedTuple):
    """The plan's reference marginal at one potential."""

    f: Tensor
    """(K,) float64, rounded to the precision of the cost: what is measured is what is returned."""
    mass: Tensor
    """(K,) float64, P 1 over all samples, replicated."""
    error: float
    """L1 distance of `mass` from a, replicated."""
    value: float
    """The semi-dual objective F(f) / epsilon, but for the constant of the entropy of b; replicated."""


class SemiDual:
    """One problem at one epsilon.

    Args:
        cost: (K, n) costs of the local samples, dense or chunked.
        a: (K,) float64, with sum 1; 0 is allowed.
        b: (n,) masses of the local samples, in the precision of the cost, with sum 1 over all processes.
        epsilon: strength of the entropy.
        sum_samples: all-reduce.
        max_stored_entries: a kernel with more is computed again at every sweep; None keeps every kernel.
        buffer: (K, n) that the kernel may be written to.
    """

    def __init__(
        self,
        cost: Cost,
        a: Tensor,
        b: Tensor,
        epsilon: float,
        *,
        sum_samples: SumSamples = whole,
        max_stored_entries: int | None = None,
        buffer: Tensor | None = None,
    ) -> None:
        self.cost, self.a, self.b, self.epsilon = cost, a, b, epsilon
        self.sum_samples = sum_samples
        self.has_mass = a > 0
        self._all_have_mass = bool(self.has_mass.all())
        self.num_atoms, self.num_samples = len(a), len(b)
        self.is_stored = max_stored_entries is None or self.num_atoms * self.num_samples <= max_stored_entries
        self.buffer = buffer
        self.num_kernels = 0
        self._f0: Tensor | None = None
        self._u = torch.ones_like(a)
        self._column_max = torch.zeros_like(b)
        self._column_sum = torch.ones_like(b)
        self._mean_column_max = a.new_zeros(())
        self._softness: Tensor | None = None
        self._local_softness = a.new_zeros(())
        self._all_softness = 0.0

    def at(self, epsilon: float) -> "SemiDual":
        """The same problem at another epsilon; it takes over the memory of the kernel."""
        other = SemiDual(self.cost, self.a, self.b, epsilon, sum_samples=self.sum_samples, buffer=self.buffer)
        other.is_stored, self.buffer, self._f0 = self.is_stored, None, None
        return other

    def with_masses(self, b: Tensor) -> "SemiDual":
        """The same cost and epsilon with other masses (n,); a stored kernel is taken over."""
        other = SemiDual(self.cost, self.a, b, self.epsilon, sum_samples=self.sum_samples, buffer=self.buffer)
        other.is_stored, other._f0, other._column_max = self.is_stored, self._f0, self._column_max
        other._mean_column_max = torch.dot(b.double(), self._column_max.double())
        return other

    def marginal(self, f: Tensor) -> Marginal:
        """P 1 at the potential f (K,): one sweep, one reduction of K + 2 numbers."""
        f = f.to(self.b.dtype).double()
        is_new = self._absorb(f)
        u = self._u.to(self.b.dtype)
        mass, scalars = torch.zeros_like(self.a), self.a.new_zeros(2)
        for part, kernel in self._kernels():
            b = self.b[part]
            z = torch.mv(kernel.T, u)
            self._column_sum[part] = z
            mass += torch.mv(kernel, b / z)
            scalars[0] -= torch.dot(b.double(), z.log().double())
        if is_new or self._softness is None:
            self._softness = self.b * (1 - 1 / self._column_sum)
            self._local_softness = self._softness.sum().double()
        scalars[0] -= self._mean_column_max / self.epsilon
        scalars[1] = self._local_softness
        total = self.sum_samples(torch.cat([mass * self._u, scalars]))
        mass, value = total[:-2], total[-2] + torch.dot(self.a, f) / self.epsilon
        error, objective, self._all_softness = torch.stack([(mass - self.a).abs().sum(), value, total[-1]]).tolist()
        return Marginal(f, mass, error, objective)

    def soft_columns(self, num_columns: float, uniform: Tensor) -> Tensor:
        """S (K, m) with S S^T about P diag(1/b) P^T off the diagonal, at the potential of the last `marginal`.

        The Hessian's Laplacian is sum_n b_n (diag(q_n) - q_n q_n^T) with q_n the plan's column n scaled to sum 1. A column that
        one atom takes alone adds nothing, hence each is taken with probability p_n = min(1, num_columns s_n / sum s) for its
        softness s_n = b_n (1 - max_k q_kn) as it was when the kernel was taken, and weighted by 1 / p_n (Poisson sampling:
        Horvitz and Thompson 1952). At small epsilon few columns are soft, all of which are taken: the sparsity that arXiv
        2401.12253 finds by thresholds.

        Args:
            num_columns: to take, of all processes together; at least the number of samples means all.
            uniform: (n,) in [0, 1), a random number of each sample, such as `uniform_hash` of its index over all processes.
        """
        u = self._u.to(self.b.dtype)[:, None]
        assert self._softness is not None
        probability = self._softness * (num_columns / max(self._all_softness, 1e-300))
        taken = uniform < probability
        weight = (self.b / probability.clamp(1e-30, 1)).sqrt() / self._column_sum
        if self.is_stored:  # of the whole kernel at once: block by block it takes more than twice as long
            assert self.buffer is not None
            index = taken.nonzero()[:, 0]
            return self.buffer.index_select(1, index).mul_(weight[index]).mul_(u)
        # one tensor from the start: thousands of small ones between blocks would leave holes of gigabytes in the memory
        columns = self.b.new_empty(self.num_atoms, int(taken.sum()))
        start = 0
        for part, kernel in self._kernels():
            here = taken[part].nonzero()[:, 0]
            stop = start + len(here)
            columns[:, start:stop] = kernel.index_select(1, here).mul_(weight[part][here]).mul_(u)
            start = stop
        return columns

    def all_columns(self) -> Tensor:
        """S (K, n) with S S^T = P diag(1/b) P^T exactly."""
        u = self._u.to(self.b.dtype)[:, None]
        weight = self.b.sqrt() / self._column_sum
        columns = self.b.new_empty(self.num_atoms, self.num_samples)
        for part, kernel in self._kernels():
            columns[:, part] = (kernel * weight[part]).mul_(u)
        return columns

    def sample_potential(self, log_b: Tensor) -> Tensor:
        """g (n,) that meets b exactly at the potential of the last `marginal`."""
        return self.epsilon * (log_b - self._column_sum.log()) - self._column_max

    def _absorb(self, f: Tensor) -> bool:
        """Take the kernel around f where there is none or f has gone too far; whether that was done."""
        if self._f0 is not None and self.is_stored:
            log_u = (f - self._f0) / self.epsilon
            if not self._all_have_mass:
                log_u = log_u.where(self.has_mass, 0)
            if float(log_u.abs().max()) <= MAX_SHIFT[self.b.dtype]:
                self._u = log_u.exp_().mul_(self.has_mass)
                return False
        self._f0 = f
        self._u = self.has_mass.to(f.dtype)
        self._mean_column_max = torch.zeros_like(self._mean_column_max)
        if self.is_stored:
            if self.buffer is None:
                self.buffer = torch.empty(self.num_atoms, self.num_samples, dtype=self.b.dtype, device=self.b.device)
            for part, block in self._cost_blocks():
                self._take(block, part, out=self.buffer[:, part])
        self.num_kernels += 1
        return True

    def _kernels(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield (slice of samples, kernel of these columns)."""
        if self.is_stored:
            assert self.buffer is not None
            for part in self._parts(0, self.num_samples):
                yield part, self.buffer[:, part]
        else:
            for part, block in self._cost_blocks():
                yield part, self._take(block, part, out=torch.empty_like(block))

    def _cost_blocks(self) -> Iterator[tuple[slice, Tensor]]:
        for large, columns in blocks(self.cost):
            for part in self._parts(large.start, large.stop):
                yield part, columns[:, part.start - large.start : part.stop - large.start]

    def _parts(self, start: int, stop: int) -> list[slice]:
        size = max(1, BLOCK_ENTRIES // self.num_atoms)
        return [slice(first, min(first + size, stop)) for first in range(start, stop, size)]

    def _take(self, block: Tensor, part: slice, out: Tensor) -> Tensor:
        """The kernel of some columns around f0, written to `out`."""
        assert self._f0 is not None
        f0 = torch.where(self.has_mass, self._f0, -torch.inf).to(self.b.dtype)
        torch.sub(f0[:, None], block, out=out)
        largest = out.amax(0).clamp_min_(torch.finfo(out.dtype).min)
        self._column_max[part] = largest
        self._mean_column_max += torch.dot(self.b[part].double(), largest.double())
        return out.sub_(largest).mul_(1 / self.epsilon).clamp_min_(LOWEST_EXPONENT[out.dtype]).exp_()


def uniform_hash(index: Tensor) -> Tensor:
    """(n,) float64, a number in [0, 1) for each integer: the finaliser of MurmurHash3 (Appleby, public domain) on 32 bits."""
    mask = (1 << 32) - 1
    x = index.to(torch.int64) * 0x9E3779B1 & mask
    x = (x ^ (x >> 16)) * 0x85EBCA6B & mask
    x = (x ^ (x >> 13)) * 0xC2B2AE35 & mask
    return (x ^ (x >> 16)).double() / (mask + 1)
