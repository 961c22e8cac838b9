"""Seconds of a training step alone and next to one busy process; their ratio should be small.

Usage: python benchmarks/busy.py [STEPS [THREADS]]
Trains the testbed's default policy by turns with and without the busy process, each time in a new
process with the kit's thread settings. Run it on an otherwise idle machine; with
OMP_WAIT_POLICY=ACTIVE it shows what spinning costs. Exit status 1 if the ratio exceeds 2.5.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

MOST = 2.5
TURNS = 2


def step_seconds(steps: int, threads: int) -> list[float]:
    """Seconds of each step but the first."""
    import bench_step

    from bgkit import runs
    from bgkit.training import trainer as training

    config = runs.make_config(
        {"steps": steps + 1, "eval_every": 0, "test_prompts": 8, "judge": "none"}
    )
    clock = bench_step.StepClock()
    with tempfile.TemporaryDirectory() as folder:
        training.train(
            config, Path(folder) / "run", device="cpu", threads=threads, callbacks=[clock]
        )
    return [row["step"] for row in clock.rows[1:]]


def step_seconds_in_process(busy: bool, steps: int, threads: int) -> list[float]:
    """The same in a new process, with or without a busy process next to it."""
    from bgkit.models import devices

    other = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
    try:
        with devices.worker_pool(1, threads) as pool:
            return pool.submit(step_seconds, steps, threads).result()
    finally:
        if other:
            other.kill()


def main(steps: int = 10, threads: int = 0) -> int:
    """Print medians and their ratio; returns the exit status."""
    from bgkit.models import devices

    threads = devices.pin_threads(threads)
    times = {False: [], True: []}
    for _ in range(TURNS):
        for busy, seconds in times.items():
            seconds += step_seconds_in_process(busy, steps, threads)
    alone, loaded = median(times[False]), median(times[True])
    print(
        f"{threads} threads on {os.cpu_count()} cores, median of {TURNS * steps} steps: "
        f"{alone:.2f} s alone, {loaded:.2f} s beside a busy process, ratio {loaded / alone:.2f}"
    )
    return int(loaded > MOST * alone)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:3])))
