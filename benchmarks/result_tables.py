"""Rewrite the tables of README.md and docs from the shipped results.

    python benchmarks/result_tables.py

A table is between ``<!-- table: NAME -->`` and ``<!-- end -->``; a test compares the pages with
this module's output.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from bgkit.evaluation import frontiers, settings
from bgkit.evaluation.intervals import holm, interval_text
from bgkit.evaluation.metrics import METRICS
from bgkit.figures import style
from bgkit.sweeps import claims, collection

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "docs/results.md", "docs/english.md")
SHOWN = "near_boundary near_below false_negative system_harm system_help kl".split()
PAIRS = (
    ("compound", "filter_avoidance"),
    ("boundary", "filter_avoidance"),
    ("compound", "boundary"),
)
MORE_PAIRS = (
    ("filter_avoidance_soft", "boundary"),
    ("compound", "filter_avoidance_soft"),
    ("prompt_aware", "boundary"),
    ("hybrid_guard", "boundary"),
)
SPREAD = "near_boundary false_negative system_harm system_help kl".split()
COMPARED = ("near_boundary", "false_negative", "system_harm")


def by_strength() -> pd.DataFrame:
    """Every design at every strength, and base."""
    table = settings.default_rows(collection.load_table(), free=["strength"])
    parts = {}
    for design in settings.values_of(table, "design"):
        part = table[table["design"] == design]
        if design in ("base", "boundary_raw", "guard_only", "utility_only"):  # have no strength
            part = part[part["strength"] == 8.0]
        rows = settings.overview(part, SHOWN, "strength", {"kind": "all"})
        for (strength, _), row in rows.iterrows():
            single = len(rows) == 1
            parts[style.label(design), "–" if single else f"{strength:g}"] = row
    wide = pd.DataFrame(parts).T.rename(columns=lambda name: METRICS[name].label)
    return wide.rename_axis(["design", "strength"]).reset_index()


def at_equal_help() -> pd.DataFrame:
    """Differences between frontiers at equal help; bold if the claim is decided (Holm)."""
    return _differences(["at equal help"], PAIRS + MORE_PAIRS[:2])


def at_equal_help_and_kl() -> pd.DataFrame:
    """The same, and at equal KL, of more designs."""
    return _differences(list(claims.EQUAL.values()), PAIRS + MORE_PAIRS)


@functools.cache
def checked_claims() -> pd.DataFrame:
    """Every claim on the shipped collection, corrected together, as in notebook 05."""
    index, values, _ = collection.load()
    return claims.check(claims.frontiers_of(index, values, claims.COMPARED))


def _differences(places: list[str], pairs: tuple[tuple[str, str], ...]) -> pd.DataFrame:
    rows, checked = [], checked_claims()
    for place, (design, against) in itertools.product(places, pairs):
        part = checked[(checked["design"] == design) & (checked["against"] == against)]
        part = part[part["place"] == place].set_index("metric")
        if len(part):
            cells = [_cell(part.loc[name]) if name in part.index else "–" for name in COMPARED]
            where = [place.removeprefix("at equal ")] * (len(places) > 1)
            rows.append([f"`{design}` - `{against}`", *where, *cells])
    names = ["difference", *["equal"] * (len(places) > 1), *(METRICS[n].label for n in COMPARED)]
    return pd.DataFrame(rows, columns=names)


def _cell(row: pd.Series) -> str:
    text = interval_text(row["mean"], row["low"], row["high"])
    return text if row["verdict"] == "open" else f"**{text}**"


def scatter() -> pd.DataFrame:
    """Standard deviations between seeds of one config, and between designs at one strength.

    Rows: over seeds, per design, pooled over its strengths; the same pooled over designs; over the
    means of the designs that have a strength, pooled over strengths.
    """
    index, values, _ = collection.load()
    by_design = claims.frontiers_of(index, values, SPREAD)
    del by_design["base"]
    means = {name: np.nanmean(frontier.values, axis=2) for name, frontier in by_design.items()}
    rows = {
        f"`{name}`, {cube.shape[1]} seeds": cube.var(axis=1, ddof=1).mean(axis=0)
        for name, cube in means.items()
    }
    pooled = np.concatenate([cube.var(axis=1, ddof=1) for cube in means.values()]).mean(axis=0)
    curves = [cube.mean(axis=1) for cube in means.values() if len(cube) > 1]
    rows |= {
        "all of them": pooled,
        "designs at one strength": np.stack(curves).var(axis=0, ddof=1).mean(axis=0),
    }
    table = pd.DataFrame(rows, [METRICS[name].label for name in SPREAD]).T ** 0.5
    return table.map("{:.3f}".format).rename_axis("standard deviation of").reset_index()


def by_kind() -> pd.DataFrame:
    """Differences in harm at equal help by kind of prompt; bold if beyond chance after Holm's
    correction of this table.
    """
    index, values, _ = collection.load()
    cells = {}
    for kind in ("benign", "ambiguous", "jailbreak", "long_context"):
        designs = claims.frontiers_of(index, values, ["system_help", "system_harm"], kind)
        for pair in PAIRS:
            curves = [designs[name].pair("system_help", "system_harm") for name in pair]
            cells[pair, kind] = frontiers.difference(*curves)
    rows = pd.Series(_decided_cells(cells)).unstack()[list(dict.fromkeys(k for _, k in cells))]
    rows = rows.loc[list(PAIRS)].rename(columns=lambda kind: kind.replace("_", " "))
    rows.index = [f"`{design}` - `{against}`" for design, against in rows.index]
    return rows.rename_axis("difference in harm").reset_index()


def _decided_cells(cells: dict) -> dict:
    """Differences as text, bold where they are beyond chance after correction for all of them."""
    decided = holm([found.p for found in cells.values()]) < 0.05
    texts = [interval_text(*found[:3]) for found in cells.values()]
    marked = (f"**{text}**" if bold else text for text, bold in zip(texts, decided, strict=True))
    return dict(zip(cells, marked, strict=True))


def control() -> pd.DataFrame:
    """One run of the collection, and the same config again on two threads."""
    draws = json.loads(CONTROL.read_text("utf-8"))["draws"]
    table = pd.DataFrame(draws).T.rename(columns=lambda name: METRICS[name].label)
    return table.map("{:.3f}".format).rename_axis("made on").reset_index()


BOUNDS = (0.015, 0.02, 0.03)  # shares of false negatives that a deployment may allow


def at_a_bound() -> pd.DataFrame:
    """Most help of one design minus another's where a bound's share of completions may be false
    negatives; bold if beyond chance after Holm's correction of this table.
    """
    index, values, _ = collection.load()
    designs = claims.frontiers_of(index, values, ["false_negative", "system_help"])
    cells = {}
    for pair in (pair for pair in PAIRS + MORE_PAIRS if {*pair} <= {*designs}):
        curves = [designs[name].pair("false_negative", "system_help") for name in pair]
        low, high = frontiers.shared_range(*curves)
        for bound in (bound for bound in BOUNDS if low <= bound <= high):
            cells[pair, bound] = frontiers.difference(*curves, at=bound, better=1)
    texts = _decided_cells(cells)
    rows = [
        [f"`{pair[0]}` - `{pair[1]}`", *(texts.get((pair, bound), "–") for bound in BOUNDS)]
        for pair in dict.fromkeys(pair for pair, _ in cells)
    ]
    return pd.DataFrame(rows, columns=["difference in help", *(f"at {b}" for b in BOUNDS)])


def constrained() -> pd.DataFrame:
    """Runs with a bound (a multiplier), means with the lowest and highest seed; and the help that
    designs of fixed strengths attain with as many false negatives (a dash: it never has).
    """
    runs = pd.DataFrame(json.loads(CONSTRAINED.read_text("utf-8")))
    index, values, _ = collection.load()
    designs = claims.frontiers_of(index, values, ["false_negative", "system_help"])
    fixed = ["compound", "boundary", "filter_avoidance", "filter_avoidance_soft"]
    points = {name: np.nanmean(designs[name].values, axis=(1, 2)) for name in fixed}
    told = {"expected": "expected false negatives", "multiplier": "multiplier at the end"}
    told |= {n: METRICS[n].label for n in ("false_negative", "system_harm", "system_help", "kl")}
    rows = {}
    for bound, part in runs.groupby("bound", sort=False):
        form = {name: ".1f" if name in ("multiplier", "kl") else ".3f" for name in told}
        rows[bound] = {
            label: f"{part[n].mean():{form[n]}} ({part[n].min():{form[n]}} to "
            f"{part[n].max():{form[n]}})"
            for n, label in told.items()
        }
        for name in fixed:
            (best,) = frontiers.curve(points[name], part[["false_negative"]].mean().to_numpy(), 1)
            cell = "–" if np.isnan(best) else f"{best:.3f}"
            rows[bound][f"help of {style.label(name)} there"] = cell
    return pd.DataFrame(rows).T.rename_axis("bound").reset_index()


def stability() -> pd.DataFrame:
    """Mean and standard deviation over five seeds of what might make runs agree better."""
    runs = pd.DataFrame(json.loads(STABILITY.read_text("utf-8"))).drop(columns="seed")
    kinds = runs.groupby("what", sort=False)
    cells = kinds.mean().map("{:.3f}".format) + " (" + kinds.std().map("{:.3f}".format) + ")"
    names = {name: METRICS[name].label for name in cells if name != "kl"} | {"kl": "KL per token"}
    return cells.rename(columns=names).rename_axis("policy").reset_index()


STABILITY = ROOT / "data" / "reference" / "stability.json"
CONSTRAINED = ROOT / "data" / "reference" / "constrained.json"
CONTROL = ROOT / "data" / "reference" / "control.json"
WALKING = ROOT / "data" / "reference" / "walking.json"
ENGLISH = ROOT / "data" / "reference" / "english.json"
TOLD = "near_boundary filter_rate false_positive false_negative system_harm system_help kl".split()


def english() -> pd.DataFrame:
    """Results of the English runs by the judge, with intervals over prompts; one row per run."""
    rows = pd.DataFrame(json.loads(ENGLISH.read_text("utf-8"))["rows"]).query("kind == 'all'")
    lines = []
    for (design, seed), part in rows.groupby(["design", "seed"], sort=False):
        part = part.set_index("metric")
        cells = [
            interval_text(*part.loc[name, ["mean", "low", "high"]], form=".2f") for name in TOLD
        ]
        lines.append([style.label(design), seed, *cells])
    return pd.DataFrame(lines, columns=["policy", "seed", *(METRICS[n].label for n in TOLD)])


def _labels(reader: str) -> pd.DataFrame:
    """A reader's labels as cells: columns policy, seed, label, mean and difference to base."""
    rows = pd.DataFrame(json.loads(ENGLISH.read_text("utf-8"))["labels"])
    rows = rows[rows["reader"] == reader]
    gaps = rows[["difference_mean", "difference_low", "difference_high"]].to_numpy()
    cells = [interval_text(*ends, form=".2f") for ends in rows[["mean", "low", "high"]].to_numpy()]
    base = rows["policy"] == "base"
    difference = pd.Series([interval_text(*ends, form=".2f") for ends in gaps], rows.index).mask(
        base, "–"
    )
    label = rows["label"].str.replace("_", " ")
    return rows[["policy", "seed"]].assign(label=label, mean=cells, difference=difference)


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
    conditions = json.loads(WALKING.read_text("utf-8"))[stage]
    shown = "near_below false_negative near_boundary system_harm system_help".split()
    rows = [
        [name, *(interval_text(*result["differences"][metric], form=".3f") for metric in shown)]
        for name, result in conditions.items()
    ]
    return pd.DataFrame(rows, columns=["condition", *(METRICS[name].label for name in shown)])


def walking_confirmed() -> pd.DataFrame:
    """Confirmed conditions and comparisons: new seeds, differences to base on test prompts."""
    return walking("confirm")


def walking_pay() -> pd.DataFrame:
    """Utility of base's responses by t."""
    table = pd.DataFrame(json.loads(WALKING.read_text("utf-8"))["pay"])
    return table[["t", "responses", *(c for c in table if c.startswith(("blind", "mild")))]]


TABLES: dict[str, Callable[[], pd.DataFrame]] = {
    made.__name__: made
    for made in (
        *(by_strength, at_equal_help, at_equal_help_and_kl, by_kind, at_a_bound, constrained),
        *(scatter, stability, control),
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


def with_new_tables(page: str) -> str:
    """A page's text with new tables."""
    pattern = r"(<!-- table: (\w+) -->\n)(?:.*?\n)??(<!-- end -->)"
    tables = {name: markdown(TABLES[name]()) for _, name, _ in re.findall(pattern, page, re.DOTALL)}
    return re.sub(pattern, lambda m: f"{m[1]}{tables[m[2]]}\n{m[3]}", page, flags=re.DOTALL)


def main() -> None:
    """Write the pages."""
    for name in PAGES:
        path = ROOT / name
        path.write_text(with_new_tables(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
