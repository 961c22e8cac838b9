"""Choose the settings of the English runs: the best of several short runs on validation prompts.

``python tools/english/choose.py RUN ...`` samples base and the policy of each run on the validation
prompts of its set, four times each, behind the run's guard, and writes
``data/reference/english_choice.json``: means of the run's own reward, of utility and of t, with
intervals over prompts. The reported runs use the settings with the highest reward; no test prompt
is used.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd

import bgkit
from bgkit import environment
from bgkit.evaluation.intervals import bootstrap
from bgkit.models import policies
from bgkit.prompts import load
from bgkit.rewards import NEAR, compute_reward
from bgkit.runs import Run, load_run, write_json

OUT = Path(__file__).parents[2] / "data" / "reference" / "english_choice.json"
TIMES = 4


def prompt_means(run: Run, adapter: Path | None) -> pd.DataFrame:
    """Per validation prompt, means over a policy's samples."""
    c = run.config
    prompts = load.load_prompts(c.prompts, "validation")
    samples = bgkit.sample(
        policies.load_policy(c.policy, adapter),
        prompts.loc[prompts.index.repeat(TIMES)].reset_index(drop=True),
        guard=c.guard,
        utility=c.utility,
        tau=c.tau,
        temperature=c.temperature,
        max_completion_length=c.max_completion_length,
        seed=1,
    )
    base = run.read_json("base.json")
    z = (samples["u"] - base["utility_mean"]) / base["utility_deviation"]
    reward = compute_reward(c.reward, samples["t"], z, c.tau, strength=c.strength)
    near = (samples["t"] - c.tau).abs() < NEAR
    columns = {"reward": reward, "u": samples["u"], "t": samples["t"], "near_boundary": near * 1.0}
    return pd.DataFrame(columns).groupby(samples["prompt"].to_numpy(), sort=False).mean()


def main() -> None:
    """Sample, write and print."""
    environment.prepare()
    runs = [load_run(Path(name)) for name in sys.argv[1:]]
    rows = []
    base = prompt_means(runs[0], None)
    for run, table in [(None, base), *((run, prompt_means(run, run.adapter)) for run in runs)]:
        settings = {k: getattr(run.config, k) for k in ("learning_rate", "steps")} if run else {}
        for name in table:
            (mean,) = bootstrap(table[name].to_numpy(), rates=False)
            (difference,) = bootstrap((table[name] - base[name]).to_numpy(), rates=False)
            differences = {f"difference_{k}": v for k, v in difference._asdict().items()}
            rows.append({**settings, "metric": name, **mean._asdict(), **differences})
    write_json(OUT, {"prompts": len(base), "times": TIMES, "rows": rows})
    print(pd.DataFrame(rows).round(3).to_string())


if __name__ == "__main__":
    main()
