"""What notebooks say in words about their numbers, against the stored outputs."""

from __future__ import annotations

import base64
import json
import re
from html import unescape
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest

from bgkit.data import data_folder
from bgkit.evaluation import frontiers, settings
from bgkit.evaluation.intervals import crossed_bootstrap, interval_text
from bgkit.stress import deployments
from bgkit.sweeps import claims, collection

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
PLOTLY = "application/vnd.plotly.v1+json"


def outputs(name: str, source: str) -> list[dict]:
    """What the cell whose code holds ``source`` shows, as stored."""
    cells = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).cells
    (cell,) = [c for c in cells if c.cell_type == "code" and source in c.source]
    return [output.get("data", {}) for output in cell.outputs]


def tables(name: str, source: str) -> list[pd.DataFrame]:
    """The tables below the cell whose code holds ``source``: strings, under their last heading."""
    found = []
    for data in outputs(name, source):
        html = "".join(data.get("text/html", ""))
        rows = re.findall(r"<tr.*?</tr>", html, re.DOTALL)
        rows = rows[:1] + [row for row in rows[1:] if "<td" in row]
        parts = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
        if len(parts) > 1:
            # a row that goes on with the label above it is shorter: its values end the line, too
            heads, *lines = [[unescape(cell) for cell in row] for row in parts]
            width = rows[1].count("<td")
            index = [" ".join(line[:-width]) for line in lines]
            found.append(
                pd.DataFrame([line[-width:] for line in lines], index, heads[-width:]),
            )
    return found


def figure_of(name: str, source: str) -> dict:
    """The figure below the cell whose code holds ``source``, as stored."""
    return next(data[PLOTLY] for data in outputs(name, source) if PLOTLY in data)


def numbers(array: dict) -> np.ndarray:
    """The values of a figure's stored array."""
    return np.frombuffer(base64.b64decode(array["bdata"]), array["dtype"])


def means(values: pd.Series) -> pd.Series:
    """The numbers before the brackets."""
    return values.str.partition(" ")[0].str.rstrip("%").astype(float)


def bounds(value: str) -> tuple[float, float]:
    """Low and high of ``mean [low, high]``."""
    low, high = re.findall(r"\[(.*?), (.*?)\]", value)[0]
    return float(low.rstrip("%")), float(high.rstrip("%"))


def prose(name: str) -> str:
    """All markdown of a notebook, in one line."""
    cells = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).cells
    return " ".join(" ".join(c.source for c in cells if c.cell_type == "markdown").split())


def test_00_a_better_pair_than_base() -> None:
    (table,) = tables("00_quickstart", "bgkit.table([run], shown)")
    for metric in ("near_boundary", "false_negative", "system_harm", "system_help"):
        assert table.loc[metric, "boundary"].endswith("*")
    filtered = means(table.loc["filter_rate"])
    assert filtered["boundary"] < filtered["base"]


def test_01_quantiles_costs_and_zones() -> None:
    (quantiles,) = tables("01_filtered_generation", ".describe()")
    quantiles = quantiles.astype(float)
    assert quantiles.loc["safe", "75%"] <= 0.01 and quantiles.loc["harmful", "50%"] >= 0.92
    assert quantiles.loc["harmful", "25%"] < 0.70

    (costs,) = tables("01_filtered_generation", "risk.cost_table(")
    equal = costs[costs.index.str.contains("1 : 1")].astype(float)
    lost = equal["lost"] / equal["at_tau"]
    assert lost["alarmed 1 : 1"] == pytest.approx(1 / 7, abs=0.01)
    assert lost["trusting 1 : 1"] == pytest.approx(1 / 7, abs=0.01)
    assert equal.loc["overconfident 1 : 1", "lost"] == 0
    over = equal["at_tau"] / equal.loc["calibrated 1 : 1", "at_tau"]
    assert over["overconfident 1 : 1"] == pytest.approx(4, abs=0.1)

    (near,) = tables("01_filtered_generation", "risk.near_table(")
    row = near.loc["default"]
    said = f"{means(near['responses near'])['default']:.0f} % of the responses are near"
    share = row["near part of the whole cost"].replace("%", " %")
    assert f"{said} the boundary and carry {share} of the whole cost" in prose(
        "01_filtered_generation"
    )
    ratios = means(near["error rate near"]) / means(near["error rate far"])
    assert f"wrong {ratios.min():.0f} to {ratios.max():.0f} times" in prose(
        "01_filtered_generation"
    )
    for _, line in near.iterrows():
        assert bounds(line["error rate far"])[1] < bounds(line["error rate near"])[0]
    part = means(near["near part of the whole cost"])["overconfident"]
    assert f"only {part:.0f} % of the cost is left near" in prose("01_filtered_generation")
    assert means(near["error rate far"]).idxmax() == "weak"


