#!/usr/bin/env python3
"""Compares Weft's training speed and memory with PyTorch's and llm.c's on this machine's CPU.

All programs train the same model in one run, in turn, and the order is reversed in every other repeat, so that a
machine whose speed drifts is unfair to none of them. Results are medians over the repeats; the ratio is taken inside
each repeat, between the variants of either side that are fastest by median, and its spread is the lowest and highest.

Needs a built Weft, and Python 3 with torch (PyTorch) or numpy and a built `train_gpt2` of llm.c's CPU version.

    python3 tests/benchmarks/compare_pytorch.py --preset 11m --dtype bf16 f32 --repeats 3
    python3 tests/benchmarks/compare_pytorch.py --preset 124m --dtype f32 --modes eager --repeats 3
    python3 tests/benchmarks/compare_pytorch.py --llmc path/to/llm.c/train_gpt2 --repeats 2

Splits are ranks x threads. Memory is the highest sum of the ranks' proportional set sizes, launchers left out, over
steps after the timed ones; of it, anonymous memory is without mapped files (the code of libraries).
"""

import argparse
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile

import llmc
import measure

HERE = pathlib.Path(__file__).resolve().parent
PRESETS = {
    "11m": {"layers": 6, "d_model": 384, "heads": 6, "seq": 256, "batch": 16, "vocab": 256},
    "124m": {"layers": 12, "d_model": 768, "heads": 12, "seq": 512, "batch": 4, "vocab": 50257},
    "124m-padded": {"layers": 12, "d_model": 768, "heads": 12, "seq": 512, "batch": 4, "vocab": 50304},
}


def options_of():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", choices=PRESETS, default="11m")
    for name in ("layers", "d-model", "heads", "seq", "batch", "vocab"):
        parser.add_argument(f"--{name}", type=int, help="overrides the preset's")
    parser.add_argument("--dtype", nargs="+", choices=("bf16", "f32"), default=["bf16"])
    parser.add_argument("--modes", nargs="+", choices=("eager", "compile"), default=["eager", "compile"])
    parser.add_argument("--splits", nargs="+", default=["1x2", "2x1"], metavar="RANKSxTHREADS")
    parser.add_argument("--weft-splits", nargs="+", metavar="RANKSxTHREADS", help="default: as --splits")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--memory-steps", type=int, default=3)
    parser.add_argument("--weft", type=pathlib.Path, default=HERE.parents[1] / "build" / "release" / "weft")
    parser.add_argument("--weft-option", action="append", default=[], help="one more word of Weft's command line")
    parser.add_argument("--mpirun", default="mpirun")
    parser.add_argument("--python", default=sys.executable, help="an interpreter that has torch")
    parser.add_argument("--llmc", type=pathlib.Path, help="llm.c's train_gpt2; compares with it instead of PyTorch")
    parser.add_argument("--json", type=pathlib.Path, help="write everything measured to this file")
    parser.add_argument("--markdown", type=pathlib.Path, help="write the tables to this file, too")
    options = parser.parse_args()
    shape = dict(llmc.SHAPE if options.llmc else PRESETS[options.preset])
    for name in shape:
        given = getattr(options, name)
        if given is not None:
            if options.llmc:
                parser.error(f"--{name.replace('_', '-')}: llm.c's shape is fixed")
            shape[name] = given
    options.shape = shape
    options.splits = [split_of(parser, s) for s in options.splits]
    options.weft_splits = [split_of(parser, s) for s in options.weft_splits] if options.weft_splits else options.splits
    if not options.weft.exists():
        parser.error(f"--weft: {options.weft} does not exist; build Weft first")
    return options


def split_of(parser, text):
    try:
        ranks, threads = map(int, text.split("x"))
        return ranks, threads
    except ValueError:
        parser.error(f"--splits: found {text!r}, expected RANKSxTHREADS such as 1x2")


def write_data(path, shape, count=1 << 20):
    """Random tokens: raw bytes for a vocabulary of 256, else 16-bit tokens under llm.c's header."""
    if shape["vocab"] == 256:
        path.write_bytes(os.urandom(count))
    else:
        llmc.write_tokens(path, shape["vocab"], count)


def parameters(shape):
    """Of a GPT-2 style model with a tied head."""
    d = shape["d_model"]
    return (shape["vocab"] + shape["seq"]) * d + shape["layers"] * (12 * d * d + 13 * d) + 2 * d


