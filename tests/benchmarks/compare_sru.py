#!/usr/bin/env python3
"""Times training steps of a stack of SRU layers beside the public `sru` package on the CPU, in turns in one run.

Needs Python 3 with torch and sru, and the program that `ninja weft_bench_sru_step` builds.

    python3 tests/benchmarks/compare_sru.py build/release/tests/benchmarks/weft_bench_sru_step [--width 512 --batch 8 ...]

A step is forward and backward through all layers, gradients of parameters and input, no embedding, loss or optimizer. Rates
are given as ratios of medians; both sides use the same number of threads.
"""

import argparse
import statistics
import subprocess
import time
import warnings

import torch
from sru import SRU


class Weft:
    def __init__(self, program, arguments, dtype):
        self.process = subprocess.Popen(
            [program, *map(str, (arguments.width, arguments.batch, arguments.length, arguments.layers)), dtype,
             str(arguments.threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def milliseconds(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Package:
    def __init__(self, arguments):
        self.model = SRU(arguments.width, arguments.width, num_layers=arguments.layers)
        self.x = torch.full((arguments.length, arguments.batch, arguments.width), 0.5, requires_grad=True)
        self.dy = torch.full_like(self.x, 0.1)

    def milliseconds(self):
        begin = time.perf_counter()
        self.model(self.x)[0].backward(self.dy)
        taken = 1e3 * (time.perf_counter() - begin)
        self.model.zero_grad()
        return taken


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    for name, value in (("width", 512), ("batch", 8), ("length", 256), ("layers", 2), ("threads", 2), ("rounds", 5)):
        parser.add_argument("--" + name, type=int, default=value)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(arguments.threads)
    sides = {"package": Package(arguments), "f32": Weft(arguments.program, arguments, "f32"),
             "bf16": Weft(arguments.program, arguments, "bf16")}
    times = {name: [] for name in sides}
    sides["package"].milliseconds()
    for _ in range(arguments.rounds):
        for name, side in sides.items():
            times[name].append(side.milliseconds())
    medians = {name: statistics.median(each) for name, each in times.items()}
    for name in ("f32", "bf16"):
        sides[name].close()
        print(f"{name}: {medians[name]:.1f} ms, package {medians['package']:.1f} ms: "
              f"{medians['package'] / medians[name]:.2f} times as fast")


if __name__ == "__main__":
    main()