def test_01_the_formula_holds_in_every_bin() -> None:
    figure = figure_of("01_filtered_generation", "widgets.measured_risk(")
    texts = [text for trace in figure["data"] for text in trace.get("hovertext", ())]
    told = r"mean (.*)<br>\d+ errors in (\d+) responses<br>error rate \S+ \((.*) to (.*)\)"
    bins = np.array([re.findall(told, text)[0] for text in texts if "error rate" in text], float)
    t, n, low, high = bins.T
    assert len(bins) == 10 and (low <= np.minimum(t, 1 - t)).all()
    assert (np.minimum(t, 1 - t) <= high).all()
    middle = n[2:8].astype(int)
    said = f"Each bin near the middle holds {middle.min()} to {middle.max()} responses"
    assert said in prose("01_filtered_generation")


def test_03_kl_of_a_response_and_of_its_tokens() -> None:
    (table,) = tables("03_train_policy", "bgkit.table([run])")
    curves = figure_of("03_train_policy", "training_curves")["data"]
    per_token = numbers(curves[3]["y"])[-10:].mean()
    assert means(table.loc["kl"])["boundary"] / per_token == pytest.approx(20, rel=0.25)


def test_05_what_paths_do() -> None:
    """By the shipped collection, whose tables notebook 05 stores under nbval's eyes."""
    designs = settings.default_rows(collection.load_table(), free=["strength"])
    found = designs[(designs["kind"] == "all") & (designs["seed"] == "all")]
    at = found.set_index(["design", "metric", "strength"])["mean"].sort_index()
    for metric in ("system_harm", "system_help"):
        base = at["base", metric].mean()
        for design in ("boundary", "filter_avoidance", "filter_avoidance_soft"):
            path = at[design, metric]
            assert path.iloc[0] > base, "a weak penalty gives more than base"
            assert path.iloc[-1] < path.iloc[0], "a heavy one gives less"
    base = json.loads((data_folder() / "runs" / "boundary" / "base.json").read_text())
    assert base["utility_deviation"] == pytest.approx(0.9, abs=0.05)
    raw, weakest = at["boundary_raw"], at["boundary"].xs(1.0, level="strength")
    for metric in ("near_boundary", "system_help"):  # "near a strength of 1"
        assert raw[metric].mean() == pytest.approx(weakest[metric], abs=0.03)


def of_walking(design: str) -> np.ndarray:
    """Whether responses (seeds, prompts, 2) lie just below the line, and are false negatives."""
    walking = collection.load_walking()
    rows = walking[walking["design"] == design]
    missed = (rows["t"] < 0.5) & (rows["harm"] > 0.5)
    values = np.stack([rows["t"].between(0.2, 0.5, "left"), missed], axis=-1)
    return values.astype(float).reshape(3, 800, 2)


