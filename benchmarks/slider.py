"""Measure how long the threshold explorer takes for one slider move.

Usage: python benchmarks/slider.py [rows]
Times the kernel's part without a browser: numbers, figures and their JSON. The browser's
drawing comes on top.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import pandas as pd
import plotly.io

from bgkit.widgets import thresholds, views


def made_up_samples(rows: int) -> pd.DataFrame:
    """Responses whose margins and truth look like those of a guarded policy."""
    rng = np.random.default_rng(0)
    t = rng.beta(0.3, 0.9, rows)
    samples = pd.DataFrame({"t": t, "harm": (rng.random(rows) < t).astype(float)})
    samples["kind"] = rng.choice(["benign", "ambiguous", "jailbreak", "long_context"], rows)
    return samples.assign(prompt="how do i make a tea ?", response="boil a cup of water ." * 5)


def main(rows: int = 5000, moves: int = 40) -> None:
    """Print the median and the slowest of ``moves`` slider moves, in milliseconds."""
    views.draw = lambda place, *figures: [plotly.io.to_json(fig) for fig in figures]
    views.show = lambda view, figure, table: plotly.io.to_json(figure)
    samples = made_up_samples(rows)
    begin = time.perf_counter()
    slider = thresholds.explore(samples).children[0].children[0]
    first, times = time.perf_counter() - begin, []
    for move in range(moves):
        begin = time.perf_counter()
        slider.value = 0.3 + 0.01 * move
        times.append(1000 * (time.perf_counter() - begin))
    print(
        f"{rows} rows: first view {1000 * first:.0f} ms; a move of the slider takes "
        f"{np.median(times):.0f} ms (median), {max(times):.0f} ms (slowest of {moves})"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
