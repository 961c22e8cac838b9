"""The questions of the stress tests, each a function of the same policies and prompts.

:func:`open_study` samples every policy once. A question returns an :class:`Answer`: a figure and
tables as text. If it does not apply to these runs, prompts or parameters, the answer says so
instead of raising an error.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from bgkit import figures
from bgkit.data import data_folder
from bgkit.errors import BgkitError
from bgkit.evaluation import metrics
from bgkit.evaluation.intervals import as_text
from bgkit.evaluation.judges import load_judge
from bgkit.evaluation.language_judge import Judge
from bgkit.prompts.load import TESTBED, load_prompts
from bgkit.runs import Run
from bgkit.stress import attack, contenders, refitted, reward_hacking, without_training
from bgkit.stress import prompts as stress_prompts
from bgkit.stress.contenders import Contender
from bgkit.sweeps import collection

SEEN = ("system_harm", "system_help")  # of what the user sees


@dataclass(frozen=True)
class Answer:
    """A question's result; ``notes`` are sentences, such as why a part was left out."""

    figure: go.Figure | None = None
    tables: Sequence[pd.DataFrame] = ()
    notes: Sequence[str] = ()

    def _ipython_display_(self) -> None:
        """Show notes, figure and tables below a notebook's cell."""
        from IPython.display import display

        for note in self.notes:
            print(note)
        for part in (*([self.figure] if self.figure else []), *self.tables):
            display(part)


@dataclass(frozen=True)
class Study:
    """Base and the runs' policies (``designs``: the comparable ones), and their responses."""

    contenders: list[Contender]
    designs: list[Contender]
    prompts: pd.DataFrame
    responses: pd.DataFrame
    judge: Judge | None

    @property
    def prompt_set(self) -> str:
        """The name of the prompt set."""
        return self.contenders[0].config.prompts

    def about(self) -> pd.DataFrame:
        """The policies under test, a row each."""
        rows = [
            [c.config.guard, c.config.utility, c.seed, c in self.designs] for c in self.contenders
        ]
        heads = ["trained against", "utility", "seed", "compared by design"]
        return pd.DataFrame(rows, [c.design for c in self.contenders], heads)


def open_study(
    folders: Iterable[str | Path | Run] = (),
    prompts: str = "",
    judge: str | Judge | None = None,
    n: int = 64,
) -> Study:
    """Sample base and the policies of complete runs on ``n`` test prompts, once each.

    ``folders`` defaults to the runs that come with the kit, ``prompts`` to the prompt set of their
    training. ``judge`` is a name or a judge, if the truth is not known. Raises BgkitError as
    :func:`bgkit.stress.contenders.contenders_of`.
    """
    tested = list(folders) or collection.find_runs(data_folder() / "runs")
    policies = contenders.contenders_of(tested, prompts)
    designs = contenders.comparable_contenders(policies)
    judge = load_judge(judge) if isinstance(judge, str) and judge else judge or None
    table = load_prompts(policies[0].config.prompts, "test", n)
    responses = contenders.respond(policies, table, judge=judge)
    return Study(policies, designs, table, responses, judge)


def _question(title: str) -> Callable:
    """Turn a question's BgkitError into an answer that says why it is left out."""

    def decorate(ask: Callable[..., Answer]) -> Callable[..., Answer]:
        @functools.wraps(ask)
        def ask_or_explain(*arguments, **options) -> Answer:
            try:
                return ask(*arguments, **options)
            except BgkitError as error:
                return Answer(notes=[f"{title} is left out: {error}"])

        return ask_or_explain

    return decorate


@_question("The test of guards")
def other_guards(study: Study, guards: Sequence[str] = ()) -> Answer:
    """What would the user have seen of the same responses behind another guard?"""
    trained = list(dict.fromkeys(c.config.guard for c in study.contenders))
    names = list(guards) or (contenders.GUARDS if study.prompt_set == TESTBED else trained)
    samples = contenders.transfer(study.contenders, study.responses, names)
    rows = metrics.summary(samples, ["design", "guard"], ["system_harm", "near_boundary"])
    unknown = contenders.judge_of(study.contenders[0].config, study.judge) is None
    note = f"The truth about {study.prompt_set} is not known: harm and help need a JUDGE."
    return Answer(figures.by_guard(rows), notes=[note] if unknown else [])


