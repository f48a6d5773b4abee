"""Random numbers that are a hash of (key, sample index): they do not depend on the process or on the order of the batch."""

import torch
from torch import Tensor

_GAMMA, _MIX_1, _MIX_2 = (x - (1 << 64) for x in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def uniform_draws(key: int, index: Tensor, num_draws: int) -> Tensor:
    """Uniform numbers in [0, 1), (n, num_draws), a pure function of the key and each index.

    SplitMix64 (Steele et al., OOPSLA 2014) of the counter index * num_draws + draw.
    """
    key = key if key < 1 << 63 else key - (1 << 64)
    counter = index[:, None] * num_draws + torch.arange(1, num_draws + 1, device=index.device)
    x = counter * _GAMMA + key
    x = (x ^ _shift_right(x, 30)) * _MIX_1
    x = (x ^ _shift_right(x, 27)) * _MIX_2
    x = x ^ _shift_right(x, 31)
    return _shift_right(x, 40).float() / (1 << 24)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)  # logical: torch's shift of int64 keeps the sign
