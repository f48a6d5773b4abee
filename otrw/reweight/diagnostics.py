"""How a call of `OTReweighter` went."""

from typing import NamedTuple


class Diagnostics(NamedTuple):
    """How the last call went; all replicated."""

    num_iterations: int
    """Of the last solve."""
    marginal_error: float
    """Of the last solve: L1 distance of the plan's reference marginal from a."""
    converged: bool
    """Whether every solve of the call met its tolerance."""
    effective_samples: float
    """(sum w)^2 / sum w^2: how many equally weighted samples the weights are worth (Kish 1965)."""
    num_unconverged: int = 0
    """Solves of the call that stopped at max_iterations instead."""
    objective_gap: float = 0.0
    """sgd and network: how far the descent over the weights was from its minimum, in units of the cost; 0 in closed form."""
    solver: str = ""
    """What solved it, see `SinkhornResult`."""
