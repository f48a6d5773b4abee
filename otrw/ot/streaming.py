"""The closed form of `otrw.ot.semi_relaxed` in one sweep over the cost, two where its exponentials do not fit in memory.

b_n = sum_k a_k exp(-C_kn / epsilon) / Z_k needs Z_k = sum_n exp(-C_kn / epsilon) first. The exponentials
E_kn = exp((m_k - C_kn) / epsilon), with m_k the least cost of the first block's row, are taken block by block and summed. The
blocks are kept, and the mass then is one product of E with a vector. No maximum is subtracted within a block: only where a
later block has a cost so far below m_k that exp might overflow, m_k is lowered and what was summed is rescaled.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from otrw.ot.cost import Cost, blocks
from otrw.ot.newton import MAX_STORED_ENTRIES
from otrw.ot.semi_dual import BLOCK_ENTRIES, LOWEST_EXPONENT
from otrw.ot.sinkhorn import LogSumExp, SinkhornResult, logsumexp_rows

MAX_EXPONENT = 40.0


def semi_relaxed_mass(
    cost: Cost,
    log_a: Tensor,
    *,
    epsilon: float,
    max_stored_entries: int = MAX_STORED_ENTRIES,
    logsumexp_samples: LogSumExp = logsumexp_rows,
) -> tuple[SinkhornResult, Tensor]:
    """Potentials and weights of the semi-relaxed problem.

    Args:
        cost: (K, n) of the local samples, dense or chunked, finite.
        log_a: (K,) log mass of the atoms, replicated.
        epsilon: strength of the entropy, > 0.
        max_stored_entries: of the exponentials; where there are more, each chunk is computed a second time.
        logsumexp_samples: log-sum-exp over all processes' samples; called once, with one number an atom.

    Returns:
        f (K,) with g of 0, as `semi_relaxed` gives them, and b (n,), with sum 1 over all processes.

    Raises:
        ValueError: epsilon is not positive.
    """
    if epsilon <= 0:
        raise ValueError(f"epsilon must be > 0, got {epsilon}")
    num_atoms = len(log_a)
    num_samples = cost.shape[1] if isinstance(cost, Tensor) else cost.num_samples
    is_stored = num_atoms * num_samples <= max_stored_entries
    size = max(1, BLOCK_ENTRIES // num_atoms)
    reference: Tensor | None = None
    total = torch.zeros_like(log_a, dtype=torch.float64)
    kept: list[Tensor] = []
    for _, chunk in blocks(cost):
        for block in chunk.split(size, dim=1):
            if block.shape[1] == 0:
                continue
            lowest = block.amin(1)
            if reference is None:
                reference = lowest
            elif float((reference - lowest).max()) > MAX_EXPONENT * epsilon:
                lower = torch.minimum(reference, lowest)
                factor = ((lower - reference) / epsilon).exp()
                total *= factor
                for earlier in kept:
                    earlier.mul_(factor[:, None])
                reference = lower
            exponential = _exponential(block, reference, epsilon)
            total += exponential.sum(1)
            if is_stored:
                kept.append(exponential)
    if reference is None:
        reference = torch.zeros_like(log_a)
    log_sum = (total.log() - reference.double() / epsilon).to(log_a.dtype)
    f = epsilon * (log_a - logsumexp_samples(log_sum[:, None]))
    scale = ((f.double() - reference.double()) / epsilon).exp().to(log_a.dtype)
    mass = log_a.new_empty(num_samples)  # one tensor: thousands of small ones would leave holes in the memory
    start = 0
    for exponential in kept if is_stored else _again(cost, reference, epsilon, size):
        torch.mv(exponential.T, scale, out=mass[start : start + exponential.shape[1]])
        start += exponential.shape[1]
    num_sweeps = 1 if is_stored else 2
    error = torch.zeros((), device=log_a.device)
    return SinkhornResult(f, torch.zeros_like(mass), error, num_sweeps, True, "closed_form"), mass


def _again(cost: Cost, reference: Tensor, epsilon: float, size: int) -> Iterator[Tensor]:
    """The exponentials, computed a second time."""
    for _, chunk in blocks(cost):
        for block in chunk.split(size, dim=1):
            yield _exponential(block, reference, epsilon)


def _exponential(block: Tensor, reference: Tensor, epsilon: float) -> Tensor:
    """exp((m_k - C_kn) / epsilon); raised from below exp(-60), as denormal numbers are slow."""
    exponent = torch.sub(reference[:, None], block).mul_(1 / epsilon)
    return exponent.clamp_min_(LOWEST_EXPONENT[block.dtype]).exp_()
