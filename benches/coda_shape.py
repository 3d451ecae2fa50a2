"""A model of CoDA-1.7B's shape with random weights, and how long `transformers` takes with it on the CPU.

    python3 benches/coda_shape.py make DIR          4 GB in bf16; a tokenizer.json of Qwen3 belongs beside it
    python3 benches/coda_shape.py time DIR 18 230   seconds to read it, and of one forward of so many tokens, f32

With `torch` and `transformers` installed. `coda-trainer sample --checkpoint DIR --json` is the other side.
"""

import sys
import time

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

OUTPUTS = 8


def make(folder: str) -> None:
    torch.manual_seed(1)
    torch.set_default_dtype(torch.bfloat16)
    config = Qwen3Config(
        vocab_size=151936, hidden_size=2048, intermediate_size=6144, num_hidden_layers=28,
        num_attention_heads=16, num_key_value_heads=8, head_dim=128, rope_theta=1e6,
        max_position_embeddings=40960, tie_word_embeddings=False,
    )  # fmt: skip
    config.mask_token_id = 151669
    Qwen3ForCausalLM(config).save_pretrained(folder, max_shard_size="2GB")


@torch.no_grad()
def measure(folder: str, sizes: list[int]) -> None:
    torch.set_num_threads(2)
    started = time.perf_counter()
    model = Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32)
    print(f"read in {time.perf_counter() - started:.2f} s")
    for size in sizes:
        ids, least = torch.randint(0, 150_000, (1, size)), float("inf")
        for _ in range(4):
            started = time.perf_counter()
            # A mask of zeros looks both ways.
            states = model.model(ids, attention_mask=torch.zeros(1, 1, size, size)).last_hidden_state
            model.lm_head(states[:, :OUTPUTS])
            least = min(least, time.perf_counter() - started)
        print(f"{size} tokens: {least:.2f} s")


if sys.argv[1] == "make":
    make(sys.argv[2])
else:
    measure(sys.argv[2], [int(size) for size in sys.argv[3:]])