class Weft:
    def __init__(self, options, dtype, split, data):
        self.options, self.dtype, (self.ranks, self.threads), self.data = options, dtype, split, data
        self.name, self.side = f"Weft {dtype}, {self.ranks}x{self.threads}", "weft"

    def run(self, folder):
        o, s = self.options, self.options.shape
        plan = measure.Plan(o.warmup, o.steps, o.memory_steps)
        command = [o.weft, "train", "--model", "transformer", "--layers", s["layers"], "--d-model", s["d_model"],
                   "--heads", s["heads"], "--seq", s["seq"], "--batch", s["batch"], "--data", self.data,
                   "--dtype", self.dtype, "--steps", plan.total, "--device", "cpu", "--out", folder,
                   "--valid-fraction", 0, "--checkpoint-every", 0, "--resume", "none", "--quiet"]
        if s["vocab"] != 256:
            command += ["--vocab", s["vocab"]]
        command += o.weft_option
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads)}
        if self.ranks > 1:
            command = [o.mpirun, "-n", self.ranks, "--map-by", f"slot:PE={self.threads}", "--bind-to", "core"] + command
            if os.geteuid() == 0:
                environment.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
        result = measure.run(command, folder / "metrics.jsonl", plan, environment)
        found = json.loads((folder / "run.json").read_text())["parameters"]
        if found != parameters(s):
            raise RuntimeError(f"Weft trained {found} parameters, the shape has {parameters(s)}")
        return row(s, result.tokens_per_s, result.step_ms, result.memory)


def products_of(shape):
    """ROWSxOUTxINxCOUNT of the linear layers and of the head."""
    rows, d, layers = tokens_of(shape), shape["d_model"], shape["layers"]
    return [f"{rows}x{3 * d}x{d}x{layers}", f"{rows}x{d}x{d}x{layers}", f"{rows}x{4 * d}x{d}x{layers}",
            f"{rows}x{d}x{4 * d}x{layers}", f"{rows}x{shape['vocab']}x{d}"]


class Products:
    """The model's own forward, data-gradient and weight-gradient products alone, with both cores' threads."""

    def __init__(self, options, dtype):
        self.options, self.dtype = options, dtype
        self.threads = max(ranks * threads for ranks, threads in options.weft_splits)
        self.name, self.side = f"Weft {dtype}, products alone", "products"

    def run(self, folder):
        program = self.options.weft.parent / "tests" / "benchmarks" / "weft_bench_matmul"
        done = subprocess.run([program, str(self.threads), "7", self.dtype, *products_of(self.options.shape)],
                              stdout=subprocess.PIPE, text=True, check=True)
        return {"tflops": json.loads(done.stdout)["gflops"] / 1e3}


class PyTorch:
    def __init__(self, options, dtype, mode, split):
        self.options, self.dtype, self.mode, (self.ranks, self.threads) = options, dtype, mode, split
        self.name, self.side = f"PyTorch {dtype}, {mode}, {self.ranks}x{self.threads}", "peer"

    def run(self, folder):
        o, s = self.options, self.options.shape
        command = [o.python, HERE / "peer_gpt.py", "--dtype", self.dtype, "--mode", self.mode, "--ranks", self.ranks,
                   "--threads", self.threads, "--steps", o.steps, "--warmup", o.warmup,
                   "--memory-steps", o.memory_steps, "--out", folder]
        for name, value in s.items():
            command += [f"--{name.replace('_', '-')}", value]
        done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{self.name}: status {done.returncode}\n{done.stderr[-2000:]}")
        found = json.loads(done.stdout.splitlines()[-1])
        memory = measure.Memory(found["peak_pss_bytes"], found["peak_anonymous_bytes"])
        return row(s, found["tokens_per_s"], found["step_ms"], memory, import_pss_bytes=found["import_pss_bytes"],
                   parameters=found["parameters"], torch=found["torch"])


class LlmC:
    def __init__(self, options, split):
        self.options, (_, self.threads) = options, split
        self.name, self.side = f"llm.c f32, 1x{self.threads}", "peer"

    def run(self, folder):
        o = self.options
        plan = measure.Plan(min(o.warmup, 1), min(o.steps, 5), 1)
        step_ms, memory = llmc.run(o.llmc, folder, self.threads, plan)
        return row(o.shape, tokens_of(o.shape) / statistics.median(step_ms) * 1e3, step_ms, memory)


def tokens_of(shape):
    return shape["batch"] * shape["seq"]


def row(shape, tokens_per_s, step_ms, memory, **more):
    return {"tokens_per_s": tokens_per_s, "step_ms": step_ms,
            "tflops": measure.matmul_flops_per_step(shape) * tokens_per_s / tokens_of(shape) / 1e12,
            "peak_pss_bytes": memory.pss_bytes, "peak_anonymous_bytes": memory.anonymous_bytes, **more}


