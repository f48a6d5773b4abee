"""Early-learning regularisation: hold a net to what it said of each sample before it began to fit wrong labels.

arXiv 2007.00151, equations 6 and 7 (ELR, without the second net and the mixing of ELR+).
"""

import torch
from torch import Tensor

from otrw import distributed
from otrw.data.loader import Batch

SMALLEST = 1e-4  # probabilities are kept this far from 0 and 1, as released


class EarlyLearning:
    """Running means of the net's opinion of every sample, (N, C), replicated.

    Args:
        num_samples: N.
        num_classes: C.
        factor: on the regulariser, lambda.
        momentum: of the running means, beta.
        device: where they live.
    """

    def __init__(self, num_samples: int, num_classes: int, factor: float, momentum: float, device: torch.device) -> None:
        self.factor = factor
        self.momentum = momentum
        self.means = torch.zeros(num_samples, num_classes, device=device)
        """(N, C) t of the paper; 0 for a sample that has not been seen."""

    def penalties(self, logits: Tensor, batch: Batch) -> Tensor:
        """lambda log(1 - <t_n, p_n>) of this process's samples (n,), after t <- beta t + (1 - beta) p.

        Args:
            logits: (n, C) of the batch.
            batch: which samples they are.
        """
        opinions = logits.float().softmax(1).clamp(SMALLEST, 1 - SMALLEST)
        said = opinions.detach()
        means = torch.lerp(said / said.sum(1, keepdim=True), self.means[batch.index], self.momentum)
        kept = distributed.all_gather_rows(batch.mask)
        index, everyones = (distributed.all_gather_rows(x)[kept] for x in (batch.index, means))
        self.means[index] = everyones
        return self.factor * (1 - (means * opinions).sum(1)).log()
