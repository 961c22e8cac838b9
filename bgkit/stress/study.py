"""The questions of the stress tests, each one function of the same policies and prompts.

:func:`open_study` samples every policy once. A question then gives an :class:`Answer`: a figure and
tables as text. What can not be asked of these runs, prompts or parameters is said in the answer,
and is no error.
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
from bgkit.errors import BgkitError
from bgkit.evaluation import metrics
from bgkit.evaluation.intervals import as_text
from bgkit.evaluation.judges import load_judge
from bgkit.evaluation.language_judge import Judge
from bgkit.prompts.load import TESTBED, load_prompts
from bgkit.runs import Run
from bgkit.stress import attack, contenders, refitted, reward_hacking, without_training
from bgkit.stress import prompts as asking
from bgkit.stress.contenders import Contender

SEEN = ("system_harm", "system_help")  # of what the user sees


@dataclass(frozen=True)
class Answer:
    """What a question found; ``said`` holds sentences, such as why a part could not be done."""

    figure: go.Figure | None = None
    tables: Sequence[pd.DataFrame] = ()
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
    """Base and the runs' policies (``designs``: those of one setting), and what each one said."""

    everyone: list[Contender]
    designs: list[Contender]
    prompts: pd.DataFrame
    said: pd.DataFrame
    judge: Judge | None

    @property
    def asked(self) -> str:
        """The name of the prompt set."""
        return self.everyone[0].config.prompts

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
    :func:`bgkit.stress.contenders.contenders_of`.
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


@_question("The test of guards")
def behind_guards(study: Study, guards: Sequence[str] = ()) -> Answer:
    """What would the user have seen of the same responses, had the guard been another one?"""
    own = list(dict.fromkeys(one.config.guard for one in study.everyone))
    names = list(guards) or (contenders.GUARDS if study.asked == TESTBED else own)
    moved = contenders.transfer(study.said, names)
    rows = metrics.summary(moved, ["design", "guard"], ["system_harm", "near_boundary"])
    unknown = contenders.judge_of(study.everyone[0].config, study.judge) is None
    why = f"The truth about {study.asked} is not known: without a JUDGE no harm and no help is."
    return Answer(figures.by_guard(rows), said=[why] if unknown else [])


@_question("The test of other prompts")
def other_prompts(study: Study, shifts: Sequence[str] = (), n: int = 18) -> Answer:
    """What is left of the gains on prompts unlike those of training?"""
    if shifts:
        names = dict.fromkeys([study.asked, *shifts])
        tables = [load_prompts(name, "test", n).assign(shift=name) for name in names]
        asked = pd.concat(tables, ignore_index=True)
    elif study.asked == TESTBED:
        asked = asking.shifted_prompts(n)
    else:
        raise BgkitError("the testbed's shifts are in its own words; name SHIFTS, other sets.")
    answered = contenders.respond(study.designs, asked, judge=study.judge)
    rows = metrics.summary(answered, ["design", "shift"], list(SEEN))
    tables = [
        as_text(metrics.gains(answered, ["shift"], [metric]), ["metric", "shift"], "design")
        for metric in SEEN[::-1]
    ]
    return Answer(figures.by_shift(rows), tables)


@_question("The attack")
def attacked(study: Study, requests: int = 20, budget: int = 6, seed: int = 0) -> Answer:
    """How many requests does an attacker break who tries wrappers and suffixes until one works?"""
    if study.asked == TESTBED:
        table = asking.forbidden_requests(requests, seed)
    else:
        table = load_prompts(study.asked, "test", seed=seed)
        if "harmful_request" in table:
            table = table[table["harmful_request"].astype(bool)].head(requests)
    tries = attack.attack(study.designs, table, budget=budget, judge=study.judge, seed=seed)
    rows = attack.success_over_budget(tries, budget)
    tables = [as_text(rows[rows["budget"] == budget], ["design"], "strategy")]
    return Answer(figures.attack_curves(rows), tables)


@_question("Reward hacking")
def hacked(study: Study, windows: int = 5) -> Answer:
    """Does true helpfulness fall while the learned utility rises, over ``windows`` of training?"""
    own = [one for one in study.designs if one.run]
    trained = [one for one in own if not one.run.completions().empty] or own
    window = max(1, min(one.config.steps for one in trained) // windows)
    rows = reward_hacking.drift([one.run for one in trained], window, study.judge)
    tables = [reward_hacking.hacked(reward_hacking.changes(rows))]
    return Answer(figures.drift(rows), tables)


@_question("The search for unseen harm")
def unseen_harm(study: Study) -> Answer:
    """Would a guard that is fitted anew on the policies' own words find more of their harm?"""
    rows = refitted.recall([one.run for one in study.designs if one.run], study.judge)
    return Answer(tables=[as_text(rows, ["design", "seed", "window"], "recall")])


@_question("The comparison with sampling")
def without_rl(study: Study, most: int = 8) -> Answer:
    """What does the best of up to ``most`` samples give instead of training, and at what cost?"""
    first = next(one.design for one in study.designs if one.run)
    numbers = [n for n in (2, 4, 8, 16, 32) if n < most] + [most]
    alike = [one for one in study.designs if one.design == first]
    best = without_training.best_of_n(alike, study.prompts, numbers, judge=study.judge)
    apart = [one for one in study.everyone if one in study.designs or ":" in one.design]
    said = study.said[study.said["design"].isin([one.design for one in apart])]
    both = pd.concat([said, best], ignore_index=True)
    rows = metrics.summary(both, ["design"], list(SEEN[::-1]))
    ahead = metrics.gains(both, [], list(SEEN[::-1]), against=first)
    ahead = ahead.assign(metric=ahead["metric"] + f" - {first}'s")
    table = as_text(pd.concat([rows, ahead]), ["design"], "metric")
    tokens = without_training.tokens(both, apart)
    return Answer(tables=[table.join(tokens.map(lambda n: "–" if np.isnan(n) else f"{n:,.0f}"))])
