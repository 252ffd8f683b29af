"""llm.c's CPU program as a peer: its files, made from random numbers, and its timings.

The program (`train_gpt2`, built by llm.c's own Makefile with OpenMP) trains GPT-2 124M at a fixed batch and sequence;
it reads a checkpoint and token files from its working folder and prints the milliseconds of each step.
"""

import os
import pathlib
import re
import struct
import time

import measure

SHAPE = {"layers": 12, "d_model": 768, "heads": 12, "seq": 64, "batch": 4, "vocab": 50257}
POSITIONS = 1024
PADDED_VOCAB = 50304
HEADER_INTS = 256
TOKENS_MAGIC, TOKENS_VERSION = 20240520, 1
MODEL_MAGIC, MODEL_VERSION = 20240326, 3


def header(*values):
    return struct.pack(f"<{HEADER_INTS}i", *values, *[0] * (HEADER_INTS - len(values)))


def write_tokens(path, vocab, count, seed=1):
    import numpy as np
    tokens = np.random.default_rng(seed).integers(0, vocab, size=count, dtype=np.uint16)
    with open(path, "wb") as out:
        out.write(header(TOKENS_MAGIC, TOKENS_VERSION, count))
        out.write(tokens.astype("<u2").tobytes())


def write_checkpoint(path):
    """Random weights (std 0.02, norms 1, biases 0) in the order that the program reads them."""
    import numpy as np
    rng = np.random.default_rng(1)
    L, D = SHAPE["layers"], SHAPE["d_model"]
    with open(path, "wb") as out:
        out.write(header(MODEL_MAGIC, MODEL_VERSION, POSITIONS, SHAPE["vocab"], L, SHAPE["heads"], D, PADDED_VOCAB))

        def weights(count):
            out.write((0.02 * rng.standard_normal(count, dtype=np.float32)).tobytes())

        def constant(value, count):
            out.write(np.full(count, value, np.float32).tobytes())

        def norm(layers):
            constant(1, layers * D)
            constant(0, layers * D)

        weights(PADDED_VOCAB * D)
        weights(POSITIONS * D)
        norm(L)
        weights(L * 3 * D * D)
        constant(0, L * 3 * D)
        weights(L * D * D)
        constant(0, L * D)
        norm(L)
        weights(L * 4 * D * D)
        constant(0, L * 4 * D)
        weights(L * D * 4 * D)
        constant(0, L * D)
        norm(1)


def run(program, folder, threads, plan):
    """Milliseconds of each timed step, and the peak memory over the steps after them; the program is then ended."""
    write_checkpoint(folder / "gpt2_124M.bin")
    data = folder / "dev" / "data" / "tinyshakespeare"
    data.mkdir(parents=True)
    for part in ("train", "val"):
        write_tokens(data / f"tiny_shakespeare_{part}.bin", SHAPE["vocab"], 1 << 16)
    log = folder / "output.log"
    # It runs in the folder of its files; stdbuf lets each line through as it is printed.
    command = ["env", "-C", folder, "stdbuf", "-oL", pathlib.Path(program).resolve()]
    peak = measure.Memory()
    with measure.Process(command, log, {**os.environ, "OMP_NUM_THREADS": str(threads)}) as process:
        step_ms = []
        while len(step_ms) < plan.total:
            if not process.running(timeout=3600):
                process.fail(f"ended after {len(step_ms)} of {plan.total} steps")
            if len(step_ms) >= plan.warmup + plan.timed:
                peak = peak.peak(process.memory())
            time.sleep(0.2)
            step_ms = [float(ms) for ms in re.findall(r"took ([0-9.]+) ms", log.read_text(errors="replace"))]
    return step_ms[plan.warmup:plan.warmup + plan.timed], peak
