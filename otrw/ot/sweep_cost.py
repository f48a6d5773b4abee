"""What the parts of a solve cost, in seconds on one CPU core: decides what pays, never measured while solving.

Figures of one core of a server CPU (AVX-512, float32; `analysis/bench_sinkhorn.py` shows what follows from them). Only their
ratios matter, and the same on every process, so that all take the same decisions.
"""

SECONDS_PER_CALL = 1.5e-4
"""A sweep's dozen of tensor operations, whatever their size."""
SECONDS_PER_ENTRY = 0.25e-9
"""A sweep of a stored kernel: two reads."""
SECONDS_PER_KERNEL_ENTRY = 2e-9
"""An exponential, and the passes around it."""
SECONDS_PER_COPIED_ENTRY = 1e-9
SECONDS_PER_MULTIPLICATION = 0.03e-9
"""Of a matrix product."""
SECONDS_PER_FACTOR_MULTIPLICATION = 0.07e-9
"""Of a Cholesky factorisation in float64: K^3 / 3 of them."""
CONJUGATE_GRADIENT_PRODUCTS = 20
"""Typical of a Newton step."""


def sweep_seconds(num_atoms: int, num_samples: float, *, is_stored: bool = True) -> float:
    """P 1 once."""
    per_entry = SECONDS_PER_ENTRY + (0 if is_stored else SECONDS_PER_KERNEL_ENTRY)
    return SECONDS_PER_CALL + per_entry * num_atoms * num_samples


def hessian_seconds(num_atoms: int, num_columns: float) -> float:
    """The K x K matrix from that many columns, which are copied first, and its factor."""
    entries = num_atoms * num_columns
    seconds = 2 * SECONDS_PER_CALL + (SECONDS_PER_COPIED_ENTRY + SECONDS_PER_MULTIPLICATION * num_atoms) * entries
    return seconds + SECONDS_PER_FACTOR_MULTIPLICATION * num_atoms**3 / 3


def columns_of_a_call(num_atoms: int) -> int:
    """Columns that a K x K matrix is made of in the time of one sweep's calls: fewer would save nothing."""
    return int(SECONDS_PER_CALL / (num_atoms * (SECONDS_PER_COPIED_ENTRY + SECONDS_PER_MULTIPLICATION * num_atoms)))


def conjugate_gradient_seconds(num_atoms: int, num_columns: float) -> float:
    """A Newton step by products with that many columns, which are copied first."""
    entries = num_atoms * num_columns
    return SECONDS_PER_COPIED_ENTRY * entries + CONJUGATE_GRADIENT_PRODUCTS * sweep_seconds(num_atoms, num_columns)
