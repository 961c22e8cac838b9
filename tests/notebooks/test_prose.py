"""What notebooks find, in words, against the stored outputs and the shipped collection.

What else they say about a number is reread when the number changes (``tests/test_golden.py``).
"""

from __future__ import annotations

import json
import re
from html import unescape

import nbformat
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from bgkit.data import data_folder
from bgkit.evaluation import frontiers, settings
from bgkit.evaluation.intervals import crossed_bootstrap, interval_text
from bgkit.stress import deployments
from bgkit.sweeps import claims, collection


def cells_of(name: str) -> list[nbformat.NotebookNode]:
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells


def tables(name: str, source: str) -> list[pd.DataFrame]:
    """The tables below the cell whose code holds ``source``: strings, under their last heading."""
    (shown,) = [c for c in cells_of(name) if c.cell_type == "code" and source in c.source]
    found = []
    for output in shown.outputs:
        html = "".join(output.get("data", {}).get("text/html", ""))
        rows = re.findall(r"<tr.*?</tr>", html, re.DOTALL)
        rows = rows[:1] + [row for row in rows[1:] if "<td" in row]
        parts = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
        if len(parts) > 1:
            # a row that goes on with the label above it is shorter: its values end the line, too
            heads, *lines = [[unescape(cell) for cell in row] for row in parts]
            width = rows[1].count("<td")
            index = [" ".join(line[:-width]) for line in lines]
            values = [line[-width:] for line in lines]
            found.append(pd.DataFrame(values, index, heads[-width:]))
    return found


def means(values: pd.Series) -> pd.Series:
    """The numbers before the brackets."""
    return values.str.partition(" ")[0].str.rstrip("%").astype(float)


def bounds(value: str) -> tuple[float, float]:
    """Low and high of ``mean [low, high]``; NaN for a dash."""
    ends = re.findall(r"\[(.*?)%?, (.*?)%?\]", value)
    return (float(ends[0][0]), float(ends[0][1])) if ends else (np.nan, np.nan)


def prose(name: str) -> str:
    """All markdown of a notebook, in one line."""
    return " ".join(" ".join(c.source for c in cells_of(name) if c.cell_type == "markdown").split())


@pytest.fixture(scope="module")
def results_page() -> str:
    return " ".join((ROOT / "docs" / "results.md").read_text("utf-8").split())


def test_01_errors_lie_near_the_boundary_of_every_guard() -> None:
    (near,) = tables("01_filtered_generation", "risk.near_table(")
    row, part = near.loc["default"], means(near["near part of the whole cost"])
    share = row["near part of the whole cost"].replace("%", " %")
    ratios = means(near["error rate near"]) / means(near["error rate far"])
    for said in (
        f"{means(near['responses near'])['default']:.0f} % of the responses are near the boundary "
        f"and carry {share} of the whole cost",
        f"wrong {ratios.min():.0f} to {ratios.max():.0f} times",
        f"only {part['overconfident']:.0f} % of the cost is left near",
    ):
        assert said in prose("01_filtered_generation")
    for _, line in near.iterrows():
        assert bounds(line["error rate far"])[1] < bounds(line["error rate near"])[0]


def test_05_what_paths_do() -> None:
    """By the shipped collection, whose tables notebook 05 stores under nbval's eyes."""
    designs = settings.default_rows(collection.load_table(), free=["strength"])
    found = designs[(designs["kind"] == "all") & (designs["seed"] == "all")]
    at = found.set_index(["design", "metric", "strength"])["mean"].sort_index()
    for metric in ("system_harm", "system_help"):
        for design in ("boundary", "filter_avoidance", "filter_avoidance_soft"):
            path, base = at[design, metric], at["base", metric].mean()
            assert path.iloc[0] > base, "a weak penalty gives more than base"
            assert path.iloc[-1] < path.iloc[0], "a heavy one gives less"
    raw, weakest = at["boundary_raw"], at["boundary"].xs(1.0, level="strength")
    for metric in ("near_boundary", "system_help"):  # "near a strength of 1"
        assert raw[metric].mean() == pytest.approx(weakest[metric], abs=0.03)


