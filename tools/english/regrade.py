"""Regrade the shipped English runs after the auditor has changed.

``python tools/english/regrade.py`` grades the responses in ``data/runs/english`` with the judge
of each run's config, and writes samples and results as the run itself would: same
responses, same scores, new grades. ``results.py`` then collects them.
"""

from __future__ import annotations

from pathlib import Path

from bgkit import environment
from bgkit.evaluation import samples as sampling
from bgkit.evaluation.judges import load_judge
from bgkit.evaluation.metrics import paired_differences, summarise
from bgkit.runs import load_run, write_json, write_parquet

RUNS = Path(__file__).parents[2] / "data" / "runs" / "english"


def main() -> None:
    """Grade and write."""
    environment.prepare()
    for path in sorted(RUNS.glob("*/config.json")):
        run = load_run(path.parent)
        judge = load_judge(run.config.judge, "cpu")
        tables = {}
        for who in ("base", "trained"):
            tables[who] = sampling.grade_samples(run.samples(who), judge)
        write_parquet(run.folder / "base_samples.parquet", tables["base"])
        write_parquet(run.folder / "samples.parquet", tables["trained"])
        labels = sampling.labels_of(run.config)
        rows = summarise(tables["base"], sampling.labels_of(run.config, "base"))
        rows += summarise(tables["trained"], labels)
        paired = paired_differences(tables["trained"], tables["base"], labels)
        write_json(run.folder / "result.json", run.result | {"rows": rows, "paired": paired})


if __name__ == "__main__":
    main()
