"""The twin of src/bin/train_step.rs in eager PyTorch: same shape, same work, same prints."""

import json
import sys
import time

import torch
import torch.nn.functional as F


def argument(at: int, default: int) -> int:
    return int(sys.argv[at]) if len(sys.argv) > at else default


STEPS, THREADS, D, L = argument(1, 12), argument(2, 2), argument(3, 256), argument(4, 256)
TIED = len(sys.argv) <= 5 or sys.argv[5] == "tied"
LAYERS, HD, V = 4, 64, 4096
FFN, HEADS, KV, B = 3 * D, D // HD, D // HD // 2, max(1, 2048 // L)
MASK = V - 1


def rms_norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return F.rms_norm(x, (x.shape[-1],), weight, 1e-6)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-b, a), dim=-1) * sin


def rotary(length: int) -> list[torch.Tensor]:
    angles = torch.outer(torch.arange(length).float(), 1e6 ** (-torch.arange(0, HD, 2).float() / HD))
    return [f(torch.cat((angles, angles), dim=-1)) for f in (torch.cos, torch.sin)]


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
        rows, length, _ = x.shape
        h = rms_norm(x, self.n1)
        q = rms_norm(self.q(h).view(rows, length, HEADS, HD), self.qn).transpose(1, 2)
        k = rms_norm(self.k(h).view(rows, length, KV, HD), self.kn).transpose(1, 2)
        v = self.v(h).view(rows, length, KV, HD).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        k, v = (t.repeat_interleave(HEADS // KV, dim=1) for t in (k, v))
        a = F.scaled_dot_product_attention(q, k, v)
        x = x + self.o(a.transpose(1, 2).reshape(rows, length, HEADS * HD))
        h = rms_norm(x, self.n2)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


def main() -> None:
    torch.set_num_threads(THREADS)
    torch.manual_seed(7)
    embedding = torch.nn.Parameter(torch.randn(V, D) * 0.02)
    head = embedding if TIED else torch.nn.Parameter(torch.randn(V, D) * 0.02)
    layers = torch.nn.ModuleList(Layer() for _ in range(LAYERS))
    norm = torch.nn.Parameter(torch.ones(D))
    cos, sin = rotary(L)
    own_head = [] if TIED else [head]
    parameters = [embedding, norm, *own_head, *layers.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)
    clean = torch.randint(0, MASK, (B, L))
    noised = torch.where(torch.rand(B, L) < 0.5, MASK, clean)
    scored = (noised == MASK)[:, 1:]
    for step in range(STEPS):
        wall, cpu = time.perf_counter(), time.process_time()
        optimizer.zero_grad(set_to_none=True)
        x = F.embedding(noised, embedding)
        for layer in layers:
            x = layer(x, cos, sin)
        h = rms_norm(x[:, :-1][scored], norm)
        loss = (F.cross_entropy(h @ head.T, clean[:, 1:][scored], reduction="none") / 0.5).sum()
        loss = loss / (B * L)
        loss.backward()
        optimizer.step()
        times = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        print(json.dumps({"step": step, **times, "loss": loss.item()}))


if __name__ == "__main__":
    main()