def variants_of(options, dtype, data):
    weft = [Weft(options, dtype, split, data) for split in options.weft_splits]
    if options.llmc:
        threads = max(ranks * threads for ranks, threads in options.splits)
        return weft + [LlmC(options, (1, threads))]
    peers = [PyTorch(options, dtype, mode, split) for mode in options.modes for split in options.splits]
    mixed = []
    for i, peer in enumerate(peers):
        mixed += [weft[i], peer] if i < len(weft) else [peer]
    return mixed + weft[len(peers):] + [Products(options, dtype)]


def measure_variants(options, variants, folder):
    rows = {v.name: [] for v in variants}
    for repeat in range(options.repeats):
        for number, v in enumerate(variants if repeat % 2 == 0 else variants[::-1]):
            out = folder / f"{repeat}-{number}"
            out.mkdir()
            rows[v.name].append(v.run(out))
            shutil.rmtree(out)
            last = rows[v.name][-1]
            print(f"repeat {repeat + 1}: {v.name}: {last['tflops']:.3f} TFLOP/s", file=sys.stderr, flush=True)
    return rows


def compare(variants, rows):
    """Speed: fastest variant against fastest. Memory: of those same two variants."""
    def speed(v):
        return statistics.median(r["tokens_per_s"] for r in rows[v.name])

    best = {side: max((v for v in variants if v.side == side), key=speed) for side in ("weft", "peer")}

    def ratios(key):
        return [w[key] / p[key] for w, p in zip(rows[best["weft"].name], rows[best["peer"].name])]

    products = [v for v in variants if v.side == "products"]
    of_products = [w["tflops"] / p["tflops"] for w, p in zip(rows[best["weft"].name], rows[products[0].name])] \
        if products else []
    return {"weft": best["weft"].name, "peer": best["peer"].name, "speed": ratios("tokens_per_s"),
            "memory": ratios("peak_pss_bytes"), "anonymous": ratios("peak_anonymous_bytes"),
            "of_products": of_products}


def spread(values, digits=2):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def markdown(shape, dtype, rows, result, repeats):
    title = ", ".join(f"{name.replace('_', '-')} {value}" for name, value in shape.items())
    lines = [f"### {title}, {dtype}", "", f"Medians of {repeats} interleaved repeats (lowest to highest).", "",
             "| program, ranks x threads | tokens/s | TFLOP/s | ms a step | peak memory, MiB | of it anonymous, MiB |",
             "|---|---|---|---|---|---|"]
    for name, runs in rows.items():
        if "tokens_per_s" not in runs[0]:
            lines.append(f"| {name} | | {spread([r['tflops'] for r in runs], 3)} | | | |")
            continue
        middle = {key: statistics.median(r[key] for r in runs)
                  for key in ("tflops", "peak_pss_bytes", "peak_anonymous_bytes")}
        lines.append(f"| {name} | {spread([r['tokens_per_s'] for r in runs], 0)} | {middle['tflops']:.3f} "
                     f"| {statistics.median(m for r in runs for m in r['step_ms']):.0f} "
                     f"| {middle['peak_pss_bytes'] / 2**20:.0f} | {middle['peak_anonymous_bytes'] / 2**20:.0f} |")
    lines += ["", f"{result['weft']} against {result['peer']}: speed {spread(result['speed'])} times, peak memory "
              f"{spread(result['memory'])} times, anonymous memory {spread(result['anonymous'])} times."]
    if result["of_products"]:
        lines.append(f"The whole step runs at {spread(result['of_products'])} of the rate of its products alone.")
    lines.append("")
    return "\n".join(lines)


def processor():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            flags = line.split()
            has = [f for f in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f in flags]
            return f"{len(os.sched_getaffinity(0))} cores of {platform.machine()} with {', '.join(has)}"
    return platform.machine()


def main():
    options = options_of()
    tables, report = [f"Machine: {processor()}.\n"], {"machine": processor(), "shape": options.shape, "results": {}}
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        data = folder / ("data.txt" if options.shape["vocab"] == 256 else "data.bin")
        write_data(data, options.shape)
        for dtype in options.dtype:
            variants = variants_of(options, dtype, data)
            rows = measure_variants(options, variants, folder)
            result = compare(variants, rows)
            tables.append(markdown(options.shape, dtype, rows, result, options.repeats))
            report["results"][dtype] = {"runs": rows, "comparison": result}
    text = "\n".join(tables)
    print(text)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    if options.markdown:
        options.markdown.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
