"""The next-item sequence model: a causal Transformer, or GRU, with tied embeddings.

After SASRec (Kang and McAuley, 2018, "Self-Attentive Sequential Recommendation") with pre-norm
blocks and softmax cross-entropy in place of the binary loss (Klenitskiy and Vasilev, 2023,
"Turning Dross Into Gold Loss: is BERT4Rec really better than SASRec?").

Under "state" an item scores by its product with the Transformer's state. Under "mean" what is said
after an event is a mean of the items up to it, weighed by the Transformer, so that inputs and
outputs lie in one space, and scores are cosines (Hou et al., 2022, "CORE: Simple and Effective
Session-based Recommendation within Consistent Representation Space"): stronger on short sessions
around one purpose. A mean cannot say that b follows a but a does not follow b; under "sum" the
state is added to it, which can.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from learners.catalogue import Renumbering
from learners.sequences import GAPS, Batch
from pipeline.settings import Model

_SPREAD = 0.02  # of initial weights
_SCALE = 14.0  # of cosines, at first


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


class Recurrent(nn.Module):
    """A pre-norm gated recurrent unit, added to its input.

    Cho et al., 2014, "Learning Phrase Representations using RNN Encoder-Decoder"; for sessions
    Hidasi et al., 2016, "Session-based Recommendations with Recurrent Neural Networks".
    """

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.norm = nn.LayerNorm(dim)
        self.unit = nn.GRU(dim, dim, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """(b, l, d) -> (b, l, d)."""
        states, _ = self.unit(self.norm(x))
        return x + functional.dropout(states, self.dropout, self.training)


class Body(nn.Module):
    """The blocks, and what becomes of their output."""

    def __init__(self, settings: Model) -> None:
        super().__init__()
        self.dropout = settings.dropout
        self.output = settings.output
        self.blocks = nn.ModuleList(
            Block(settings.dim, settings.heads, settings.dropout)
            if settings.kind == "transformer"
            else Recurrent(settings.dim, settings.dropout)
            for _ in range(settings.blocks)
        )
        self.norm = nn.LayerNorm(settings.dim)
        self.weighing = nn.Linear(settings.dim, 2 * settings.dim)

    def forward(self, x: Tensor, items: Tensor) -> Tensor:
        """Embedded events and items, both (b, l, d) -> what is known after each (b, l, d)."""
        x = functional.dropout(x, self.dropout, self.training)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        if self.output == "state":
            return x
        query, key = self.weighing(x).chunk(2, dim=-1)
        said = functional.scaled_dot_product_attention(
            query[:, None], key[:, None], items[:, None], is_causal=True
        )[:, 0]
        if self.output == "sum":
            own = functional.dropout(x, self.dropout, self.training)
            said = said + own / math.sqrt(x.shape[-1])
        return functional.normalize(said, dim=-1)


class SequenceModel(nn.Module):
    """Scores of the next item after each event of a sequence.

    An item stands for itself plus its category, in and out (the output embedding is tied), so an
    item that is new already lies where its category lies; category 0 stands for none and adds
    nothing. Where scores are cosines only the direction counts: rows grow as they are trained, so
    that old ones turn ever more slowly, and new ones quickly.
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
        self.recurrent = settings.kind == "gru"
        self.item_dropout = settings.item_dropout
        self.cosine = settings.output != "state"
        self.scale = nn.Parameter(torch.tensor([math.log(_SCALE)]))  # log of it
        self.body = Body(settings)
        self.register_buffer("category", torch.zeros(0, dtype=torch.long))  # (items,)
        for name, parameter in self.named_parameters():
            if "norm" not in name and name != "scale":
                spread = 0.0 if "bias" in name else _SPREAD
                nn.init.normal_(parameter, 0.0, spread, generator=generator)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.items.device

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
            self.categories[0] = 0
            self.category = category.clone()

    def renumber(self, items: Renumbering) -> None:
        """Drop the rows of items that are gone."""
        self.items = nn.Parameter(stay(self.items.detach(), items))
        self.category = stay(self.category, items)

    def _embedded(self, own: Tensor, category: Tensor) -> Tensor:
        whole = own + functional.embedding(category, self.categories, padding_idx=0)
        return functional.normalize(whole, dim=-1) if self.cosine else whole

    def _of(self, ids: Tensor) -> Tensor:
        return self._embedded(functional.embedding(ids, self.items), self.category[ids])

    def _scaled(self, rows: Tensor) -> Tensor:
        return rows * self.scale.exp() if self.cosine else rows

    def rows(self, ids: Tensor) -> Tensor:
        """Return the output embeddings of items: (...) -> (..., d)."""
        return self._scaled(self._of(ids))

    def table(self) -> Tensor:
        """Return the output embeddings of all items: (items, d)."""
        return self._scaled(self._embedded(self.items, self.category))

    def states(self, items: Tensor, types: Tensor, gaps: Tensor) -> Tensor:
        """Return what the model knows after each event: (b, l) each -> (b, l, d)."""
        own = functional.dropout(self._of(items), self.item_dropout, self.training)
        x = (
            own * (math.sqrt(own.shape[-1]) if self.cosine else 1.0)
            + functional.embedding(types, self.types)
            + functional.embedding(gaps, self.gaps)
            + self.positions[: items.shape[1]]
        )
        states: Tensor = self.body(x, own)
        return states

    def forward(self, batch: TensorBatch) -> Tensor:
        """Return what the model knows after each event asked about: (targets, d), by row."""
        return self.states(batch.items, batch.types, batch.gaps)[batch.asked]


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


def stay(table: Tensor, items: Renumbering) -> Tensor:
    """Return the rows of a table (items, ...) that stay; it may lack the newest items."""
    return table[torch.from_numpy(items.stays[: len(table)]).to(table.device)]


def _with_rows(old: Tensor, new: Tensor, generator: torch.Generator) -> nn.Parameter:
    noise = torch.empty(new.shape).normal_(0.0, _SPREAD, generator=generator)
    return nn.Parameter(torch.cat([old, new + noise.to(new.device)]))