def test_05_who_walks_to_the_line() -> None:
    found = json.loads((data_folder() / "reference" / "walking.json").read_text())
    counts = {
        name: all(told["differences"][metric][1] > 0 for metric in ("near_below", "false_negative"))
        for name, told in found["try"].items()
    }
    assert len(counts) == 17 and "Seventeen conditions" in prose("05_ablations")
    careful = {"cautious policy", "cautious policy, blind"}
    assert {name for name, walks in counts.items() if walks} == careful
    avoidance, utility, boundary = (
        found["confirm"][f"cautious policy{more}"]["differences"]
        for more in ("", ", utility only", ", boundary 8")
    )
    assert len(found["confirm"]["cautious policy"]["seeds"]) == 3
    for metric in ("near_below", "false_negative"):
        assert avoidance[metric][1] > 0 and boundary[metric][1] < 0
        nearly_twice = utility[metric][0] / avoidance[metric][0]
        assert nearly_twice == pytest.approx(1.8, abs=0.1)
    said = collection.load_walking().groupby("design")["t"]
    before, after = (said.get_group(name) for name in ("before training", "filter_avoidance 2"))
    assert [round((t >= 0.5).mean(), 3) for t in (before, after)] == [0.006, 0.065]
    tenths = np.histogram(after, [0.2, 0.3, 0.4, 0.5])[0] / len(after)
    assert tenths.round(3).tolist() == [0.022, 0.016, 0.011]
    gap = of_walking("filter_avoidance 2") - of_walking("utility_only")
    page = " ".join((FOLDER.parent / "docs" / "results.md").read_text("utf-8").split())
    for interval in crossed_bootstrap(gap, rates=False):
        assert interval_text(*interval, form=".3f") in page
    _, values, _ = collection.load()
    base = values[values["run"].str.startswith("base")]
    assert base["near"].mean() == pytest.approx(1 / 8, abs=0.01)
    worth = pd.DataFrame(found["pay"]).set_index("t")
    near, further = worth.loc["0.2 to 0.5"], worth.loc["0.05 to 0.2"]
    assert near["blind, best tenth"] - further["blind, best tenth"] == pytest.approx(0.1, abs=0.01)
    assert near["mild, best tenth"] == pytest.approx(further["mild, best tenth"], abs=0.05)


def test_06_what_the_judge_sees_in_the_shipped_run() -> None:
    (table,) = tables("06_your_own_models", "bgkit.table([run], shown)")
    assert table.loc["system_help", "boundary"].endswith("*")
    assert table.loc["raw_harm", "boundary"].endswith("!")
    assert not table.loc["system_harm", "boundary"].endswith("!")
    (guard,) = tables("06_your_own_models", "guards.try_guard(")
    t = guard["t"].astype(float)
    harmful = guard["harmful"].astype(str) == "True"
    assert t[~harmful].max() < t[harmful].min() and t.max() < 0.5


@pytest.mark.slow
def test_05_what_is_decided_between_designs() -> None:
    between, beside = tables("05_ablations", "claims.as_table")
    decided = between.apply(lambda column: column.str.startswith("holds"))
    assert len(between) == 24 and not between.apply(lambda c: c.str.startswith("fails")).any().any()
    hard = ["Compound: less harm than hard avoidance", "... less mass near the boundary"]
    assert decided.index[decided["at equal help"]].tolist() == hard
    more = ["... less harm", "Compound: less harm than soft avoidance", *hard]
    more += [
        f"... fewer false {errors} than hard avoidance" for errors in ("negatives", "positives")
    ]
    assert decided.index[decided["at equal KL"]].tolist() == more
    for claim in ("Prompt-aware: more harm than boundary", "Hybrid guard: less harm than boundary"):
        assert between.loc[claim].str.startswith("open").all()
    alone = beside["without strength"]
    page = " ".join((FOLDER.parent / "docs" / "results.md").read_text("utf-8").split())
    for claim, verdict in (
        ("Boundary raw leaves the boundary", "fails"),
        ("Utility only moves mass near the boundary", "holds"),
    ):
        assert alone[claim].startswith(verdict)
        assert alone[claim].partition(" ")[2].replace("[+", "[").replace(", +", ", ") in page
    index, values, _ = collection.load()
    designs = claims.frontiers_of(index, values, ["kl", "system_help"])
    for pair in (("boundary", "filter_avoidance"), ("compound", "filter_avoidance_soft")):
        curves = (designs[name].pair("kl", "system_help") for name in pair)
        found = frontiers.difference(*curves, better=1)
        assert found.high < 0, "less help, too"
        assert f"{-found.mean:.3f} [{-found.high:.3f}, {-found.low:.3f}]" in page


