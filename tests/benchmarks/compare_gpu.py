#!/usr/bin/env python3
"""Compares Weft's training on one GPU with PyTorch's on the same GPU, in one run.

Both train the same GPT-2 style model in bf16 over random tokens, each with the micro-batch of --batches that is fastest for
it; programs take turns, medians are over --repeats. Weft's products go by its fixed rule and, tuned, by algorithms that a
step measured before. PyTorch is eager and compiled, with fused attention, autocast and fused AdamW; where torch cannot be
imported, Weft is measured alone. Prints a table: tokens/s, the part of the machine's measured bf16 matrix rate (causal
attention counted as half), peak memory, and the part of the step in which no kernel ran.

    python3 tests/benchmarks/compare_gpu.py --bench build/release/weft_bench_gpu_training --presets 124m 350m 1.5b

--tiny proves the script itself: a model that is trained in seconds on a CPU, PyTorch on the CPU.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

import measure

HERE = pathlib.Path(__file__).resolve().parent
PRESETS = {
    "124m": {"layers": 12, "d_model": 768, "heads": 12, "seq": 1024, "vocab": 50304, "batches": [8, 16, 32]},
    "350m": {"layers": 24, "d_model": 1024, "heads": 16, "seq": 1024, "vocab": 50304, "batches": [8, 16]},
    "1.5b": {"layers": 48, "d_model": 1600, "heads": 25, "seq": 1024, "vocab": 50304, "batches": [4, 8]},
    "tiny": {"layers": 1, "d_model": 16, "heads": 2, "seq": 12, "vocab": 64, "batches": [2, 4]},
}


def options_of():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bench", type=pathlib.Path, default=HERE.parents[1] / "build/release/weft_bench_gpu_training")
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=["124m", "350m", "1.5b"])
    parser.add_argument("--batches", nargs="+", type=int, help="micro-batches to try; default: the preset's")
    parser.add_argument("--modes", nargs="*", choices=("eager", "compile"), default=["eager", "compile"])
    parser.add_argument("--warmup", type=int, default=10)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--python", default=sys.executable, help="an interpreter that may have torch")
    parser.add_argument("--seconds", type=float, default=1e9, help="start no program after this long")
    parser.add_argument("--tiny", action="store_true", help="prove the script on a machine without a GPU")
    parser.add_argument("--json", type=pathlib.Path, help="write everything measured to this file")
    options = parser.parse_args()
    if options.tiny:
        options.presets, options.warmup, options.steps, options.repeats = ["tiny"], 3, 3, 1
    if not options.bench.exists():
        parser.error(f"--bench: {options.bench} does not exist; build weft_bench_gpu_training first")
    options.end = time.monotonic() + options.seconds
    return options


class OutOfTime(Exception):
    pass


def run(options, command):
    """The last line of a program's output, as JSON; None if it fails, with its reason on stderr."""
    left = options.end - time.monotonic()
    if left <= 0:
        raise OutOfTime
    try:
        done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=min(left, 3600))
    except subprocess.TimeoutExpired:
        raise OutOfTime from None
    if done.returncode != 0:
        last = (done.stderr.strip() or f"status {done.returncode}").splitlines()[-1]
        print(f"compare_gpu: {' '.join(map(str, command))}: {last}", file=sys.stderr)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


class Weft:
    def __init__(self, options, shape, tuned=False):
        self.options, self.shape, self.tuned = options, shape, tuned
        self.name = "Weft, tuned" if tuned else "Weft"

    def run(self, batch, kernels=False):
        s, o = self.shape, self.options
        return run(o, [o.bench, s["layers"], s["d_model"], s["heads"], s["seq"], s["vocab"], batch, batch, "bf16",
                       o.warmup, o.steps] + (["tuned"] if self.tuned else []) + (["kernels"] if kernels else []))


