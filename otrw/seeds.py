"""One root seed, one named stream of numbers for each purpose."""

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def seed_for(root: int, *purpose: str | int) -> int:
    """A 63-bit seed that depends on the root seed and on what the numbers are for, e.g. ("order", epoch)."""
    text = "/".join(str(part) for part in (root, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator_for(root: int, *purpose: str | int) -> "torch.Generator":
    """A CPU generator of that stream, the same on every process."""
    import torch  # tables read splits without it

    return torch.Generator().manual_seed(seed_for(root, *purpose))
