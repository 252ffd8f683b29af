#!/usr/bin/env python3
"""How much of data parallel's, ZeRO's and tensor parallel's communication hides behind computing, on CPU ranks with a slowed
network.

Trains the 11M model on 2 ranks of 1 thread twice a repeat, in turn: as fast as the network is, and with a test network
that is as slow as makes the travel of gradients (under ZeRO also of parameters; with tensor parallelism of activations) take
`--fraction` of backward's time (taken as 2/3 of the fast step's).
Hidden = 1 - (exposed with the slow network - exposed without) / travel time; exposed is `comm_exposed_ms` of
metrics.jsonl, the time that the program was blocked. Beside it the same from the difference of the step times.

    python3 tests/benchmarks/overlap.py [--zero 0|1|2|3] [--axis dp|tp]
"""

import argparse
import json
import os
import pathlib
import statistics
import sys
import tempfile

import measure

HERE = pathlib.Path(__file__).resolve().parent
LAYERS, D_MODEL, SEQ, BATCH = 6, 384, 256, 16
SHAPE = ["--model", "transformer", "--layers", LAYERS, "--d-model", D_MODEL, "--heads", 6, "--seq", SEQ, "--batch", BATCH]
RANKS = 2


def wire_bytes(options, parameters):
    """That each rank sends in a step (docs/communication.md)."""
    if options.axis == "tp":
        rows, size = BATCH * SEQ, {"bf16": 2, "f32": 4}[options.dtype]
        activations = (10 * LAYERS + 4) * (RANKS - 1) / RANKS * rows * D_MODEL * size
        return activations + (RANKS - 1) * 8 * rows
    # All-reduce, or reduce-scatter and all-gather; stage 3 gathers in both passes.
    transfers = 3 if options.zero == 3 else 2
    return 4 * parameters * transfers * (RANKS - 1) / RANKS


def train(options, folder, data, bandwidth):
    command = [options.mpirun, "-n", RANKS, "--map-by", "slot:PE=1", "--bind-to", "core", options.weft, "train", *SHAPE,
               "--data", data, "--dtype", options.dtype, "--steps", options.warmup + options.steps, "--device", "cpu",
               "--out", folder, "--valid-fraction", 0, "--checkpoint-every", 0, "--resume", "none", "--quiet",
               "--zero", options.zero, f"--{options.axis}", RANKS]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if bandwidth:
        environment["WEFT_TEST_COMM"] = f"bandwidth={bandwidth:.0f}"
    if os.geteuid() == 0:
        environment.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    with measure.Process(command, folder / "output.log", environment) as process:
        if process.process.wait(timeout=3600) != 0:
            process.fail(f"status {process.process.returncode}")
    rows = measure.read_rows(folder / "metrics.jsonl")[options.warmup:]
    return [statistics.median(row[key] for row in rows) for key in ("step_ms", "comm_exposed_ms")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--fraction", type=float, default=0.7, help="travel time over backward's [0.7]")
    parser.add_argument("--zero", type=int, choices=range(4), default=0)
    parser.add_argument("--axis", choices=("dp", "tp"), default="dp", help="what the ranks share out [dp]")
    parser.add_argument("--dtype", choices=("bf16", "f32"), default="bf16")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--weft", type=pathlib.Path, default=HERE.parents[1] / "build" / "release" / "weft")
    parser.add_argument("--mpirun", default="mpirun")
    options = parser.parse_args()
    hidden = []
    print("| step ms, fast network | step ms, slow network | travel ms | exposed ms, fast | exposed ms, slow | hidden "
          "| hidden by step times |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        root = pathlib.Path(temporary)
        data = root / "data.txt"
        data.write_bytes(os.urandom(1 << 20))
        for repeat in range(options.repeats):
            fast, slow = root / f"fast-{repeat}", root / f"slow-{repeat}"
            step, exposed = train(options, fast, data, 0)
            parameters = json.loads((fast / "run.json").read_text())["parameters"]
            travel = options.fraction * step * 2 / 3
            slow_step, slow_exposed = train(options, slow, data, wire_bytes(options, parameters) / travel * 1e3)
            hidden.append(1 - (slow_exposed - exposed) / travel)
            print(f"| {step:.0f} | {slow_step:.0f} | {travel:.0f} | {exposed:.0f} | {slow_exposed:.0f} "
                  f"| {hidden[-1]:.0%} | {1 - (slow_step - step) / travel:.0%} |", flush=True)
    print(f"\nhidden: {statistics.median(hidden):.0%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
