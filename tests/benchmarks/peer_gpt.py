#!/usr/bin/env python3
"""Trains a GPT-2 style model in PyTorch on the CPU, as fast as PyTorch can, and prints one JSON line.

Needs Python 3 with torch. Pre-norm blocks, learned positions, GELU (tanh), biases, no dropout, fused causal
attention, fused AdamW, gradient clipping; bf16 is autocast. With --ranks N it is data parallel through
DistributedDataParallel over gloo, one process a rank, --threads each; --batch stays the global batch.

    python3 tests/benchmarks/peer_gpt.py --layers 6 --d-model 384 --heads 6 --seq 256 --batch 16 --vocab 256 \\
        --dtype bf16 --mode compile --ranks 1 --threads 2

Memory is the highest sum of the ranks' proportional set sizes over the steps that follow the timed ones.
"""

import argparse
import json
import os
import pathlib
import socket
import statistics
import sys
import tempfile
import time

import measure


def options_of(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, value in (("layers", 6), ("d-model", 384), ("heads", 6), ("seq", 256), ("batch", 16), ("vocab", 256),
                        ("ranks", 1), ("threads", 2), ("steps", 20), ("warmup", 5), ("memory-steps", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--dtype", choices=("bf16", "f32"), default="bf16")
    parser.add_argument("--mode", choices=("eager", "compile"), default="eager")
    parser.add_argument("--malloc", choices=("default", "keep"), default="keep",
                        help="keep: the C library keeps freed memory (faster; more memory); default: as it comes")
    parser.add_argument("--untied", action="store_true", help="give the head a matrix of its own")
    parser.add_argument("--out", type=pathlib.Path, help="folder for metrics.jsonl; a temporary one if not given")
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.batch % options.ranks:
        parser.error(f"--batch {options.batch} is not a multiple of --ranks {options.ranks}")
    return options


def keep_freed_memory():
    """Without this, glibc maps and unmaps every large activation, and each step pays for its page faults again."""
    import ctypes
    trim_threshold, mmap_threshold = -1, -3
    libc = ctypes.CDLL(None)
    libc.mallopt(mmap_threshold, 1 << 30)
    libc.mallopt(trim_threshold, (1 << 31) - 1)


def build_model(options):
    import torch
    import torch.nn.functional as F
    from torch import nn

    D, H = options.d_model, options.heads

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(D), nn.LayerNorm(D)
            self.qkv, self.out = nn.Linear(D, 3 * D), nn.Linear(D, D)
            self.up, self.down = nn.Linear(D, 4 * D), nn.Linear(4 * D, D)

        def forward(self, x_BTD):
            B, T, _ = x_BTD.shape
            q, k, v = (part.view(B, T, H, D // H).transpose(1, 2)
                       for part in self.qkv(self.norm1(x_BTD)).split(D, dim=2))
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x_BTD = x_BTD + self.out(mixed.transpose(1, 2).reshape(B, T, D))
            return x_BTD + self.down(F.gelu(self.up(self.norm2(x_BTD)), approximate="tanh"))

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.positions = nn.Embedding(options.vocab, D), nn.Embedding(options.seq, D)
            self.blocks = nn.ModuleList(Block() for _ in range(options.layers))
            self.norm = nn.LayerNorm(D)
            self.head = nn.Linear(D, options.vocab, bias=False)
            if not options.untied:
                self.head.weight = self.tokens.weight
            for name, p in self.named_parameters():
                if p.dim() >= 2:
                    nn.init.normal_(p, std=0.02)
                elif name.endswith("bias"):
                    nn.init.zeros_(p)

        def forward(self, tokens_BT, targets_BT):
            x_BTD = self.tokens(tokens_BT) + self.positions.weight
            for block in self.blocks:
                x_BTD = block(x_BTD)
            logits = self.head(self.norm(x_BTD))
            return F.cross_entropy(logits.flatten(0, 1), targets_BT.flatten())

    torch.manual_seed(0)
    return Model()


def train(options):
    """One rank."""
    if options.malloc == "keep":
        keep_freed_memory()
    import torch
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    at_import = measure.memory_of(os.getpid())
    if options.ranks > 1:
        # A rank's threads stay on its own cores.
        cores = sorted(os.sched_getaffinity(0))
        own = cores[options.rank * options.threads:(options.rank + 1) * options.threads]
        if len(own) == options.threads:
            os.sched_setaffinity(0, own)
        torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{options.port}",
                                             rank=options.rank, world_size=options.ranks)
    core = build_model(options)
    model = torch.compile(core) if options.mode == "compile" else core
    if options.ranks > 1:
        model = torch.nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True, static_graph=True)
    parameters = list(core.parameters())
    optimizer = torch.optim.AdamW(
        [{"params": [p for p in parameters if p.dim() >= 2], "weight_decay": 0.1},
         {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0}],
        lr=3e-4, betas=(0.9, 0.95), fused=True)

    local = options.batch // options.ranks
    generator = torch.Generator().manual_seed(1 + (options.rank or 0))
    batches = [torch.randint(options.vocab, (local, options.seq + 1), generator=generator) for _ in range(8)]
    plan = measure.Plan(options.warmup, options.steps, options.memory_steps)
    metrics = open(options.out / "metrics.jsonl", "w") if (options.rank or 0) == 0 else None
    tokens = options.batch * options.seq
    for step in range(plan.total):
        begun = time.perf_counter()
        batch = batches[step % len(batches)]
        inputs, targets = batch[:, :-1].contiguous(), batch[:, 1:].contiguous()
        with torch.autocast("cpu", torch.bfloat16, enabled=options.dtype == "bf16"):
            loss = model(inputs, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        value = loss.item()
        seconds = time.perf_counter() - begun
        if metrics:
            row = {"step": step + 1, "loss": value, "step_ms": seconds * 1e3, "tokens_per_s": tokens / seconds,
                   "import_pss_bytes": at_import.pss_bytes, "parameters": sum(p.numel() for p in parameters),
                   "torch": torch.__version__}
            metrics.write(json.dumps(row) + "\n")
            metrics.flush()
    if options.ranks > 1:
        torch.distributed.destroy_process_group()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def spawn(options):
    """The root of the measured processes: starts the ranks and waits."""
    import subprocess
    port = free_port()
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads), "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    ranks = [subprocess.Popen([sys.executable, __file__, *sys.argv[1:], "--rank", str(rank), "--port", str(port)],
                              env=environment) for rank in range(options.ranks)]
    status = 0
    for rank in ranks:
        status = rank.wait() or status
    return status


