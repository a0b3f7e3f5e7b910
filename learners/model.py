"""The next-item sequence model: a causal Transformer with tied embeddings.

After SASRec (Kang and McAuley, 2018, "Self-Attentive Sequential Recommendation") with pre-norm
blocks and softmax cross-entropy in place of the binary loss (Klenitskiy and Vasilev, 2023,
"Turning Dross Into Gold Loss: is BERT4Rec really better than SASRec?").
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from learners.sequences import GAPS, Batch
from pipeline.settings import Model

_SPREAD = 0.02  # of initial weights


class Block(nn.Module):
    """Pre-norm causal self-attention, then a feed-forward layer, each added to its input."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = nn.Linear(dim, 3 * dim)
        self.projection = nn.Linear(dim, dim)
        self.feed_norm = nn.LayerNorm(dim)
        self.feed = nn.Linear(dim, 4 * dim)
        self.back = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(b, l, d) -> (b, l, d)."""
        b, length, d = x.shape
        qkv = self.attention(self.attention_norm(x))
        q, k, v = qkv.view(b, length, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)  # (b, heads, l, _)
        mixed = self.projection(mixed.transpose(1, 2).reshape(b, length, d))
        x = x + functional.dropout(mixed, self.dropout, self.training)
        fed = self.back(functional.gelu(self.feed(self.feed_norm(x))))
        return x + functional.dropout(fed, self.dropout, self.training)


class Body(nn.Module):
    """The blocks between embeddings and output: (b, l, d) -> (b, l, d)."""

    def __init__(self, settings: Model) -> None:
        super().__init__()
        self.dropout = settings.dropout
        self.blocks = nn.ModuleList(
            Block(settings.dim, settings.heads, settings.dropout) for _ in range(settings.blocks)
        )
        self.norm = nn.LayerNorm(settings.dim)

    def forward(self, x: Tensor) -> Tensor:
        """(b, l, d) -> (b, l, d)."""
        x = functional.dropout(x, self.dropout, self.training)
        for block in self.blocks:
            x = block(x)
        hidden: Tensor = self.norm(x)
        return hidden


class SequenceModel(nn.Module):
    """Scores of the next item after each event of a sequence.

    An item stands for itself plus its category, in and out (the output embedding is tied), so an
    item that is new already lies where its category lies.
    """

    category: Tensor

    def __init__(self, settings: Model, generator: torch.Generator) -> None:
        super().__init__()
        d = settings.dim
        if d % settings.heads:
            raise ValueError(
                f"model: dim is {d} and heads is {settings.heads}: dim must be a multiple of heads"
            )
        self.items = nn.Parameter(torch.zeros(0, d))
        self.categories = nn.Parameter(torch.zeros(0, d))
        self.types = nn.Parameter(torch.zeros(0, d))
        self.gaps = nn.Parameter(torch.zeros(GAPS, d))
        self.positions = nn.Parameter(torch.zeros(settings.max_length, d))
        self.body = Body(settings)
        self.register_buffer("category", torch.zeros(0, dtype=torch.long))  # (items,)
        for name, parameter in self.named_parameters():
            if "norm" not in name:
                spread = 0.0 if name.endswith("bias") else _SPREAD
                nn.init.normal_(parameter, 0.0, spread, generator=generator)

    @classmethod
    def restore(cls, settings: Model, tensors: dict[str, Tensor]) -> SequenceModel:
        """Make the model whose `state_dict` this is."""
        model = cls(settings, torch.Generator())
        for name in ("items", "categories", "types"):
            setattr(model, name, nn.Parameter(torch.empty_like(tensors[name])))
        model.category = torch.empty_like(tensors["category"])
        model.load_state_dict(tensors)
        model.eval()
        return model

    def grow(
        self, category: Tensor, categories: int, types: int, generator: torch.Generator
    ) -> None:
        """Add rows for what is new; a new item starts at the mean of its category's items.

        Args:
            category: (items,) the category of every item, old and new.
            categories: how many categories there are now.
            types: how many event types there are now.
            generator: draws the small differences between rows that start alike.
        """
        with torch.no_grad():
            old = self.items.detach()
            known = len(old)
            seen = self.category.new_zeros(categories).float()
            sums = old.new_zeros(categories, old.shape[1])
            sums.index_add_(0, category[:known], old)
            seen.index_add_(0, category[:known], torch.ones_like(category[:known]).float())
            means = sums / seen.clamp(min=1)[:, None]  # (categories, d)
            fresh = means[category[known:]]
            self.items = _with_rows(old, fresh, generator)
            for table, size in (("categories", categories), ("types", types)):
                rows = getattr(self, table).detach()
                blank = rows.new_zeros(size - len(rows), rows.shape[1])
                setattr(self, table, _with_rows(rows, blank, generator))
            self.category = category.clone()

    def rows(self, ids: Tensor) -> Tensor:
        """Return the embeddings of items: (...) -> (..., d)."""
        return functional.embedding(ids, self.items) + functional.embedding(
            self.category[ids], self.categories
        )

    def table(self) -> Tensor:
        """Return the embeddings of all items: (items, d)."""
        return self.items + self.categories[self.category]

    def embed(self, batch: TensorBatch) -> Tensor:
        """Return the sum of an event's embeddings: (b, l, d)."""
        return (
            self.rows(batch.items)
            + functional.embedding(batch.types, self.types)
            + functional.embedding(batch.gaps, self.gaps)
            + self.positions[: batch.items.shape[1]]
        )

    def forward(self, batch: TensorBatch) -> Tensor:
        """Return what the model knows after each event asked about: (targets, d), by row."""
        hidden: Tensor = self.body(self.embed(batch))
        return hidden[batch.asked]


@dataclass(frozen=True, slots=True)
class TensorBatch:
    """A `Batch` as tensors on a device."""

    items: Tensor  # (b, l)
    types: Tensor  # (b, l)
    gaps: Tensor  # (b, l)
    following: Tensor  # (b, l) targets, -1 where none is asked for

    @classmethod
    def of(cls, batch: Batch, device: torch.device) -> TensorBatch:
        """Move a batch to a device."""
        columns = (batch.items, batch.types, batch.gaps, batch.targets)
        return cls(*(torch.from_numpy(column).to(device) for column in columns))

    @property
    def asked(self) -> Tensor:
        """Where there is a target, (b, l)."""
        return self.following >= 0

    @property
    def targets(self) -> Tensor:
        """The targets asked for, (n,), by row."""
        return self.following[self.asked]

    def take(self, rows: Tensor) -> TensorBatch:
        """Return some of the inputs: rows is a mask or indices."""
        return TensorBatch(
            self.items[rows], self.types[rows], self.gaps[rows], self.following[rows]
        )


def _with_rows(old: Tensor, new: Tensor, generator: torch.Generator) -> nn.Parameter:
    noise = torch.empty(new.shape).normal_(0.0, _SPREAD, generator=generator)
    return nn.Parameter(torch.cat([old, new + noise.to(new.device)]))
