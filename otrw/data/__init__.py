"""Long-tailed data: selection, label noise, sources, augmentation and rank-sharded loaders."""

from otrw.data.long_tail import Split, long_tail_indices
from otrw.data.noise import noisy_labels

__all__ = ["Split", "long_tail_indices", "noisy_labels"]