class PyTorch:
    def __init__(self, options, shape, mode):
        self.options, self.shape, self.mode = options, shape, mode
        self.name = f"PyTorch, {mode}"

    def run(self, batch, kernels=False):
        s, o = self.shape, self.options
        command = [o.python, HERE / "peer_gpt_gpu.py", "--mode", self.mode, "--batch", batch, "--warmup", o.warmup,
                   "--steps", o.steps, "--device", "cpu" if o.tiny else "cuda"]
        for name in ("layers", "d_model", "heads", "seq", "vocab"):
            command += [f"--{name.replace('_', '-')}", s[name]]
        return run(o, command + (["--kernels"] if kernels else []))


def has_torch(options):
    return subprocess.run([options.python, "-c", "import torch"], stderr=subprocess.DEVNULL).returncode == 0


def best_batch(program, batches):
    """The fastest of the micro-batches that fit; None if none does."""
    found = {}
    for batch in batches:
        if (result := program.run(batch)) is not None:
            found[batch] = result["tokens_per_s"]
    return max(found, key=found.get) if found else None


def measure_preset(options, preset):
    shape = PRESETS[preset]
    programs = [Weft(options, shape), Weft(options, shape, tuned=True)]
    if has_torch(options):
        programs += [PyTorch(options, shape, mode) for mode in options.modes]
    else:
        print("compare_gpu: torch cannot be imported; Weft is measured alone", file=sys.stderr)
    runs = {}
    try:
        tried = options.batches or shape["batches"]
        batches = {program.name: best_batch(program, tried) for program in programs if program.name != "Weft, tuned"}
        batches["Weft, tuned"] = batches["Weft"]
        runs = {program.name: [] for program in programs if batches[program.name] is not None}
        measured = [program for program in programs if program.name in runs]
        for repeat in range(options.repeats):
            for program in measured if repeat % 2 == 0 else measured[::-1]:
                if (result := program.run(batches[program.name])) is not None:
                    runs[program.name].append(result)
        for program in measured:
            counted = program.run(batches[program.name], kernels=True)
            if counted and "kernel_ms_per_step" in counted:
                for result in runs[program.name]:
                    result["kernel_ms_per_step"] = counted["kernel_ms_per_step"]
    except OutOfTime:
        print(f"compare_gpu: {preset}: out of time", file=sys.stderr)
    return {name: results for name, results in runs.items() if results}


def median(results, key):
    return statistics.median(statistics.median(r[key]) if isinstance(r[key], list) else r[key] for r in results)


def table(preset, runs):
    shape = PRESETS[preset]
    flops = measure.matmul_flops_per_step({**shape, "batch": 1}) / shape["seq"]
    rate = max(r["bf16_matrix_tflops"] for results in runs.values() for r in results)
    weft = median(runs["Weft"], "tokens_per_s") if "Weft" in runs else None
    lines = [f"### GPT-2 {preset}: sequence {shape['seq']}, bf16, {flops / 1e9:.2f} GFLOP a token, matrix rate "
             f"{rate:.3g} TFLOP/s", "",
             "| program | micro-batch | tokens/s | Weft over it | of the matrix rate | peak memory, GiB | idle |",
             "|---|---|---|---|---|---|---|"]
    for name, results in runs.items():
        speed = median(results, "tokens_per_s")
        idle = "not measured"
        if "kernel_ms_per_step" in results[0]:
            idle = f"{100 * (1 - median(results, 'kernel_ms_per_step') / median(results, 'step_ms')):.1f}%"
        ratio = f"{weft / speed:.2f}" if weft else "-"
        lines.append(f"| {name} | {results[0]['batch']} | {speed:.0f} | {ratio} | {100 * flops * speed / rate / 1e12:.1f}% "
                     f"| {median(results, 'peak_bytes') / 2**30:.2f} | {idle} |")
    return "\n".join(lines) + "\n"


def main():
    options = options_of()
    report, status = {}, 0
    for preset in options.presets:
        runs = measure_preset(options, preset)
        report[preset] = runs
        if "Weft" not in runs:
            print(f"compare_gpu: {preset}: Weft was not measured", file=sys.stderr)
            status = 1
        if runs:
            print(table(preset, runs), flush=True)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
