"""How often comparisons of designs would be decided, by simulation from the shipped values.

    python benchmarks/power.py [--seeds 3 5 10] [--rounds 40]

The shipped trainings stand for the truth: in each round, prompts are drawn anew (the same for all
designs) and seeds anew at each strength of each design, their deviations from the mean over seeds
scaled by (S / (S - 1)) ** 0.5, as S drawn anew vary too little. Every comparison of
:mod:`bgkit.stress.deployments` that follows from stored values is then made on the drawn values and
corrected with the others (Holm). Printed are the shares that are decided, by number of seeds and
pair of designs, how often the interval of a difference holds the shipped one, and the bias of the
difference (the best of several noisy points looks better than it is).
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd

from bgkit import environment
from bgkit.evaluation import frontiers
from bgkit.evaluation.intervals import CONFIDENCE, holm
from bgkit.stress import deployments
from bgkit.sweeps import claims, collection

METRICS = ["system_help", "system_harm"]
RESAMPLES = 200  # of the intervals in a round


def shipped() -> dict[str, dict[str, np.ndarray]]:
    """Deployment -> design -> values (strengths, seeds, prompts, 2) of help and harm."""
    index, values, _ = collection.load()
    refusals = deployments.refusals_of(index)
    cubes = {}
    for name, deployment in deployments.DEPLOYMENTS.items():
        there = deployments.redeployed_values(values, refusals, deployment)
        designs = claims.frontiers_of(index, there, METRICS)
        cubes[name] = {design: one.pair(*METRICS) for design, one in designs.items()}
    return cubes


def drawn(cube: np.ndarray, seeds: np.ndarray, prompts: np.ndarray) -> np.ndarray:
    """A frontier of other trainings: ``seeds`` (strengths, k) and ``prompts`` (n,) are indices."""
    mean, count = cube.mean(axis=1, keepdims=True), cube.shape[1]
    apart = (cube - mean)[np.arange(len(cube))[:, None], seeds]
    return (mean + apart * (count / (count - 1)) ** 0.5)[:, :, prompts]


def one_round(cubes: dict, pairs: list, seeds: int, rng: np.random.Generator) -> pd.DataFrame:
    """Every comparison on drawn values: deployment, pair, p_holm, low, high."""
    designs = next(iter(cubes.values()))
    prompts = rng.integers(0, designs["base"].shape[2], designs["base"].shape[2])
    chosen = {
        name: rng.integers(0, cube.shape[1], (len(cube), seeds)) for name, cube in designs.items()
    }
    rows = []
    for deployment, there in cubes.items():
        for pair in pairs:
            both = (drawn(there[name], chosen[name], prompts) for name in pair)
            found = frontiers.difference(*both, resamples=RESAMPLES)
            rows.append([deployment, " - ".join(pair), *found[:4]])
    table = pd.DataFrame(rows, columns=["deployment", "pair", "mean", "low", "high", "p"])
    return table.assign(p_holm=holm(table["p"]))


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 5, 10])
    parser.add_argument("--rounds", type=int, default=40)
    asked = parser.parse_args()
    environment.prepare()
    cubes = shipped()
    pairs = [pair for pair in deployments.PAIRS if {*pair} <= {*cubes["as trained"]}]
    truth = [
        frontiers.difference(*(there[name] for name in pair), resamples=2).mean
        for there in cubes.values()
        for pair in pairs
    ]
    decided, covered, bias = {}, {}, {}
    for seeds in asked.seeds:
        rng = np.random.default_rng(seeds)
        rounds = [one_round(cubes, pairs, seeds, rng) for _ in range(asked.rounds)]
        table = pd.concat([one.assign(truth=truth) for one in rounds])
        table["decided"] = table["p_holm"] < 1 - CONFIDENCE
        table["inside"] = table["truth"].between(table["low"], table["high"])
        decided[seeds] = table.groupby("pair", sort=False)["decided"].mean()
        decided[seeds]["all"] = table["decided"].mean()
        covered[seeds] = table["inside"].mean()
        bias[seeds] = (table["mean"] - table["truth"]).groupby(table["pair"], sort=False).mean()
    print(pd.DataFrame(decided).rename_axis(columns="seeds").round(2).to_string())
    print(pd.DataFrame(bias).rename_axis(columns="bias, seeds").round(4).to_string())
    print({seeds: round(float(share), 3) for seeds, share in covered.items()})


if __name__ == "__main__":
    main()