@pytest.mark.slow
def test_07_designs_behind_other_deployments() -> None:
    (table,) = tables("07_stress_tests", "deployments.as_table")[:1]
    decided = table.apply(lambda column: column.str.contains("*", regex=False))
    assert decided.shape == (17, 7)
    assert decided["compound - filter avoidance"][:11].sum() == 10 == decided.sum().sum()
    assert (means(table["compound - filter avoidance"]) < 0).all()
    assert (means(table["compound - boundary"]) < 0).all()
    assert means(table["compound - boundary"]).abs().median() == pytest.approx(0.005, abs=0.001)
    index, values, _ = collection.load()
    apart = deployments.differences(index, values, deployments.measured_values())
    assert set(apart["n_seeds"]) == {3} and len(set(apart["deployment"])) == 6


def test_07_designs_beside_base_where_they_were_measured() -> None:
    (table,) = tables("07_stress_tests", "deployments.gains_over_base")
    names = sorted(line.split(" ")[-1] for line in table.index[:6])
    ends = [
        part.set_axis(names).map(lambda cell: (np.nan, np.nan) if cell == "–" else bounds(cell))
        for part in (table.iloc[:6], table.iloc[6:])
    ]
    less_harm, more_help = ends[0].map(lambda e: e[1] < 0), ends[1].map(lambda e: e[0] > 0)
    assert more_help.drop(columns="attacked").drop(index="hybrid_guard").all(axis=None)
    guards = ["guard other", "guard weak"]
    assert not more_help.loc["hybrid_guard", guards].any()
    assert (table.iloc[6:, :5].apply(means) > 0).all(axis=None)
    assert more_help.loc["hybrid_guard", ["unseen items", "unseen jailbreaks"]].all()
    strangers = ["unseen items", "unseen jailbreaks"]
    for name, where in {
        "compound": ["guard weak", *strangers, "attacked"],
        "filter_avoidance": ["guard weak", *strangers, "attacked"],
        "boundary": strangers,
    }.items():
        assert table.columns[less_harm.loc[name]].tolist() == where
    assert not less_harm[["guard other", "300-600 words"]].any(axis=None)


def test_07_best_of_n_and_rejection() -> None:
    *_, table = tables("07_stress_tests", "stress.best_of_n(")
    for metric in ("system_help - boundary's", "system_harm - boundary's"):
        low, high = bounds(table.loc["best of 8: boundary", metric])
        assert low <= 0 <= high
    assert means(table["system_help"]).idxmax() == "best of 8: utility"
    assert means(table["system_harm"]).idxmax() == "best of 8: utility"
    harm = means(table["system_harm"])[[f"best of {n}: utility" for n in (2, 4, 8)]]
    assert harm.is_monotonic_increasing
    tokens = table["tokens per answer"].astype(float)
    assert tokens["best of 8: boundary"] / tokens["base"] == pytest.approx(8, abs=0.1)
    assert bounds(table.loc["rejection fine-tuning: boundary", "system_help - boundary's"])[1] < 0


def test_07_hacking_and_harm_that_goes_unseen() -> None:
    *_, table = tables("07_stress_tests", "stress.hacking_over_training(")
    assert set(table.loc["hacked"]) == {"no"}
    past = table.loc["past its best"]
    assert past[past == "yes"].index.tolist() == ["compound", "filter_avoidance"]
    assert (table.loc["true help, last - first window"].map(bounds).str[0] > 0).all()
    low, high = zip(*table.loc["true harm, last - first window"].map(bounds), strict=True)
    assert high[0] < 0 < low[2]  # boundary's harm fell, that of filter_avoidance rose
    unseen = table.loc["share of harm at t < 0.2, last - first window"].map(bounds)
    low, high = zip(*unseen, strict=True)
    assert low[2] > 0 and all(low[i] <= 0 <= high[i] for i in (0, 1))
    (refitted,) = tables("07_stress_tests", "stress.unseen_harm(")
    assert all(low <= 0 <= high for low, high in map(bounds, refitted["gain"]))
    recall = means(refitted["guard"]).to_numpy().reshape(-1, 2)  # first and last window
    fall = recall[:, 0] - recall[:, 1]
    assert (fall > 0).all() and fall.argmin() == 0  # boundary's is the least
