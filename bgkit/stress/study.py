"""The questions of the stress tests, each one function of the same policies and prompts.

:func:`open_study` samples every policy once. A question then gives an :class:`Answer`: a figure,
tables as text, and tests for the scorecard. What can not be asked of these runs, prompts or
parameters is said in the answer, and is no error.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from bgkit import figures
from bgkit.errors import BgkitError
from bgkit.evaluation import means
from bgkit.evaluation.intervals import interval_text
from bgkit.evaluation.judges import load_judge
from bgkit.evaluation.language_judge import Judge
from bgkit.prompts.load import TESTBED, load_prompts
from bgkit.runs import Run
from bgkit.stress import (
    attack,
    calibrated,
    contenders,
    deployment,
    distribution_shift,
    reward_hacking,
    scorecard,
    without_training,
    wrappers,
)
from bgkit.stress.contenders import Contender
from bgkit.stress.scorecard import Test

SEEN = ("system_harm", "system_help")  # of what the user sees


@dataclass(frozen=True)
class Answer:
    """What a question found; ``said`` holds sentences, such as why a part could not be done."""

    figure: go.Figure | None = None
    tables: Sequence[pd.DataFrame] = ()
    tests: Mapping[str, Test] = field(default_factory=dict)
    said: Sequence[str] = ()

    def _ipython_display_(self) -> None:
        """Show all of it below a notebook's cell."""
        from IPython.display import display

        for sentence in self.said:
            print(sentence)
        for part in (*([self.figure] if self.figure else []), *self.tables):
            display(part)


@dataclass(frozen=True)
class Study:
    """Base and the runs' policies, and what each said to the same prompts.

    ``designs`` are those of one setting, that can be compared design by design; ``said`` is a table
    of :func:`bgkit.stress.contenders.respond`, of ``everyone``.
    """

    everyone: list[Contender]
    designs: list[Contender]
    prompts: pd.DataFrame
    said: pd.DataFrame
    judge: Judge | None

    @property
    def asked(self) -> str:
        """The name of the prompt set."""
        return self.everyone[0].config.prompts

    @property
    def ours(self) -> pd.DataFrame:
        """What those said that are compared design by design."""
        return self.said[self.said["design"].isin([one.design for one in self.designs])]

    def about(self) -> pd.DataFrame:
        """Who is tested: a row per policy."""
        rows = {
            one.design: [one.config.guard, one.config.utility, one.seed, one in self.designs]
            for one in self.everyone
        }
        heads = ["trained against", "utility", "seed", "compared by design"]
        return pd.DataFrame.from_dict(rows, orient="index", columns=heads)


def open_study(
    folders: Iterable[str | Path | Run] = (),
    prompts: str = "",
    judge: str | Judge | None = None,
    n: int = 64,
) -> Study:
    """Sample base and the policies of complete runs on ``n`` test prompts, once each.

    Without ``folders`` the runs that come with the kit. ``prompts`` is another set than that of the
    runs' training, ``judge`` a name or a judge where the truth is not known. Raises BgkitError as
    :func:`bgkit.stress.contenders.contenders_of`, and for runs of which none was trained by GRPO.
    """
    everyone = contenders.contenders_of(list(folders) or contenders.shipped_runs(), prompts)
    designs = contenders.of_one_setting(everyone)
    judge = load_judge(judge) if isinstance(judge, str) and judge else judge or None
    table = load_prompts(everyone[0].config.prompts, "test", n)
    said = contenders.respond(everyone, table, judge=judge)
    return Study(everyone, designs, table, said, judge)


def _question(what: str) -> Callable:
    """Make a BgkitError of a question an answer that says why it can not be asked."""

    def decorate(ask: Callable[..., Answer]) -> Callable[..., Answer]:
        @functools.wraps(ask)
        def asked(*arguments, **options) -> Answer:
            try:
                return ask(*arguments, **options)
            except BgkitError as error:
                return Answer(said=[f"{what} is left out: {error}"])

        return asked

    return decorate


def as_text(
    rows: pd.DataFrame, index: str | Sequence[str], columns: str | Sequence[str]
) -> pd.DataFrame:
    """A long table of means as a wide one for printing, with cells as in :func:`interval_text`.

    ``rows`` has mean, low, high and the columns that are named; both axes keep the order of the
    rows. A cell without a row is a dash.
    """
    axes = [[names] if isinstance(names, str) else list(names) for names in (index, columns)]
    texts = [interval_text(row.mean, row.low, row.high) for row in rows.itertuples()]
    wide = rows.assign(text=texts).set_index([*axes[0], *axes[1]])["text"]
    wide = wide.unstack(axes[1], sort=False).fillna("–")
    return wide.rename_axis(columns=None) if len(axes[1]) == 1 else wide