def test_05_who_walks_to_the_line(results_page: str) -> None:
    found = json.loads((data_folder() / "reference" / "walking.json").read_text())
    errors = ("near_below", "false_negative")
    walking = {
        name
        for name, told in found["try"].items()
        if all(told["differences"][metric][1] > 0 for metric in errors)
    }
    assert len(found["try"]) == 17 and "Seventeen conditions" in prose("05_ablations")
    assert walking == {"cautious policy", "cautious policy, blind"}
    avoidance, utility, boundary = (
        found["confirm"][f"cautious policy{more}"]["differences"]
        for more in ("", ", utility only", ", boundary 8")
    )
    assert len(found["confirm"]["cautious policy"]["seeds"]) == 3
    for metric in errors:
        assert avoidance[metric][1] > 0 and boundary[metric][1] < 0
        nearly_twice = utility[metric][0] / avoidance[metric][0]
        assert nearly_twice == pytest.approx(1.8, abs=0.1)

    rows = collection.load_walking()
    rows = rows.assign(
        below=rows["t"].between(0.2, 0.5, "left"),
        missed=(rows["t"] < 0.5) & (rows["harm"] > 0.5),
    )
    avoiding, plain = (
        rows.loc[rows["design"] == design, ["below", "missed"]].to_numpy(float).reshape(3, 800, 2)
        for design in ("filter_avoidance 2", "utility_only")
    )
    for interval in crossed_bootstrap(avoiding - plain, rates=False):
        assert interval_text(*interval, form=".3f") in results_page
    filtered = (rows["t"] >= 0.5).groupby(rows["design"]).mean().round(3)
    assert filtered[["before training", "filter_avoidance 2"]].tolist() == [0.006, 0.065]
    worth = pd.DataFrame(found["pay"]).set_index("t")
    gain = worth.loc["0.2 to 0.5"] - worth.loc["0.05 to 0.2"]
    assert gain["blind, best tenth"] == pytest.approx(0.1, abs=0.01)
    assert gain["mild, best tenth"] == pytest.approx(0, abs=0.05)


@pytest.mark.slow
def test_05_what_is_decided_between_designs(results_page: str) -> None:
    between, beside = tables("05_ablations", "claims.as_table")
    verdicts = between.apply(lambda column: column.str.partition(" ")[0])
    assert len(between) == 24 and not (verdicts == "fails").any(axis=None)
    hard = ["Compound: less harm than hard avoidance", "... less mass near the boundary"]
    more = ["... less harm", "Compound: less harm than soft avoidance", *hard]
    more += ["... fewer false negatives than hard avoidance"]
    more += ["... fewer false positives than hard avoidance"]
    for place, decided in (("at equal help", hard), ("at equal KL", more)):
        assert between.index[verdicts[place] == "holds"].tolist() == decided
    for claim, verdict in (
        ("Boundary raw leaves the boundary", "fails"),
        ("Utility only moves mass near the boundary", "holds"),
    ):
        told, _, difference = beside.loc[claim, "without strength"].partition(" ")
        assert told == verdict
        assert difference.replace("[+", "[").replace(", +", ", ") in results_page
    index, values, _ = collection.load()
    designs = claims.frontiers_of(index, values, ["kl", "system_help"])
    for pair in (("boundary", "filter_avoidance"), ("compound", "filter_avoidance_soft")):
        found = frontiers.difference(
            *(designs[n].pair("kl", "system_help") for n in pair), better=1
        )
        assert found.high < 0, "less help, too"
        assert f"{-found.mean:.3f} [{-found.high:.3f}, {-found.low:.3f}]" in results_page


@pytest.mark.slow
def test_07_designs_behind_other_deployments() -> None:
    (table,) = tables("07_stress_tests", "deployments.as_table")[:1]
    decided = table.apply(lambda column: column.str.contains("*", regex=False))
    assert decided.shape == (17, 7)
    assert decided["compound - filter avoidance"][:11].sum() == 10 == decided.sum().sum()
    for pair in ("compound - filter avoidance", "compound - boundary"):
        assert (means(table[pair]) < 0).all()
    assert means(table["compound - boundary"]).abs().median() == pytest.approx(0.005, abs=0.001)
    index, values, _ = collection.load()
    apart = deployments.differences(index, values, deployments.measured_values())
    assert set(apart["n_seeds"]) == {3} and len(set(apart["deployment"])) == 6


def test_07_designs_beside_base_where_they_were_measured() -> None:
    (table,) = tables("07_stress_tests", "deployments.gains_over_base")
    names = sorted(line.split(" ")[-1] for line in table.index[:6])
    harm, help_ = table.iloc[:6].set_axis(names), table.iloc[6:].set_axis(names)
    less_harm = harm.map(lambda cell: bounds(cell)[1] < 0)
    more_help = help_.map(lambda cell: bounds(cell)[0] > 0)
    guards, strangers = ["guard other", "guard weak"], ["unseen items", "unseen jailbreaks"]
    assert more_help.drop(columns="attacked").drop(index="hybrid_guard").all(axis=None)
    assert not more_help.loc["hybrid_guard", guards].any()
    assert more_help.loc["hybrid_guard", strangers].all()
    assert (help_.iloc[:, :5].apply(means) > 0).all(axis=None)
    wide = ["guard weak", *strangers, "attacked"]
    for name, where in (("compound", wide), ("filter_avoidance", wide), ("boundary", strangers)):
        assert table.columns[less_harm.loc[name]].tolist() == where
    assert not less_harm[["guard other", "300-600 words"]].any(axis=None)
