#!/usr/bin/env python3
"""Trains peer_gpt.py's model in PyTorch on one GPU, as fast as PyTorch can, and prints one JSON line.

bf16 autocast, fused causal attention, fused AdamW, gradient clipping. The host never waits inside the timed steps; with
--kernels a second part of the run sums the time of kernels by PyTorch's profiler. `--device cpu` proves the script alone.

    python3 tests/benchmarks/peer_gpt_gpu.py --layers 12 --d-model 768 --heads 12 --seq 1024 --vocab 50304 --batch 16 \\
        --mode compile
"""

import argparse
import json
import time

import peer_gpt


def options_of():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, value in (("layers", 12), ("d-model", 768), ("heads", 12), ("seq", 1024), ("vocab", 50304),
                        ("batch", 8), ("warmup", 10), ("steps", 50)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--mode", choices=("eager", "compile"), default="eager")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--kernels", action="store_true", help="also sum the time of kernels")
    options = parser.parse_args()
    options.untied = False
    return options


def matrix_tflops(device):
    """The rate of large bf16 products of normal values, queued one behind the other."""
    import torch
    size = 8192 if device == "cuda" else 256
    x, w = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = 0
    for _ in range(6):
        synchronize(device)
        begun = time.perf_counter()
        for _ in range(16):
            y = x @ w
        synchronize(device)
        best = max(best, 16 * 2 * size ** 3 / (time.perf_counter() - begun))
    del x, w, y
    return best / 1e12


def synchronize(device):
    import torch
    if device == "cuda":
        torch.cuda.synchronize()


def main():
    import torch
    options = options_of()
    device = options.device
    rate = matrix_tflops(device)
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    core = peer_gpt.build_model(options).to(device)
    model = torch.compile(core) if options.mode == "compile" else core
    parameters = list(core.parameters())
    optimizer = torch.optim.AdamW(
        [{"params": [p for p in parameters if p.dim() >= 2], "weight_decay": 0.1},
         {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0}],
        lr=3e-4, betas=(0.9, 0.95), fused=True)
    generator = torch.Generator().manual_seed(1)
    batches = [torch.randint(options.vocab, (options.batch, options.seq + 1), generator=generator) for _ in range(8)]
    if device == "cuda":
        batches = [batch.pin_memory() for batch in batches]

    def step(number):
        batch = batches[number % len(batches)].to(device, non_blocking=True)
        with torch.autocast(device, torch.bfloat16):
            loss = model(batch[:, :-1].contiguous(), batch[:, 1:].contiguous())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    def timed(steps):
        synchronize(device)
        begun = time.perf_counter()
        for number in range(steps):
            loss = step(number)
        synchronize(device)
        return time.perf_counter() - begun, loss

    timed(options.warmup)
    seconds, loss = timed(options.steps)
    found = {"device": torch.cuda.get_device_name() if device == "cuda" else "cpu", "mode": options.mode,
             "batch": options.batch, "parameters": sum(p.numel() for p in parameters), "loss": loss.item(),
             "tokens_per_s": options.steps * options.batch * options.seq / seconds,
             "step_ms": 1e3 * seconds / options.steps,
             "peak_bytes": torch.cuda.max_memory_allocated() if device == "cuda" else 0,
             "bf16_matrix_tflops": rate, "torch": torch.__version__}
    if options.kernels and device == "cuda":
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
            timed(options.steps)
        busy = sum(event.self_device_time_total for event in profiler.key_averages())
        found["kernel_ms_per_step"] = busy / 1e3 / options.steps
    print(json.dumps(found))


if __name__ == "__main__":
    main()
