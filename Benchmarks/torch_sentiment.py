"""The two models of Examples/sentiment.py in PyTorch, trained the same way.

The same data, batches, initial values, optimiser, schedule and places of dropout; batches are padded to their longest review,
since torch has no packed attention on the CPU.
"""

from __future__ import annotations

import math

import numpy as np
import sentiment
import torch
from torch import Tensor, nn
from torch.nn import functional as F

HEAD_DIM = sentiment.WIDTH // sentiment.HEADS


class Attention(nn.Module):
    """Multi-head self-attention without biases; with rotary positions, and an output projection, on request."""

    def __init__(self, dropout: float, rotary: bool, projects: bool) -> None:
        super().__init__()
        self.dropout = dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * sentiment.WIDTH, sentiment.WIDTH))
        self.out_proj = nn.Linear(sentiment.WIDTH, sentiment.WIDTH, bias=False) if projects else nn.Identity()
        angles = torch.arange(sentiment.LENGTH)[:, None] * 10000.0 ** (-torch.arange(0, HEAD_DIM, 2) / HEAD_DIM)
        self.rotation = (angles.cos(), angles.sin()) if rotary else None

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        batch, length, _ = x.shape
        heads = F.linear(x, self.in_proj_weight).view(batch, length, 3, sentiment.HEADS, HEAD_DIM).permute(2, 0, 3, 1, 4)
        q, k, v = heads
        if self.rotation is not None:
            q, k = self._turn(q), self._turn(k)
        out = F.scaled_dot_product_attention(q, k, v, mask[:, None, None], self.dropout if self.training else 0.0)
        return self.out_proj(out.transpose(1, 2).reshape(batch, length, -1))

    def _turn(self, x: Tensor) -> Tensor:
        cos, sin = (table[: x.shape[2]] for table in self.rotation)
        a, b = x.chunk(2, -1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class Layer(nn.Module):
    """Pre-norm attention and a gated feed-forward part, each with a residual."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        width, inner = sentiment.WIDTH, sentiment.INNER
        self.dropout = nn.Dropout(dropout)
        self.self_attn = Attention(dropout, rotary=True, projects=True)
        self.linear1, self.linear_gate = (nn.Linear(width, inner, bias=False) for _ in range(2))
        self.linear2 = nn.Linear(inner, width, bias=False)
        self.norm1, self.norm2 = (nn.RMSNorm(width, eps=1e-5) for _ in range(2))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.dropout(self.self_attn(self.norm1(x), mask))
        normed = self.norm2(x)
        inside = self.dropout(F.silu(self.linear_gate(normed)) * self.linear1(normed))
        return x + self.dropout(self.linear2(inside))


class AttentionAlone(nn.Module):
    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.self_attn = Attention(dropout, rotary=False, projects=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.self_attn(x, mask)


class Classifier(nn.Module):
    """Its parameters have the names of swiftattn's TokenModel."""

    def __init__(self, kind: str, state: dict[str, np.ndarray]) -> None:
        super().__init__()
        dropout = sentiment.SETTINGS[kind]["dropout"]
        self.embedding = nn.Embedding(*state["embedding.weight"].shape)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList([AttentionAlone(dropout) if kind == "plain" else Layer(dropout)])
        self.norm = nn.Identity() if kind == "plain" else nn.RMSNorm(sentiment.WIDTH, eps=1e-5)
        self.head = nn.Linear(sentiment.WIDTH, 2)
        self.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.norm(self.layers[0](self.dropout(self.embedding(ids)), mask))
        return self.head((x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))


class Twin:
    """A training in PyTorch; `state` holds the initial values."""

    def __init__(self, kind: str, state: dict[str, np.ndarray], steps: int) -> None:
        rule = sentiment.rule(kind, steps)
        self.model = Classifier(kind, state)
        self.clip_norm = rule["clip_norm"]
        self.optimizer = torch.optim.AdamW(self.model.parameters(), rule["lr"], weight_decay=rule["weight_decay"], fused=True)
        warmup = rule["warmup"]

        def factor(done: int) -> float:
            number = done + 1
            if number <= warmup:
                return number / warmup
            return (1 + math.cos(math.pi * (number - warmup) / (steps - warmup))) / 2

        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, factor)

    def step(self, ids: np.ndarray, starts: np.ndarray, labels: np.ndarray) -> None:
        self.model.train()
        loss = F.cross_entropy(self.model(*padded(ids, starts)), torch.from_numpy(labels))
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        self.optimizer.step()
        self.schedule.step()

    @torch.inference_mode()
    def accuracy(self, data: sentiment.Packed) -> float:
        self.model.eval()
        right = 0
        for ids, starts, labels in data.batches(np.arange(len(data.labels))):
            right += int((self.model(*padded(ids, starts)).argmax(-1).numpy() == labels).sum())
        return right / len(data.labels)


def padded(ids: np.ndarray, starts: np.ndarray) -> tuple[Tensor, Tensor]:
    """Packed ids as (B, longest), and where they are."""
    lengths = np.diff(starts)
    mask = np.arange(lengths.max()) < lengths[:, None]
    padded = np.zeros(mask.shape, np.int64)
    padded[mask] = ids
    return torch.from_numpy(padded), torch.from_numpy(mask)
