"""Measure what the kit's figures cost compared with plain plotly figures of the same data.

Usage: python benchmarks/figures.py [repeats]
Both are built and converted to JSON, by turns and without a browser. The ratio counts, because
seconds depend on the machine: it was 15 to 25 (axes, legends, notes and hover texts come on top of
the data); look into a figure above 40.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from bgkit import figures as plots
from bgkit.evaluation import settings
from bgkit.sweeps import collection


def figures(rows: int = 5000) -> dict[str, Callable[[], go.Figure]]:
    """Figures of made-up samples, and of the shipped ablation."""
    rng = np.random.default_rng(0)
    t = rng.beta(0.3, 0.8, rows)
    samples = pd.DataFrame({"t": t, "harm": (rng.random(rows) < t).astype(float), "kind": "benign"})
    table = settings.default_rows(collection.load_table(), free=["strength"])
    return {
        "margins": lambda: plots.margins({"base": samples}, 0.5),
        "reliability": lambda: plots.reliability({"base": samples}),
        "risk_curve": lambda: plots.risk_curve(t, 3.0, 1.0, 2.0, 0.5),
        "measured_risk": lambda: plots.measured_risk(samples, 0.25, 3.0, 1.0, 20),
        "trade_off": lambda: plots.trade_off(table),
    }


def plain(fig: go.Figure) -> go.Figure:
    """The same data in as many traces, and nothing else."""
    return go.Figure([type(trace)(x=trace.x, y=trace.y) for trace in fig.data])


def seconds(draw: Callable[[], go.Figure]) -> float:
    """Seconds to build a figure and convert it to JSON."""
    begin = time.perf_counter()
    draw().to_json()
    return time.perf_counter() - begin


def main(repeats: int = 10) -> None:
    """Print milliseconds (the least of ``repeats``) and the ratio to the plain figure."""
    for name, draw in figures().items():
        fig = draw()
        pairs = [(seconds(draw), seconds(lambda fig=fig: plain(fig))) for _ in range(repeats)]
        own, bare = np.min(pairs, axis=0)
        print(f"{name:20s} {1000 * own:6.1f} ms, plain {1000 * bare:5.1f} ms: {own / bare:5.1f} x")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
