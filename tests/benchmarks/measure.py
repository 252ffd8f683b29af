"""Runs a training program, follows its metrics file, and samples its memory from outside.

A measured program writes one JSON object a step to `metrics.jsonl` in its output folder, with at least `step_ms` and
`tokens_per_s`. Reading a large process's memory map costs it time, so the steps that are timed run unobserved; memory
is sampled over the last few steps, which are then left out of the timing.
"""

import dataclasses
import json
import os
import pathlib
import signal
import statistics
import subprocess
import time

SAMPLE_SECONDS = 0.02
LAUNCHERS = ("mpirun", "orterun", "orted", "prterun", "prted", "mpiexec")


@dataclasses.dataclass
class Plan:
    """Steps of a run: `warmup` are dropped, `timed` are timed, over `memory` the memory is sampled."""
    warmup: int
    timed: int
    memory: int

    @property
    def total(self):
        return self.warmup + self.timed + self.memory


@dataclasses.dataclass
class Result:
    tokens_per_s: float
    step_ms: list
    memory: "Memory"
    last_row: dict


@dataclasses.dataclass
class Memory:
    """Proportional set size: pages that n processes share count 1/n in each. Anonymous: without mapped files, so
    without the code of libraries."""
    pss_bytes: int = 0
    anonymous_bytes: int = 0

    def __add__(self, other):
        return Memory(self.pss_bytes + other.pss_bytes, self.anonymous_bytes + other.anonymous_bytes)

    def peak(self, other):
        return Memory(max(self.pss_bytes, other.pss_bytes), max(self.anonymous_bytes, other.anonymous_bytes))


def matmul_flops_per_step(shape):
    """6 FLOPs a matrix-product parameter and token, and the causal half of attention's, forward and backward."""
    layers, d_model, seq = shape["layers"], shape["d_model"], shape["seq"]
    tokens = shape["batch"] * seq
    products = layers * 12 * d_model * d_model + shape["vocab"] * d_model
    attention = 6 * layers * seq * d_model
    return tokens * (6 * products + attention)


def descendants(pid):
    found, waiting = [], [pid]
    while waiting:
        process = waiting.pop()
        found.append(process)
        try:
            for task in os.listdir(f"/proc/{process}/task"):
                waiting += map(int, pathlib.Path(f"/proc/{process}/task/{task}/children").read_text().split())
        except OSError:
            continue
    return found


def memory_of(pid):
    fields = {}
    try:
        for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
            name, value = line.split()[:2]
            fields[name] = int(value) * 1024
    except OSError:
        return Memory()
    return Memory(fields.get("Pss:", 0), fields.get("Pss_Anon:", 0) + fields.get("Pss_Shmem:", 0))


def name_of(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def training_processes(pid):
    """`pid` and all its descendants but the launchers among them (which only start and wait)."""
    return [p for p in descendants(pid) if name_of(p) not in LAUNCHERS]


def read_rows(path):
    """The complete rows of a metrics file that may still be growing; rows of other kinds than steps are left out."""
    try:
        lines = path.read_text().split("\n")[:-1]
    except OSError:
        return []
    rows = [json.loads(line) for line in lines if line.strip()]
    return [row for row in rows if "step_ms" in row]


class Process:
    """A program that runs with its output in a log; killed, with its children, when the block is left."""

    def __init__(self, command, log, environment=None):
        log.parent.mkdir(parents=True, exist_ok=True)
        self.command, self.log = list(map(str, command)), log
        self.environment = environment

    def __enter__(self):
        with open(self.log, "wb") as out:
            self.process = subprocess.Popen(self.command, stdout=out, stderr=subprocess.STDOUT, env=self.environment)
        self.begun = time.monotonic()
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            for pid in reversed(descendants(self.process.pid)):
                try:
                    os.kill(pid, signal.SIGKILL)
                except OSError:
                    pass
            self.process.wait()

    def running(self, timeout):
        if time.monotonic() - self.begun > timeout:
            raise RuntimeError(f"{self.command[0]}: no end after {timeout} s")
        return self.process.poll() is None

    def fail(self, why):
        raise RuntimeError(f"{' '.join(self.command)}: {why}\n{self.log.read_text(errors='replace')[-2000:]}")

    def memory(self, skip_root=False):
        processes = training_processes(self.process.pid)
        if skip_root and self.process.pid in processes:
            processes.remove(self.process.pid)
        return sum(map(memory_of, processes), Memory())


def run(command, metrics, plan, environment=None, skip_root=False, timeout=3600):
    """Runs `command` to its end and returns a Result; its metrics must appear in the file `metrics`. With `skip_root`
    the first process only starts the others and does not count. Raises RuntimeError with the program's last output."""
    peak = Memory()
    with Process(command, metrics.parent / "output.log", environment) as process:
        while process.running(timeout):
            rows = read_rows(metrics)
            if plan.warmup + plan.timed <= len(rows) < plan.total:
                peak = peak.peak(process.memory(skip_root))
                time.sleep(SAMPLE_SECONDS)
            else:
                time.sleep(min(0.2, rows[-1]["step_ms"] / 4e3 if rows else 0.2))
        rows = read_rows(metrics)
        if process.process.returncode != 0 or len(rows) < plan.total:
            process.fail(f"status {process.process.returncode}, {len(rows)} of {plan.total} steps")
        if not peak.pss_bytes:
            process.fail(f"no memory sample within {plan.memory} steps; more memory steps are needed")
    timed = rows[plan.warmup:plan.warmup + plan.timed]
    return Result(statistics.median(row["tokens_per_s"] for row in timed), [row["step_ms"] for row in timed], peak,
                  rows[-1])
