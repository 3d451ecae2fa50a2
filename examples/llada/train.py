"""Trains a small LLaDA on any shard set: a bidirectional transformer that fills in masks."""

import argparse

import torch
from coda_shards import Batches, Llada, ShardSet
from coda_shards.torch import ShardDataset
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional as F

options = argparse.ArgumentParser(description=__doc__)
options.add_argument("shards", help="a folder that `coda-ingest` made")
options.add_argument("--steps", type=int, default=300)
given = options.parse_args()
torch.manual_seed(0)
shards, dim, heads = ShardSet(given.shards), 128, 4
text = Tokenizer.from_file(str(shards.tokenizer))
mask = torch.tensor(shards.specials.mask)
words = max(text.get_vocab_size(), int(mask) + 1)
rope = torch.exp(1j * torch.arange(shards.row_length)[:, None] * 0.01 ** (torch.arange(16) / 16))


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # no causal mask: it sees both ways
        qkv = self.qkv(F.layer_norm(x, [dim])).unflatten(2, (3, heads, 16, 2)).transpose(1, 3)
        turned = torch.view_as_complex(qkv[:, :, :2].contiguous()) * rope
        q, k = torch.view_as_real(turned).flatten(4).unbind(2)
        seen = F.scaled_dot_product_attention(q, k, qkv[:, :, 2].flatten(3)).transpose(1, 2)
        x = x + self.out(seen.flatten(2))
        return x + self.down(F.gelu(self.up(F.layer_norm(x, [dim]))))


model = nn.Sequential(nn.Embedding(words, dim), Layer(), Layer(), nn.Linear(dim, words))
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
dataset = ShardDataset(Batches(shards, seed=17, batch_size=16, held_out=0.02), Llada())
for step, batch in zip(range(given.steps), dataset.loader()):
    nats = F.cross_entropy(model(batch["noised_ids"]).mT, batch["input_ids"], reduction="none")
    (loss := (nats * batch["weight"]).mean()).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    if step % 50 == 0 or step + 1 == given.steps:
        masked = nats[batch["scored"]].mean()
        print(f"step {step}: loss {loss:.3f}, {masked:.3f} nats a masked token")

ids = torch.tensor(shards[-2].tokens[None].astype("int64"))  # held out
ids[:, ids.shape[1] // 2 :][:, :8] = mask
print("text:  ", repr(text.decode(ids[0].tolist(), skip_special_tokens=False)))
while (ids == mask).any():  # the surest token first
    sureness, best = model(ids).softmax(-1).index_fill(-1, mask, 0).max(-1)
    place = torch.where(ids == mask, sureness, -1).argmax()
    ids[0, place] = best[0, place]
print("filled:", repr(text.decode(ids[0].tolist(), skip_special_tokens=False)))
