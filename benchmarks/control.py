"""One run of the shipped collection made again on two threads: another draw of the same config.

    python benchmarks/control.py    # four minutes; writes data/reference/control.json

Rounding differs with the number of threads, and with it, in time, what is sampled. So the distance
between the two says how far one config's runs lie apart without a change of the seed.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

import bgkit
from bgkit import environment
from bgkit.evaluation.metrics import values_of
from bgkit.runs import make_config, write_json
from bgkit.sweeps import collection

OUT = Path(__file__).parents[1] / "data" / "reference" / "control.json"
SETTINGS = {"reward": "boundary", "strength": 8.0, "seed": 0}
METRICS = "near_boundary false_negative system_harm system_help kl".split()


def main() -> None:
    """Train the run on two threads and write both draws' means."""
    environment.prepare()
    index, values, _ = collection.load()
    configs = index["config"].map(json.loads)
    (place,) = (i for i, c in configs.items() if SETTINGS.items() <= c.items())
    run = bgkit.train(make_config(configs[place]), folder="runs/control", threads=2)
    shipped = values[values["run"] == index["run"][place]]
    again = run.samples().round(collection.DECIMALS)  # as stored
    draws = {"one thread": shipped, "two threads": again}
    means = pd.DataFrame({name: values_of(table)[METRICS].mean() for name, table in draws.items()})
    write_json(OUT, {"settings": SETTINGS, "draws": means.round(4).T.to_dict("index")})


if __name__ == "__main__":
    main()