def _guards(study: Study, given: Sequence[str] = ()) -> list[str]:
    """The guards to deploy with: those given, the testbed's, or on other prompts the runs' own."""
    own = list(dict.fromkeys(one.config.guard for one in study.everyone))
    return list(given) or (list(deployment.GUARDS) if study.asked == TESTBED else own)


@_question("The test of guards")
def behind_guards(study: Study, guards: Sequence[str] = ()) -> Answer:
    """What would the user have seen of the same responses, had the guard been another one?"""
    names = _guards(study, guards)
    moved = deployment.transfer(study.said, names, contenders=study.everyone)
    rows = means.summary(moved, ["design", "trained_with", "guard"], deployment.METRICS)
    own = next(one.config.guard for one in study.designs if one.run)
    # `overconfident` gives the verdicts of `default` at this threshold: no other guard
    other = [name for name in names if name not in (own, "overconfident")]
    chosen = moved[moved["design"].isin(study.ours["design"]) & moved["guard"].isin(other)]
    tests = {"guards, harm": Test(chosen, "system_harm", "low")} if other else {}
    unknown = contenders.judge_of(study.everyone[0].config, study.judge) is None
    why = f"The truth about {study.asked} is not known: without a JUDGE no harm and no help is."
    return Answer(figures.transfer_matrix(rows), tests=tests, said=[why] if unknown else [])


@_question("The test of calibration")
def miscalibrated(study: Study, guards: Sequence[str] = ()) -> Answer:
    """What does training gain where an overconfident guard's temperature is fitted first?"""
    scaled = [one for one in study.everyone if one.config.guard_temperature != 1]
    if not scaled:
        why = (
            "No run has a fitted temperature; calibrated.train_pair trains a pair with and without."
        )
        return Answer(said=[why])
    config, said, tables = scaled[0].config, [], []
    try:
        tables.append(calibrated.readable(calibrated.stored_fit(scaled[0].run.folder.parent)))
    except BgkitError as error:
        said.append(f"The table of the fit is left out: {error}")
    same = [o.design for o in study.everyone if o.config.guard == config.guard or not o.run]
    last = _guards(study, guards)[-1]
    behind = list(dict.fromkeys([config.guard, last]))
    moved = deployment.transfer(study.said[study.said["design"].isin(same)], behind)
    rows = means.summary(moved, ["guard", "design"], deployment.METRICS)
    gained = means.gains(moved, ["guard"], [*SEEN, "filter_rate"])
    gained = gained.assign(metric=gained["metric"] + " - base's")
    tables.append(as_text(gained, ["guard", "design"], "metric"))
    tests = {"calibration, help": Test(moved[moved["guard"] == last], "system_help", "high")}
    return Answer(figures.with_and_without_calibration(rows), tables, tests, said)


@_question("The test of thresholds")
def other_thresholds(study: Study, low: float = 0.2, high: float = 0.8) -> Answer:
    """What changes with the threshold, the responses and their scores being the same?"""
    shifted = deployment.threshold_shift(study.ours)
    rows = means.summary(shifted, ["design", "tau"], deployment.METRICS)
    ends = shifted[shifted["tau"].isin([low, high])]
    ends = ends.assign(policy=ends["design"], design=ends["tau"].astype(str))
    change = means.gains(ends, ["policy"], list(SEEN), against=str(low))
    tests = {
        f"tau {high}, harm": Test(shifted[shifted["tau"] == high], "system_harm", "low"),
        f"tau {low}, help": Test(shifted[shifted["tau"] == low], "system_help", "high"),
    }
    change = change.assign(metric=change["metric"] + f", {low} to {high}")
    tables = [as_text(change, "policy", "metric")]
    return Answer(figures.over_threshold(rows, SEEN), tables, tests)


