"""Distillation: on replayed inputs the challenger keeps to what its parent says.

Hinton et al., 2015, "Distilling the Knowledge in a Neural Network", section 2; on exemplars, as
in ADER (Mi et al., 2020), but recomputed from the parent, whose logits are nowhere stored.
"""

from __future__ import annotations

import torch
from torch import Tensor

from learners.model import SequenceModel, TensorBatch
from learners.softmax import Candidates


def distillation(
    parent: SequenceModel, replayed: TensorBatch, hidden: Tensor, candidates: Candidates
) -> Tensor:
    """Return the mean divergence of the challenger from its parent, (), 0 where they agree.

    Args:
        parent: in evaluation; knows the same items.
        replayed: inputs with n targets.
        hidden: (n, d) the challenger's hidden states at these targets.
        candidates: the items that both are compared over.
    """
    if not len(hidden):
        return hidden.sum()
    with torch.no_grad():
        table = parent.table() if candidates.ids is None else parent.rows(candidates.ids)
        told = torch.log_softmax(candidates.logits(parent(replayed), table), dim=1)  # (n, k)
    says = torch.log_softmax(candidates.logits(hidden, candidates.table), dim=1)
    return (told.exp() * (told - says)).sum(1).mean()
