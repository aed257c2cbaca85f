#!/usr/bin/env python3
"""The model of bench_step in PyTorch, as one who knows PyTorch would train it: fused attention,
fused AdamW, autocast over f32 weights for bf16, clipping by global norm, eager or compiled.
Prints one line of JSON. tests/bench/peer runs it beside bench_step.

  pytorch_llama.py --dtype bf16 --compile
  pytorch_llama.py --save-weights w.safetensors --save-batch b.npy --steps 0 --warmup 0
"""
import argparse
import json
import os
import resource
import statistics
import time

import torch
from torch import nn
from torch.nn import functional

SIZES = {
    "layers": 12, "dim": 512, "heads": 8, "kv_heads": 4, "ffn": 1408, "vocab": 8192, "seq": 512,
    "micro_batch": 8, "accumulate": 1,
}
NORM_EPSILON = 1e-5


class SelfAttention(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.head_dim = size.dim // size.heads
        width = size.kv_heads * self.head_dim
        self.grouped = size.heads != size.kv_heads
        self.q_proj = nn.Linear(size.dim, size.dim, bias=False)
        self.k_proj = nn.Linear(size.dim, width, bias=False)
        self.v_proj = nn.Linear(size.dim, width, bias=False)
        self.o_proj = nn.Linear(size.dim, size.dim, bias=False)

    def heads_of(self, projection, x):
        return projection(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def forward(self, x, turn):
        q, k = (turn(self.heads_of(p, x)) for p in (self.q_proj, self.k_proj))
        v = self.heads_of(self.v_proj, x)
        mixed = functional.scaled_dot_product_attention(
            q, k, v, is_causal=True, enable_gqa=self.grouped)
        return self.o_proj(mixed.transpose(1, 2).flatten(-2))


class DecoderBlock(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.input_layernorm = nn.RMSNorm(size.dim, eps=NORM_EPSILON)
        self.self_attn = SelfAttention(size)
        self.post_attention_layernorm = nn.RMSNorm(size.dim, eps=NORM_EPSILON)
        self.gate_proj = nn.Linear(size.dim, size.ffn, bias=False)
        self.up_proj = nn.Linear(size.dim, size.ffn, bias=False)
        self.down_proj = nn.Linear(size.ffn, size.dim, bias=False)

    def forward(self, x, turn):
        x = x + self.self_attn(self.input_layernorm(x), turn)
        y = self.post_attention_layernorm(x)
        return x + self.down_proj(functional.silu(self.gate_proj(y)) * self.up_proj(y))


class Decoder(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.embed_tokens = nn.Embedding(size.vocab, size.dim)
        self.layers = nn.ModuleList([DecoderBlock(size) for _ in range(size.layers)])
        self.norm = nn.RMSNorm(size.dim, eps=NORM_EPSILON)
        self.lm_head = nn.Linear(size.dim, size.vocab, bias=False)
        half = size.dim // size.heads // 2
        # In double, as ours: f32 angles of the last positions are off by 1e-5.
        frequency = 10000.0 ** -(torch.arange(half, dtype=torch.float64) / half)
        angle = torch.arange(size.seq, dtype=torch.float64)[:, None] * frequency
        self.register_buffer("cosine", angle.cos().float(), persistent=False)
        self.register_buffer("sine", angle.sin().float(), persistent=False)
        deep = 0.02 / (2 * size.layers) ** 0.5
        for name, weight in self.named_parameters():
            if weight.dim() > 1:
                into_stream = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(weight, std=deep if into_stream else 0.02)

    def turn(self, x):
        first, second = x.chunk(2, dim=-1)
        cosine, sine = self.cosine, self.sine
        turned = (first * cosine - second * sine, second * cosine + first * sine)
        return torch.cat(turned, dim=-1).to(x.dtype)

    def forward(self, tokens, labels):
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x, self.turn)
        logits = self.lm_head(self.norm(x)).float()
        return functional.cross_entropy(logits.flatten(0, 1), labels.flatten())


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    counts = dict(SIZES, steps=6, warmup=2, threads=os.cpu_count(), seed=0)
    for name, value in counts.items():
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=value)
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--exact-norms", action="store_true",
                        help="sum the norm's squares in double; slower, for comparing numbers")
    parser.add_argument("--save-weights", metavar="FILE", help="safetensors, before the first step")
    parser.add_argument("--save-batch", metavar="FILE", help=".npy, int32")
    return parser.parse_args()


class Trainer:
    def __init__(self, a):
        self.model = Decoder(a)
        self.batch = torch.randint(0, a.vocab, (a.accumulate, a.micro_batch, a.seq + 1))
        matrices = [p for p in self.model.parameters() if p.dim() > 1]
        gains = [p for p in self.model.parameters() if p.dim() == 1]
        groups = [{"params": matrices, "weight_decay": 0.1}, {"params": gains, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=3e-4, betas=(0.9, 0.95), eps=1e-8, fused=True)
        self.loss_of = torch.compile(self.model) if a.compile else self.model
        self.narrow = a.dtype == "bf16"
        self.exact_norms = a.exact_norms

    def step(self):
        total = 0.0
        for rows in self.batch:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.narrow):
                loss = self.loss_of(rows[:, :-1], rows[:, 1:]) / len(self.batch)
            loss.backward()
            total += loss.item()
        squares = [p.grad.double().square().sum() for p in self.model.parameters()
                   if self.exact_norms]
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return total, sum(squares).sqrt().item() if squares else norm.item()


def main():
    a = arguments()
    torch.manual_seed(a.seed)
    torch.set_num_threads(a.threads)
    torch.set_float32_matmul_precision("high")
    trainer = Trainer(a)
    if a.save_weights:
        from safetensors.torch import save_file
        save_file(trainer.model.state_dict(), a.save_weights)
    if a.save_batch:
        import numpy
        numpy.save(a.save_batch, trainer.batch.numpy().astype("int32"))
    losses, norms, seconds, processor = [], [], [], []
    for _ in range(a.warmup + a.steps):
        processor.append(time.process_time())
        start = time.perf_counter()
        loss, norm = trainer.step()
        seconds.append(time.perf_counter() - start)
        losses.append(loss)
        norms.append(norm)
    processor.append(time.process_time())
    if not a.steps:
        return
    tokens = a.accumulate * a.micro_batch * a.seq
    sizes = {name: p.numel() for name, p in trainer.model.named_parameters()}
    multiplying = sum(sizes.values()) - sizes["embed_tokens.weight"]
    # Six per weight and token, forward and backward; causal attention counts half.
    flop = tokens * 6 * (multiplying + a.layers * a.seq * a.dim)
    median = statistics.median_high(seconds[a.warmup:])
    print(json.dumps({
        "peer": "torch " + torch.__version__, "mode": "compile" if a.compile else "eager",
        "dtype": a.dtype, "parameters": sum(sizes.values()), "tokens_per_step": tokens,
        "step_seconds_median": median, "step_seconds_min": min(seconds[a.warmup:]),
        "tokens_per_second": tokens / median, "gflops": flop / median / 1e9,
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "processor_seconds": (processor[-1] - processor[a.warmup]) / a.steps,
        "first_step_seconds": seconds[0], "losses": losses, "norms": norms}))


if __name__ == "__main__":
    main()
