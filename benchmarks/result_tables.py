"""Write the tables of README.md and docs/results.md anew from the shipped collection.

    python benchmarks/result_tables.py

A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``; a test compares the pages with
what this writes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from bgkit.evaluation import frontiers, settings
from bgkit.evaluation.intervals import interval_text
from bgkit.evaluation.metrics import METRICS
from bgkit.figures import style
from bgkit.sweeps import claims, collection

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "docs/results.md", "docs/english.md")
SHOWN = "near_boundary near_below false_negative system_harm system_help kl".split()
PAIRS = (
    ("boundary", "filter_avoidance"),
    ("filter_avoidance_soft", "boundary"),
    ("compound", "boundary"),
)
SPREAD = "near_boundary false_negative system_harm system_help kl".split()
COMPARED = ("near_boundary", "false_negative", "system_harm")


def by_strength() -> pd.DataFrame:
    """Every design at every strength, beside base."""
    table = settings.default_rows(collection.load_table(), free=["strength"])
    parts = {}
    for design in settings.values_of(table, "design"):
        one = table[table["design"] == design]
        if design in ("base", "boundary_raw", "guard_only", "utility_only"):  # have no strength
            one = one[one["strength"] == 8.0]
        rows = settings.overview(one, SHOWN, "strength", {"kind": "all"})
        for (strength, _), row in rows.iterrows():
            alone = len(rows) == 1
            parts[style.label(design), "–" if alone else f"{strength:g}"] = row
    wide = pd.DataFrame(parts).T.rename(columns=lambda name: METRICS[name].label)
    return wide.rename_axis(["design", "strength"]).reset_index()


def at_equal_help() -> pd.DataFrame:
    """Differences between frontiers at equal help; bold where beyond chance after Holm."""
    return _differences(["at equal help"])


def at_equal_help_and_kl() -> pd.DataFrame:
    """The same, and at equal KL."""
    return _differences(list(claims.EQUAL.values()))


def _differences(places: list[str]) -> pd.DataFrame:
    index, values, _ = collection.load()
    found = claims.frontiers_of(index, values, claims.METRICS)
    asked = [claims.Claim("", metric, *pair, "lower") for pair in PAIRS for metric in COMPARED]
    checked = claims.check(found, asked)
    rows = []
    for place in places:
        for design, against in PAIRS:
            part = checked[(checked["design"] == design) & (checked["against"] == against)]
            part = part[part["place"] == place].set_index("metric")
            cells = [_told(part.loc[name]) for name in COMPARED]
            where = [place.removeprefix("at equal ")] * (len(places) > 1)
            rows.append([f"`{design}` - `{against}`", *where, *cells])
    names = ["difference", *["equal"] * (len(places) > 1), *(METRICS[n].label for n in COMPARED)]
    return pd.DataFrame(rows, columns=names)


def _told(row: pd.Series) -> str:
    text = interval_text(row["mean"], row["low"], row["high"])
    return text if row["verdict"] == "open" else f"**{text}**"


def scatter() -> pd.DataFrame:
    """How far runs of one config lie apart, and designs of one strength: standard deviations.

    Of a design, over seeds, pooled over its strengths; of all of them together; and over the means
    of the designs that have a strength, pooled over strengths.
    """
    index, values, _ = collection.load()
    found = claims.frontiers_of(index, values, SPREAD)
    del found["base"]
    means = {name: np.nanmean(one.values, axis=2) for name, one in found.items()}
    rows = {
        f"`{name}`, {cube.shape[1]} seeds": cube.var(axis=1, ddof=1).mean(axis=0)
        for name, cube in means.items()
    }
    together = np.concatenate([cube.var(axis=1, ddof=1) for cube in means.values()]).mean(axis=0)
    curves = [cube.mean(axis=1) for cube in means.values() if len(cube) > 1]
    rows |= {
        "all of them": together,
        "designs at one strength": np.stack(curves).var(axis=0, ddof=1).mean(axis=0),
    }
    table = pd.DataFrame(rows, [METRICS[name].label for name in SPREAD]).T ** 0.5
    return table.map("{:.3f}".format).rename_axis("standard deviation of").reset_index()


BOUNDS = (0.015, 0.02, 0.03)  # of false negatives, that a deployment may allow


def at_a_bound() -> pd.DataFrame:
    """Differences in help where both designs have as many false negatives as a bound allows."""
    index, values, _ = collection.load()
    found = claims.frontiers_of(index, values, ["false_negative", "system_help"])
    rows = []
    for design, against in (*PAIRS, ("compound", "filter_avoidance_soft")):
        pairs = [found[one].pair("false_negative", "system_help") for one in (design, against)]
        low, high = frontiers.shared_range(*pairs)
        cells = [
            interval_text(*frontiers.difference(*pairs, at=bound)[:3])
            if low <= bound <= high
            else "–"
            for bound in BOUNDS
        ]
        rows.append([f"`{design}` - `{against}`", *cells])
    return pd.DataFrame(rows, columns=["difference in help", *(f"at {b}" for b in BOUNDS)])


WALKING = ROOT / "data" / "reference" / "walking.json"
ENGLISH = ROOT / "data" / "reference" / "english.json"
TOLD = "near_boundary filter_rate false_positive false_negative system_harm system_help kl".split()


def english() -> pd.DataFrame:
    """What came of the English runs, by the judge, intervals over prompts; one row a run."""
    rows = pd.DataFrame(json.loads(ENGLISH.read_text("utf-8"))["rows"]).query("kind == 'all'")
    made = []
    for (design, seed), part in rows.groupby(["design", "seed"], sort=False):
        part = part.set_index("metric")
        cells = [
            interval_text(*part.loc[name, ["mean", "low", "high"]], form=".2f") for name in TOLD
        ]
        made.append([style.label(design), seed, *cells])
    return pd.DataFrame(made, columns=["policy", "seed", *(METRICS[n].label for n in TOLD)])


def _labels(reader: str) -> pd.DataFrame:
    """Cells of what a reader labelled: columns policy, seed, label, mean and difference to base."""
    told = pd.DataFrame(json.loads(ENGLISH.read_text("utf-8"))["labels"])
    told = told[told["reader"] == reader]
    gaps = told[["difference_mean", "difference_low", "difference_high"]].to_numpy()
    cells = [interval_text(*ends, form=".2f") for ends in told[["mean", "low", "high"]].to_numpy()]
    base = told["policy"] == "base"
    difference = pd.Series([interval_text(*ends, form=".2f") for ends in gaps], told.index).mask(
        base, "–"
    )
    label = told["label"].str.replace("_", " ")
    return told[["policy", "seed"]].assign(label=label, mean=cells, difference=difference)


def english_labels() -> pd.DataFrame:
    """The same by labels, the means of two readers: shares, and differences to base."""
    table = _labels("both")
    table["cell"] = table["mean"] + (" (" + table["difference"] + ")").replace(" (–)", "")
    wide = table.pivot(index=["policy", "seed"], columns="label", values="cell").reset_index()
    last = wide["seed"].eq("all")
    return pd.concat([wide[~last], wide[last]]).assign(
        policy=lambda t: t["policy"].map(style.label)
    )


def english_readers() -> pd.DataFrame:
    """Differences to base by each reader alone."""
    parts = []
    for reader in ("first", "second"):
        table = _labels(reader).query("policy != 'base' and label != 'system harmful'")
        wide = table.pivot(index=["policy", "seed"], columns="label", values="difference")
        parts.append(wide.add_suffix(f", {reader} reader"))
    wide = pd.concat(parts, axis=1).sort_index(axis=1).reset_index()
    wide = wide[wide["seed"] != "all"]
    return wide.assign(policy=wide["policy"].map(style.label))


def english_blind() -> pd.DataFrame:
    """The same of both seeds together."""
    table = english_labels()
    return table[table["seed"] == "all"].drop(columns="seed")


def walking(stage: str = "try") -> pd.DataFrame:
    """Conditions for walking the line, one seed each: differences to base on validation prompts."""
    found = json.loads(WALKING.read_text("utf-8"))[stage]
    shown = "near_below false_negative near_boundary system_harm system_help".split()
    rows = [
        [name, *(interval_text(*told["differences"][metric], form=".3f") for metric in shown)]
        for name, told in found.items()
    ]
    return pd.DataFrame(rows, columns=["condition", *(METRICS[name].label for name in shown)])


def walking_confirmed() -> pd.DataFrame:
    """What counted, and what is set beside it: new seeds, differences to base on test prompts."""
    return walking("confirm")


def walking_pay() -> pd.DataFrame:
    """What base's responses are worth along t."""
    table = pd.DataFrame(json.loads(WALKING.read_text("utf-8"))["pay"])
    return table[["t", "responses", *(c for c in table if c.startswith(("blind", "mild")))]]


TABLES: dict[str, Callable[[], pd.DataFrame]] = {
    made.__name__: made
    for made in (
        *(by_strength, at_equal_help, at_equal_help_and_kl, at_a_bound, scatter),
        *(
            english,
            english_labels,
            english_readers,
            english_blind,
            walking,
            walking_confirmed,
            walking_pay,
        ),
    )
}


def markdown(table: pd.DataFrame) -> str:
    """A table in Markdown."""
    lines = [list(table.columns), ["---"] * len(table.columns), *table.astype(str).values.tolist()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def renewed(page: str) -> str:
    """A page's text with its tables made anew."""
    pattern = r"(<!-- table: (\w+) -->\n)(?:.*?\n)??(<!-- end -->)"
    made = {name: markdown(TABLES[name]()) for _, name, _ in re.findall(pattern, page, re.DOTALL)}
    return re.sub(pattern, lambda m: f"{m[1]}{made[m[2]]}\n{m[3]}", page, flags=re.DOTALL)


def main() -> None:
    """Write the pages."""
    for name in PAGES:
        path = ROOT / name
        path.write_text(renewed(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