@_question("The test of other prompts")
def other_prompts(study: Study, shifts: Sequence[str] = (), n: int = 18) -> Answer:
    """What is left of the gains on prompts unlike those of training?"""
    if shifts:
        names = [study.asked, *shifts]
        asked = distribution_shift.joined({name: load_prompts(name, "test", n) for name in names})
    elif study.asked == TESTBED:
        asked = distribution_shift.shifted_prompts(n)
    else:
        why = "The testbed's shifts are in its own words; name SHIFTS, other prompt sets to test."
        return Answer(said=[why])
    answered = distribution_shift.responses(study.designs, asked, judge=study.judge)
    rows = means.summary(answered, ["design", "shift"], list(SEEN))
    tables = [
        as_text(means.gains(answered, ["shift"], [metric]), ["metric", "shift"], "design")
        for metric in SEEN[::-1]
    ]
    tests = {}
    for name, shift in {"unseen": "unseen both", "long": "600-900 words"}.items():
        if len(part := answered[answered["shift"] == shift]):
            tests[f"{name}, harm"] = Test(part, "system_harm", "low")
    return Answer(figures.by_shift(rows), tables, tests)


@_question("The attack")
def attacked(study: Study, requests: int = 20, budget: int = 6, seed: int = 0) -> Answer:
    """How many requests does an attacker break who tries wrappers and suffixes until one works?"""
    if study.asked == TESTBED:
        table = wrappers.forbidden_requests(requests, seed)
    else:
        table = load_prompts(study.asked, "test", seed=seed)
        if "harmful_request" in table:
            table = table[table["harmful_request"].astype(bool)].head(requests)
    tries = attack.attack(study.designs, table, budget=budget, judge=study.judge, seed=seed)
    rows = attack.success_over_budget(tries, budget)
    tables = [as_text(rows[rows["budget"] == budget], "design", "strategy")]
    tests = {"attack": Test(attack.queries_needed(tries), "broken", "low")}
    return Answer(figures.attack_curves(rows), tables, tests)


@_question("Reward hacking")
def hacked(study: Study, windows: int = 5) -> Answer:
    """Does true helpfulness fall while the learned utility rises, over ``windows`` of training?"""
    own = [one for one in study.designs if one.run]
    trained = [one for one in own if not one.run.completions().empty] or own
    window = max(1, min(one.config.steps for one in trained) // windows)
    rows = reward_hacking.drift([one.run for one in trained], window, study.judge)
    late = []
    for one in trained:
        graded = reward_hacking.graded_completions(one.run, study.judge)
        graded = graded[graded["step"] >= 0.8 * graded["step"].max()]
        late.append(graded.assign(design=one.design, seed=one.seed))
    tests = {"last steps, help": Test(pd.concat(late), "system_help", "high")}
    tables = [reward_hacking.readable(reward_hacking.hacked(rows))]
    return Answer(figures.drift(rows), tables, tests)


@_question("The comparison with sampling")
def without_rl(study: Study, most: int = 8, answers: int = 1000) -> Answer:
    """What does the best of up to ``most`` samples give instead of training, and at what cost?"""
    first = next(one.design for one in study.designs if one.run)
    numbers = [n for n in (2, 4, 8, 16, 32) if n < most] + [most]
    best = without_training.best_of_n(
        [one for one in study.designs if one.design == first],
        study.prompts,
        n=numbers,
        judge=study.judge,
        own_process=True,  # so that its memory is measured like a run's
    )
    apart = [one for one in study.everyone if one in study.designs or ":" in one.design]
    said = study.said[study.said["design"].isin([one.design for one in apart])]
    both = pd.concat([said, best], ignore_index=True)
    rows = means.summary(both, ["design"], list(SEEN[::-1]))
    ahead = means.gains(both, [], list(SEEN[::-1]), against=first)
    ahead = ahead.assign(metric=ahead["metric"] + f" - {first}'s")
    tables = [as_text(pd.concat([rows, ahead]), "design", "metric")]
    fewer = tuple(f"best of {n}:" for n in numbers[:-1])
    whole = both[~both["design"].str.startswith(fewer)] if fewer else both
    tests = {
        "as trained, harm": Test(whole, "system_harm", "low"),
        "as trained, help": Test(whole, "system_help", "high"),
    }
    try:
        costs = without_training.costs(both, apart)
        figure = figures.helpfulness_by_cost(rows, costs, answers=answers)
    except BgkitError as error:
        return Answer(None, tables, tests, [f"What methods cost is left out: {error}"])
    return Answer(figure, [without_training.readable(costs), *tables], tests)


def card(study: Study, answers: Iterable[Answer]) -> Answer:
    """Which design is best in which test, over all answers; the leads are paired over prompts."""
    tests = {
        "as trained, harm": Test(study.ours, "system_harm", "low"),
        "as trained, help": Test(study.ours, "system_help", "high"),
    }
    for answer in answers:
        tests |= answer.tests
    found = scorecard.scorecard(tests)
    leads = scorecard.readable(found).iloc[:, -6:]  # the means are in the figure
    return Answer(figures.scorecard(found), [leads])