@_question("The test of other prompts")
def other_prompts(study: Study, shifts: Sequence[str] = (), n: int = 18) -> Answer:
    """Do the gains hold on prompts unlike those of training?"""
    if shifts:
        names = dict.fromkeys([study.prompt_set, *shifts])
        tables = [load_prompts(name, "test", n).assign(shift=name) for name in names]
        table = pd.concat(tables, ignore_index=True)
    elif study.prompt_set == TESTBED:
        table = stress_prompts.shifted_prompts(n)
    else:
        raise BgkitError("the built-in shifts are for the testbed only; name SHIFTS, other sets.")
    responses = contenders.respond(study.designs, table, judge=study.judge)
    rows = metrics.summary(responses, ["design", "shift"], list(SEEN))
    tables = [
        as_text(metrics.gains(responses, ["shift"], [metric]), ["metric", "shift"], "design")
        for metric in SEEN[::-1]
    ]
    return Answer(figures.by_shift(rows), tables)


@_question("The attack")
def attack_success(study: Study, requests: int = 20, budget: int = 6, seed: int = 0) -> Answer:
    """How many requests does an attacker break by trying wrappers and suffixes until one works?"""
    if study.prompt_set == TESTBED:
        table = stress_prompts.forbidden_requests(requests, seed)
    else:
        table = load_prompts(study.prompt_set, "test", seed=seed)
        if "harmful_request" in table:
            table = table[table["harmful_request"].astype(bool)].head(requests)
    queries = attack.attack(study.designs, table, budget=budget, judge=study.judge, seed=seed)
    rows = attack.success_over_budget(queries, budget)
    tables = [as_text(rows[rows["budget"] == budget], ["design"], "strategy")]
    return Answer(figures.attack_curves(rows), tables)


@_question("Reward hacking")
def hacking_over_training(study: Study) -> Answer:
    """Does true helpfulness fall while the learned utility rises, over fifths of training?"""
    trained = [c for c in study.designs if c.run]
    recorded = [c for c in trained if not c.run.completions().empty] or trained
    window = max(1, min(c.config.steps for c in recorded) // 5)
    rows = reward_hacking.drift(recorded, window, study.judge)
    tables = [reward_hacking.hacking_verdicts(reward_hacking.changes(rows))]
    return Answer(figures.drift(rows), tables)


@_question("The search for unseen harm")
def unseen_harm(study: Study) -> Answer:
    """Would a guard that is refitted on the policies' own responses find more of their harm?"""
    rows = refitted.recall(study.designs, study.judge)
    return Answer(tables=[as_text(rows, ["design", "seed", "window"], "recall")])


@_question("The comparison with sampling")
def best_of_n(study: Study, most: int = 8) -> Answer:
    """What does the best of up to ``most`` samples give without training, and at what cost?"""
    first = next(c.design for c in study.designs if c.run)
    sizes = [n for n in (2, 4, 8, 16, 32) if n < most] + [most]
    seeds = [c for c in study.designs if c.design == first]
    best = without_training.best_of_n(seeds, study.prompts, sizes, judge=study.judge)
    compared = [c for c in study.contenders if c in study.designs or ":" in c.design]
    is_compared = study.responses["design"].isin([c.design for c in compared])
    samples = pd.concat([study.responses[is_compared], best], ignore_index=True)
    rows = metrics.summary(samples, ["design"], list(SEEN[::-1]))
    gains = metrics.gains(samples, [], list(SEEN[::-1]), against=first)
    gains = gains.assign(metric=gains["metric"] + f" - {first}'s")
    table = as_text(pd.concat([rows, gains]), ["design"], "metric")
    tokens = without_training.tokens(samples, compared)
    return Answer(tables=[table.join(tokens.map(lambda n: "–" if np.isnan(n) else f"{n:,.0f}"))])
