"""What a caller hands to the solvers, checked where it costs next to nothing: a wrong plan is worse than a refusal."""

import torch
from torch import Tensor

from otrw.ot.cost import Cost

MASS_TOLERANCE = 1e-3
"""By how much the masses of a marginal may miss a sum of 1: far more than rounding, far less than a mistake."""


def check_problem(cost: Cost, log_a: Tensor, log_b: Tensor | None = None, *, epsilon: float, is_whole: bool = True) -> None:
    """Refuse a problem that cannot be meant. Masses are looked at on CPUs alone, as reading them back stalls a GPU.

    Args:
        cost: (K, n) or (B, K, n), dense or chunked.
        log_a: (K,) or (B, K) log masses.
        log_b: (n,) or (B, n) log masses; None where they are free.
        epsilon: strength of the entropy.
        is_whole: whether log_b has all samples of the problem, so that its masses sum to 1.

    Raises:
        ValueError: something is no tensor, of another shape, or no logarithms of masses that sum to 1.
    """
    if not epsilon > 0:
        raise ValueError(f"epsilon must be > 0, got {epsilon}")
    marginals = {"log_a": log_a} if log_b is None else {"log_a": log_a, "log_b": log_b}
    for name, value in {"cost": cost, **marginals}.items():
        if not isinstance(value, Tensor) and (name != "cost" or not hasattr(value, "num_samples")):
            raise ValueError(f"{name} must be a torch tensor, got {type(value).__name__}; torch.as_tensor makes one")
    num_atoms = cost.shape[-2] if isinstance(cost, Tensor) and cost.dim() > 1 else log_a.shape[-1]
    num_samples = cost.shape[-1] if isinstance(cost, Tensor) else cost.num_samples
    for (name, value), size in zip(marginals.items(), (num_atoms, num_samples), strict=False):
        if value.shape[-1:] != (size,):
            given = tuple(cost.shape) if isinstance(cost, Tensor) else f"{num_samples} samples"
            raise ValueError(f"{name} must have {size} entries for a cost of {given}, got {tuple(value.shape)}")
    _check_mass("log_a", log_a, is_whole=True)
    if log_b is not None:
        _check_mass("log_b", log_b, is_whole=is_whole)


@torch.no_grad()
def _check_mass(name: str, log_mass: Tensor, *, is_whole: bool) -> None:
    if log_mass.device.type != "cpu" or not log_mass.numel():
        return
    total = log_mass.double().exp().sum(-1)
    off = (total - 1).abs() if is_whole else (total - 1).clamp_min(0)
    worst = int(off.argmax()) if off.dim() else 0
    if not bool((off <= MASS_TOLERANCE).all()):
        raise ValueError(
            f"{name} must be logarithms of masses that sum to 1, got a sum of {float(total.flatten()[worst]):.4g}; "
            "of masses pass (mass / mass.sum()).log()"
        )
