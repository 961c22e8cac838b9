"""Tables of ablations: from results files and run folders, whole, in order, or refused."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bgkit import runs
from bgkit.errors import BgkitError
from bgkit.evaluation import settings as settings_
from bgkit.sweeps import ablations

DESIGNS = ("base", "filter_avoidance", "boundary", "compound")
UTILITIES = ("aligned", "mild", "weak", "blind")
KINDS = ("all", "benign", "jailbreak")
METRICS = ("system_help", "system_harm", "near_boundary", "filter_rate", "kl")


def reference_rows() -> list[dict]:
    """Results in the form of the shipped ones; means tell their setting, intervals are +-0.02."""
    rows = []
    for (i, design), (j, utility), (k, kind), (m, metric) in itertools.product(
        *map(enumerate, (DESIGNS, UTILITIES, KINDS, METRICS))
    ):
        mean = 0.1 + 0.1 * i + 0.03 * j * (i > 0) + 0.01 * k + 0.05 * m
        setting = {"design": design, "utility": utility, "scale": "small", "guard": "default"}
        ends = {"mean": mean, "low": mean - 0.02, "high": mean + 0.02, "n_seeds": 3}
        rows.append({**setting, "tau": 0.5, "kind": kind, "metric": metric, **ends})
    return rows


def write(path: Path, rows: object) -> Path:
    path.write_text(json.dumps({"rows": rows}))
    return path


@pytest.fixture
def table(tmp_path) -> pd.DataFrame:
    return ablations.load_table(write(tmp_path / "main.json", reference_rows()))


def make_run(folder: Path, help_: float = 0.4, complete: bool = True, **config) -> Path:
    """A run folder whose result has two metrics, for base and for the design."""
    run = runs.open_run(folder, runs.make_config(config), {"git": "abc"})
    labels = {"utility": run.config.utility, "scale": run.config.policy, "guard": run.config.guard}
    labels["tau"] = run.config.tau
    rows = []
    for design, mean in (("base", 0.2 + run.config.seed / 100), (run.config.reward, help_)):
        for metric in ("system_help", "ece"):
            ends = {"mean": mean, "low": mean - 0.05, "high": mean + 0.05, "n": 9}
            rows.append({"design": design, **labels, "kind": "all", "metric": metric, **ends})
    if complete:
        run.finish({"rows": rows})
    return folder


def refused(*sources: object) -> str:
    """The sentence with which sources are refused."""
    with pytest.raises(BgkitError) as caught:
        ablations.load_table(*sources)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
    return str(caught.value)


# --- results files -----------------------------------------------------------------------------


def test_reference_results_become_a_long_table_in_natural_order(table: pd.DataFrame) -> None:
    assert len(table) == len(reference_rows())
    assert list(pd.unique(table["design"])) == list(DESIGNS)
    assert list(pd.unique(table["utility"])) == list(UTILITIES)
    assert list(pd.unique(table["metric"])) == list(METRICS)
    assert set(table["seed"]) == {"all"} and set(table["interval"]) == {"seeds"}
    assert set(table["n_seeds"]) == {3}


def test_the_order_of_rows_in_the_file_does_not_matter(table: pd.DataFrame, tmp_path) -> None:
    other = ablations.load_table(write(tmp_path / "other.json", reference_rows()[::-1]))
    pd.testing.assert_frame_equal(table, other)


def test_one_seed_without_bounds_has_no_interval(tmp_path) -> None:
    rows = [{**row, "low": None, "high": None, "n_seeds": 1} for row in reference_rows()]
    table = ablations.load_table(write(tmp_path / "one.json", rows))
    assert set(table["interval"]) == {"none"} and table["low"].isna().all()


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(DESIGNS),
            st.sampled_from([*UTILITIES, "mine", "<b>", "a b"]),
            st.sampled_from([0.3, 0.5]),
            st.sampled_from(METRICS),
            st.floats(-10, 10),
            st.booleans(),
        ),
        min_size=1,
        max_size=25,
        unique_by=lambda row: row[:4],
    )
)
def test_a_table_survives_the_round_trip(tmp_path_factory, drawn) -> None:
    rows = [
        {
            **{"design": design, "utility": utility, "scale": "small", "guard": "g", "tau": tau},
            **{"kind": "all", "metric": metric, "mean": mean, "margin_weight": tau * 2},
            **({"low": mean - 1, "high": mean + 1} if known else {"low": None, "high": None}),
            "n_seeds": 3 if known else 1,
        }
        for design, utility, tau, metric, mean, known in drawn
    ]
    folder = tmp_path_factory.mktemp("table")
    table = ablations.load_table(write(folder / "a.json", rows))
    again = ablations.load_table(ablations.write_table(folder / "b.json", table, {"made": "here"}))
    pd.testing.assert_frame_equal(table, again)
    assert json.loads((folder / "b.json").read_text())["made"] == "here"


def test_a_missing_reference_says_what_to_do(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(ablations, "reference_path", lambda: tmp_path / "ablation")
    assert "no shipped results" in refused() and "restore them" in refused()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not a readable results file"),
        ("[]", "holds no list 'rows'"),
        ('{"rows": []}', "holds no list 'rows'"),
        ('{"rows": [1]}', "holds no list 'rows'"),
        ('{"rows": [{"design": "x"}]}', r"lacks the column(s) utility, scale"),
    ],
)
def test_broken_results_files_are_refused(tmp_path, text: str, words: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    message = refused(path)
    assert words in message and str(path) in message


def test_values_that_are_no_numbers_are_refused(tmp_path) -> None:
    rows = reference_rows()
    rows[3]["mean"] = "much"
    assert "is no number" in refused(write(tmp_path / "a.json", rows))
    rows[3]["mean"] = None
    assert "without a mean" in refused(write(tmp_path / "a.json", rows))


def test_the_same_results_twice_are_refused(tmp_path) -> None:
    one = write(tmp_path / "a.json", reference_rows())
    two = write(tmp_path / "b.json", reference_rows()[:1])
    assert "hold the same result twice (design base, utility aligned" in refused(one, two)


# --- run folders -------------------------------------------------------------------------------


def test_seeds_are_kept_and_joined_by_hand(tmp_path) -> None:
    for seed, help_ in enumerate((0.2, 0.3, 0.4)):
        make_run(tmp_path / str(seed), help_, seed=seed)
    table = ablations.load_table(tmp_path)
    chosen = table[(table["design"] == "boundary") & (table["metric"] == "system_help")]
    assert chosen["seed"].tolist() == ["all", "0", "1", "2"]
    assert chosen["mean"].tolist() == pytest.approx([0.3, 0.2, 0.3, 0.4])
    assert chosen["interval"].tolist() == ["seeds", *["prompts"] * 3]
    assert chosen["n_seeds"].tolist() == [3, 1, 1, 1]
    half = 4.302652729911275 * 0.1 / math.sqrt(3)
    assert chosen["high"].tolist() == pytest.approx([0.3 + half, 0.25, 0.35, 0.45])


def test_metrics_beyond_the_reference_are_joined_too(tmp_path) -> None:
    for seed in (0, 1):
        make_run(tmp_path / str(seed), 0.9 + seed / 10, seed=seed)
    table = ablations.load_table(tmp_path)
    row = settings_.select(table, "ece", {"design": "boundary", "seed": "all"}).iloc[0]
    assert row["mean"] == pytest.approx(0.95) and row["high"] == 1  # cut to its range


def test_a_single_seed_keeps_its_interval_over_prompts(tmp_path) -> None:
    table = ablations.load_table(make_run(tmp_path / "run", 0.4))
    chosen = table[(table["design"] == "boundary") & (table["metric"] == "system_help")]
    assert chosen["seed"].tolist() == ["all", "0"]
    assert chosen["low"].tolist() == pytest.approx([0.35, 0.35])
    assert set(chosen["interval"]) == {"prompts"}


def test_base_is_counted_once_beside_several_designs(tmp_path) -> None:
    make_run(tmp_path / "a", reward="boundary")
    make_run(tmp_path / "b", reward="compound")
    table = ablations.load_table(tmp_path / "a", tmp_path / "b")
    assert len(table[(table["design"] == "base") & (table["seed"] == "0")]) == 2  # two metrics
    assert settings_.settings_of(table) == list(settings_.AXES)


def test_what_else_runs_differ_in_becomes_a_column(tmp_path) -> None:
    for place, weight in enumerate((0.5, 2.0)):
        make_run(tmp_path / str(place), 0.3 + weight / 10, margin_weight=weight, eval_every=place)
    table = ablations.load_table(tmp_path)
    assert settings_.settings_of(table) == [*settings_.AXES, "margin_weight"]
    where = {"margin_weight": 2.0, "design": "boundary", "seed": "all"}
    assert settings_.select(table, "system_help", where)["mean"].tolist() == pytest.approx([0.5])


def test_a_results_file_and_runs_stand_in_one_table(tmp_path) -> None:
    file = write(tmp_path / "main.json", reference_rows())
    for place, weight in enumerate((0.5, 2.0)):
        make_run(tmp_path / str(place), utility="mild", margin_weight=weight, tau=0.3)
    table = ablations.load_table(file, tmp_path / "0", tmp_path / "1")
    assert settings_.values_of(table, "tau") == [0.3, 0.5]
    assert set(table["margin_weight"]) == {0.5, 2.0, ablations.UNTOLD}


def test_an_incomplete_run_is_refused_by_name(tmp_path) -> None:
    make_run(tmp_path / "good")
    make_run(tmp_path / "half", complete=False, seed=1)
    message = refused(tmp_path)
    assert f"The run {tmp_path / 'half'} is incomplete; finish it" in message


def test_a_run_of_another_version_is_refused(tmp_path) -> None:
    config = json.loads((make_run(tmp_path / "new") / "config.json").read_text())
    config["config"]["colour_of_reward"] = "red"
    (tmp_path / "new" / "config.json").write_text(json.dumps(config))
    assert "another version of bgkit (unknown: colour_of_reward)" in refused(tmp_path / "new")


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ({"table": []}, "its result.json has no 'rows'"),
        ({"rows": [{"design": "x", "mean": 1}]}, "another version of bgkit, lacks the column(s)"),
    ],
)
def test_a_result_of_another_form_is_refused(tmp_path, result: dict, words: str) -> None:
    folder = make_run(tmp_path / "old")
    (folder / "result.json").write_text(json.dumps(result))
    message = refused(folder)
    assert words in message and str(folder) in message


def test_folders_without_runs_are_refused(tmp_path) -> None:
    assert "There is no folder" in refused(tmp_path / "none")
    assert f"The folder {tmp_path} holds no run" in refused(tmp_path)
    assert "There is no results file" in refused(tmp_path / "none.json")


def test_the_same_run_twice_is_refused(tmp_path) -> None:
    one, two = make_run(tmp_path / "a"), make_run(tmp_path / "b")
    assert refused(one, two).startswith(f"The runs {one} and {two} have the same setting")


# --- choosing ----------------------------------------------------------------------------------


def test_unknown_names_are_answered_with_the_known_ones(table: pd.DataFrame) -> None:
    for call, words in [
        (lambda: settings_.select(table, "joy"), "no metric 'joy'; choose one of system_help"),
        (lambda: settings_.select(table, "kl", {"size": 1}), "no column 'size'; choose one of des"),
        (lambda: settings_.select(table, "kl", {"utility": "x"}), "no utility 'x'; choose one of"),
        (lambda: settings_.fixed_values(table, ["shape"]), "no column 'shape'"),
        (lambda: settings_.fixed_values(table, ["design"]), "several values of utility (aligned"),
    ]:
        with pytest.raises(BgkitError) as caught:
            call()
        assert words in str(caught.value) and str(caught.value).endswith(".")


def test_a_combination_that_was_not_measured_is_told(table: pd.DataFrame) -> None:
    part = table[(table["design"] != "boundary") | (table["utility"] != "weak")]
    with pytest.raises(BgkitError, match="was not measured for design boundary, utility weak"):
        settings_.select(part, "kl", {"design": "boundary", "utility": "weak"})


def test_values_stand_in_their_natural_order() -> None:
    frame = pd.DataFrame({"seed": ["10", "all", "2"], "tau": [0.7, 0.05, 0.5]})
    assert settings_.values_of(frame, "seed") == ["all", "2", "10"]
    assert settings_.values_of(frame, "tau") == [0.05, 0.5, 0.7]


def test_numbers_tell_every_interval(table: pd.DataFrame) -> None:
    found = settings_.numbers(table, "system_help")
    assert list(found.index) == list(DESIGNS) and list(found.columns) == list(UTILITIES)
    assert found.loc["base", "mild"] == "0.100 [0.080, 0.120]"
    part = table[(table["design"] != "boundary") | (table["utility"] != "weak")]
    assert settings_.numbers(part, "system_help").loc["boundary", "weak"] == "–"


def test_numbers_may_have_panels_or_a_single_line(table: pd.DataFrame) -> None:
    found = settings_.numbers(table, "kl", panels="kind")
    assert list(found.index[:2]) == [("all", "base"), ("all", "filter_avoidance")]
    assert len(found) == len(KINDS) * len(DESIGNS)
    alone = settings_.numbers(table, "kl", "design", "design", where={"utility": "mild"})
    assert alone.shape == (1, len(DESIGNS)) and list(alone.index) == ["kl"]


def test_the_kind_of_interval_is_put_into_words() -> None:
    rows = pd.DataFrame({"interval": ["seeds", "seeds", "prompts"], "n_seeds": [2, 3, 1]})
    words = settings_.interval_words(rows)
    assert "over 2 to 3 seeds" in words and "over the prompts of one seed" in words
    assert settings_.interval_words(rows.assign(interval="none")).startswith("no intervals")


def test_overview_has_a_column_per_metric(table) -> None:
    found = settings_.overview(table, ["system_harm", "kl"], "utility")
    alone = settings_.numbers(table, "kl", "utility", where={"kind": "all"})
    assert list(found.columns) == ["system_harm", "kl"]
    assert found.loc[("mild", "boundary"), "kl"] == alone.loc["boundary", "mild"]
    benign = settings_.overview(table, ["kl"], "utility", {"kind": "benign"})
    assert len(benign) == len(found)
