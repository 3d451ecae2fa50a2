"""The twin of src/bin/train_step.rs in eager PyTorch: same shape, same work, same prints."""

import json
import sys
import time

import torch
import torch.nn.functional as F

LAYERS, D, FFN, HEADS, KV, HD, V, B, L = 4, 256, 768, 4, 2, 64, 4096, 8, 256
MASK = V - 1


def rms_norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return F.rms_norm(x, (x.shape[-1],), weight, 1e-6)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-b, a), dim=-1) * sin


class Layer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        linear = lambda i, o: torch.nn.Linear(i, o, bias=False)
        self.n1, self.n2 = (torch.nn.Parameter(torch.ones(D)) for _ in range(2))
        self.qn, self.kn = (torch.nn.Parameter(torch.ones(HD)) for _ in range(2))
        self.q, self.k, self.v = linear(D, HEADS * HD), linear(D, KV * HD), linear(D, KV * HD)
        self.o = linear(HEADS * HD, D)
        self.gate, self.up, self.down = linear(D, FFN), linear(D, FFN), linear(FFN, D)

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        h = rms_norm(x, self.n1)
        q = rms_norm(self.q(h).view(B, L, HEADS, HD), self.qn).transpose(1, 2)
        k = rms_norm(self.k(h).view(B, L, KV, HD), self.kn).transpose(1, 2)
        v = self.v(h).view(B, L, KV, HD).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        k, v = (t.repeat_interleave(HEADS // KV, dim=1) for t in (k, v))
        a = F.scaled_dot_product_attention(q, k, v)
        x = x + self.o(a.transpose(1, 2).reshape(B, L, HEADS * HD))
        h = rms_norm(x, self.n2)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


def main() -> None:
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 12
    torch.set_num_threads(int(sys.argv[2]) if len(sys.argv) > 2 else 2)
    torch.manual_seed(7)
    embedding = torch.nn.Parameter(torch.randn(V, D) * 0.02)
    layers = torch.nn.ModuleList(Layer() for _ in range(LAYERS))
    norm = torch.nn.Parameter(torch.ones(D))
    angles = torch.outer(torch.arange(L).float(), 1e6 ** (-torch.arange(0, HD, 2).float() / HD))
    cos, sin = (f(torch.cat((angles, angles), dim=-1)) for f in (torch.cos, torch.sin))
    parameters = [embedding, norm, *layers.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)
    clean = torch.randint(0, MASK, (B, L))
    noised = torch.where(torch.rand(B, L) < 0.5, MASK, clean)
    scored = (noised == MASK)[:, 1:]
    for step in range(steps):
        wall, cpu = time.perf_counter(), time.process_time()
        optimizer.zero_grad(set_to_none=True)
        x = F.embedding(noised, embedding)
        for layer in layers:
            x = layer(x, cos, sin)
        h = rms_norm(x[:, :-1][scored], norm)
        loss = (F.cross_entropy(h @ embedding.T, clean[:, 1:][scored], reduction="none") / 0.5).sum()
        loss = loss / (B * L)
        loss.backward()
        optimizer.step()
        times = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        print(json.dumps({"step": step, **times, "loss": loss.item()}))


main()
