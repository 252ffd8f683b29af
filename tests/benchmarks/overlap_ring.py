#!/usr/bin/env python3
"""What a step of ring attention costs, forward and backward, where its communication takes long.

Starts `weft_bench_ring` twice: as fast as the network is, and with a test network on which the bytes sent travel for
`--fraction` of the time in attention kernels. Those wait out the time that a core of one's own would take, so that ranks
without one show the same schedule. Cost = pass on the slow network / time in its attention kernels.

    python3 tests/benchmarks/overlap_ring.py [--ranks 2 4 8] [--dtypes bf16 f32]
"""

import argparse
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent


def run(options, ranks, dtype, bandwidth):
    """Milliseconds of a pass, of those in attention kernels, and bytes sent."""
    environment = {**os.environ, "OMPI_MCA_rmaps_base_oversubscribe": "1", "OMPI_MCA_hwloc_base_binding_policy": "none",
                   "OMPI_MCA_mpi_yield_when_idle": "1"}
    if os.geteuid() == 0:
        environment.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    command = [options.mpirun, "-n", ranks, options.program, dtype, f"{bandwidth:.0f}", options.passes]
    result = subprocess.run(list(map(str, command)), env=environment, stdout=subprocess.PIPE, text=True, timeout=300,
                            check=True)
    return map(float, result.stdout.split())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--fraction", type=float, default=0.7, help="travel time over that in kernels [0.7]")
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--dtypes", choices=("bf16", "f32"), nargs="+", default=["bf16", "f32"])
    parser.add_argument("--passes", type=int, default=7)
    parser.add_argument("--program", type=pathlib.Path,
                        default=HERE.parents[1] / "build" / "release" / "tests" / "benchmarks" / "weft_bench_ring")
    parser.add_argument("--mpirun", default="mpirun")
    options = parser.parse_args()
    print("| ranks | dtype | kernels ms | travel ms | pass ms, fast network | pass ms, slow network | cost |\n"
          "|---|---|---|---|---|---|---|")
    for dtype in options.dtypes:
        for ranks in options.ranks:
            fast, kernels, sent = run(options, ranks, dtype, 0)
            travel = options.fraction * kernels
            slow, _, _ = run(options, ranks, dtype, sent / travel * 1e3)
            print(f"| {ranks} | {dtype} | {kernels:.0f} | {travel:.0f} | {fast:.0f} | {slow:.0f} | {slow / kernels:.2f} |",
                  flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