def measure_peer(options):
    shape = {"layers": options.layers, "d_model": options.d_model, "heads": options.heads, "seq": options.seq,
             "batch": options.batch, "vocab": options.vocab}
    with tempfile.TemporaryDirectory() as temporary:
        out = options.out or pathlib.Path(temporary)
        plan = measure.Plan(options.warmup, options.steps, options.memory_steps)
        environment = {**os.environ, "WEFT_PEER_ROLE": "root"}
        command = [sys.executable, __file__, *sys.argv[1:], "--out", str(out)]
        result = measure.run(command, out / "metrics.jsonl", plan, environment, skip_root=True)
    flops = measure.matmul_flops_per_step(shape)
    return {**shape, "dtype": options.dtype, "mode": options.mode, "malloc": options.malloc, "ranks": options.ranks,
            "threads": options.threads, "tokens_per_s": result.tokens_per_s,
            "tflops": flops * result.tokens_per_s / (options.batch * options.seq) / 1e12,
            "step_ms_median": statistics.median(result.step_ms), "step_ms": result.step_ms,
            "peak_pss_bytes": result.memory.pss_bytes, "peak_anonymous_bytes": result.memory.anonymous_bytes,
            "import_pss_bytes": result.last_row["import_pss_bytes"], "parameters": result.last_row["parameters"],
            "torch": result.last_row["torch"]}


def main():
    options = options_of()
    if options.rank is not None:
        train(options)
        return 0
    if os.environ.get("WEFT_PEER_ROLE") == "root":
        return spawn(options)
    print(json.dumps(measure_peer(options)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
