#!/usr/bin/env python3
"""Training steps of recurrent layers beside PyTorch's, in turn on the same threads.

    python3 tests/benchmarks/recurrent.py                     # LSTM and GRU: 512 wide, batch 32, 256 steps; 1024, 8, 1024
    python3 tests/benchmarks/recurrent.py --cells lstm --shapes 32x256x512 --dtypes f32 --repeats 5

A step is forward and backward to the weights and to the input, with weights that changed since the step before. PyTorch is
torch.nn's layer; in bf16 the faster of a bf16 layer and of autocast. With one thread processor time is taken, which other
programs on the machine disturb little. Needs torch.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


def options_of():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--program", type=pathlib.Path,
                        default=ROOT / "build/release/tests/benchmarks/weft_bench_recurrent")
    parser.add_argument("--cells", nargs="+", default=["lstm", "gru"], choices=["elman", "lstm", "gru"])
    parser.add_argument("--shapes", nargs="+", default=["32x256x512", "8x1024x1024"], help="BATCHxSTEPSxHIDDEN")
    parser.add_argument("--dtypes", nargs="+", default=["f32", "bf16"], choices=["f32", "bf16"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--peer-most-seconds", type=float, default=30,
                        help="a PyTorch step that takes longer is not repeated")
    parser.add_argument("--json", type=pathlib.Path, help="write all times there")
    return parser.parse_args()


class Weft:
    def __init__(self, options, cell, dtype, shape):
        command = [options.program, cell, dtype, *shape, options.threads]
        self.process = subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, what):
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"weft_bench_recurrent ended with status {self.process.wait()}")
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class PyTorch:
    def __init__(self, torch, cell, shape, dtype, autocast, clock):
        batch, steps, hidden = shape
        self.clock = clock
        kind = {"elman": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell]
        self.torch, self.autocast = torch, autocast
        stored = torch.bfloat16 if dtype == "bf16" and not autocast else torch.float32
        self.layer = kind(hidden, hidden, batch_first=True).to(stored)
        self.x = torch.randn(batch, steps, hidden).to(stored).requires_grad_()
        self.dy = torch.randn(batch, steps, hidden).to(stored)

    def step(self):
        self.layer.zero_grad(set_to_none=True)
        self.x.grad = None
        begin = self.clock()
        with self.torch.autocast("cpu", dtype=self.torch.bfloat16, enabled=self.autocast):
            y = self.layer(self.x)[0]
        y.backward(self.dy.to(y.dtype))
        return 1e3 * (self.clock() - begin)


def spread(values, digits=2):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def measure(options, torch, cell, dtype, shape):
    weft = Weft(options, cell, dtype, shape)
    clock = time.process_time if options.threads == 1 else time.perf_counter
    peers = {"layer": PyTorch(torch, cell, shape, dtype, False, clock)}
    if dtype == "bf16":
        peers["autocast"] = PyTorch(torch, cell, shape, dtype, True, clock)
    weft.ask("step")
    warm = {}
    for name, peer in list(peers.items()):
        try:
            warm[name] = peer.step()
        except RuntimeError as error:  # oneDNN has no bf16 layer for processors without AVX-512
            print(f"PyTorch's {cell} {name} in {dtype}: {str(error).splitlines()[0]}", file=sys.stderr)
            del peers[name]
    if not peers:
        weft.close()
        return None
    times = {name: [] for name in ["weft", *peers]}
    slow = {name for name, ms in warm.items() if ms > 1e3 * options.peer_most_seconds}
    for _ in range(options.repeats):
        times["weft"].append(weft.ask("step")["step_ms"])
        for name, peer in peers.items():
            times[name].append(warm[name] if name in slow else peer.step())
    parts = [weft.ask("parts") for _ in range(options.repeats)]
    weft.close()
    best = min(peers, key=lambda name: statistics.median(times[name]))
    ratios = [p / w for p, w in zip(times[best], times["weft"])]
    of_limit = {way: [p[f"{way}_limit_ms"] / p[f"{way}_ms"] for p in parts] for way in ("forward", "backward")}
    print(f"| {cell} | {'x'.join(map(str, shape))} | {dtype} | {spread(times['weft'], 0)} | {spread(times[best], 0)} "
          f"({best}) | {spread(ratios)} | {spread(of_limit['forward'])} | {spread(of_limit['backward'])} |", flush=True)
    return {"cell": cell, "shape": shape, "dtype": dtype, "step_ms": times, "parts": parts}


def main():
    options = options_of()
    try:
        import torch
    except ImportError:
        print("recurrent.py: this Python has no torch; run it with one that has", file=sys.stderr)
        return 2
    torch.set_num_threads(options.threads)
    print(f"PyTorch {torch.__version__}, {options.threads} threads, medians of {options.repeats} steps in turn\n")
    print("| layer | batch x steps x units | dtype | Weft, ms a step | PyTorch, ms a step | PyTorch / Weft "
          "| forward steps of their limit | backward steps of theirs |\n|---|---|---|---|---|---|---|---|")
    rows = [measure(options, torch, cell, dtype, tuple(map(int, shape.split("x"))))
            for dtype in options.dtypes for cell in options.cells for shape in options.shapes]
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
