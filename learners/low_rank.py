"""Updates of low rank: what a window may change is a product of two thin matrices.

Hu et al., 2022, "LoRA: Low-Rank Adaptation of Large Language Models". The weights of an update are
merged when the window has been learnt, so that a model is as large and as fast as ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from learners.model import SequenceModel


class _Update(nn.Module):
    """A matrix (n, m) and an update of it: of low rank, and free in the rows that are new."""

    old: Tensor

    def __init__(self, old: Tensor, *, rank: int, known: int, generator: torch.Generator) -> None:
        super().__init__()
        n, m = old.shape
        self.register_buffer("old", old, persistent=False)
        thin = torch.empty(rank, m).normal_(0.0, m**-0.5, generator=generator)
        self.thin = nn.Parameter(thin.to(old.device))
        self.tall = nn.Parameter(old.new_zeros(n, rank))
        self.fresh = nn.Parameter(old.new_zeros(n - known, m))

    def forward(self) -> Tensor:
        """Return the matrix as it is by now: (n, m)."""
        fresh = functional.pad(self.fresh, (0, 0, len(self.old) - len(self.fresh), 0))
        return self.old + self.tall @ self.thin + fresh


@contextmanager
def low_rank(model: SequenceModel, rank: int, known: int, seed: int) -> Iterator[None]:
    """Have a model's training change its item table and its linear layers by updates of low rank.

    What is small is trained as ever: tables of positions, gaps, types and categories, norms,
    biases, recurrent units; and so are the rows of new items.

    Args:
        model: changed in place when the context ends.
        rank: of the updates.
        known: items that are not new.
        seed: of the thin matrices' first values.
    """
    generator = torch.Generator().manual_seed(seed)
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    matrices = [(model, "items", known), *((at, "weight", len(at.weight)) for at in layers)]
    with ExitStack() as merging:
        for module, name, rows in matrices:
            old = getattr(module, name).detach()
            update = _Update(old, rank=rank, known=rows, generator=generator)
            merging.enter_context(_updated(module, name, update))
        yield


@contextmanager
def _updated(module: nn.Module, name: str, update: _Update) -> Iterator[None]:
    """Let an update stand for a parameter, and become it in the end.

    What `torch.nn.utils.parametrize` does; that cannot have a parameter called "items".
    """
    kind = type(module)
    delattr(module, name)
    module.add_module("update", update)
    module.__class__ = type(kind.__name__, (kind,), {name: property(lambda of: of.update())})
    try:
        yield
    finally:
        delattr(module, "update")
        module.__class__ = kind
        module.register_parameter(name, nn.Parameter(update().detach()))
