"""Run folders as rows of a table of ablations; its columns: :mod:`bgkit.sweeps.ablations`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from bgkit import runs
from bgkit.errors import BgkitError
from bgkit.evaluation.settings import LABELLED, NUMBERS, SETTING
from bgkit.sweeps.reference import differing

KEYS = (*SETTING, "kind", "metric")


def read_runs(folders: Iterable[str | Path]) -> pd.DataFrame:
    """The table of complete runs: each seed, and the mean over the seeds of each setting.

    A folder is a run's or holds runs' folders. Rows of one seed keep their interval over
    prompts; rows ``all`` of several seeds have Student's t interval over them
    (:func:`bgkit.sweeps.comparison.reference_rows`), those of a single seed are its own. See
    :func:`bgkit.sweeps.ablations.load_table` for the errors.
    """
    found = [runs.load_run(place) for folder in folders for place in find_runs(folder)]
    names = _differing(found)
    rows = [row for run in found for row in _rows_of(run, names)]
    single = pd.DataFrame(rows).assign(n_seeds=1, interval="prompts")
    # base is measured with every design of a seed; its copies are equal
    single = single.drop_duplicates([*KEYS, *names, "seed"])
    joined = _joined(rows, names)
    alone = joined["n_seeds"] == 1
    keys = [*KEYS, *names]
    own = joined.loc[alone, keys].merge(single.drop(columns="seed"), on=keys)
    table = pd.concat([joined[~alone], own], ignore_index=True).assign(seed="all")
    return tidy(pd.concat([table, single], ignore_index=True))


def _joined(rows: list[dict], names: list[str]) -> pd.DataFrame:
    # imported here, as it brings the training stack, which reading results does not need
    from bgkit.sweeps.comparison import REFERENCE_METRICS, reference_rows

    ranges = {row["metric"]: (-float("inf"), float("inf")) for row in rows}
    shares = ("brier", "ece", "judge_system_harm", "judge_system_help")
    ranges |= dict.fromkeys(shares, (0.0, 1.0)) | REFERENCE_METRICS
    return pd.DataFrame(reference_rows(rows, ranges, names)).assign(interval="seeds")


def find_runs(folder: str | Path) -> list[Path]:
    """The run folders of a folder: itself, or those directly in it; BgkitError if there is none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise BgkitError(f"There is no folder {folder}; check the path.")
    if (folder / "config.json").is_file():
        return [folder]
    found = sorted(path.parent for path in folder.glob("*/config.json"))
    if not found:
        raise BgkitError(
            f"The folder {folder} holds no run (no config.json in it or one level below); train "
            "one there, or give another folder."
        )
    return found


def _differing(found: list[runs.Run]) -> list[str]:
    """Keys in which configs differ, beyond those that are columns anyway; no run twice."""
    names = differing([run.config for run in found])
    seen: dict[tuple, Path] = {}
    for run in found:
        setting = tuple(getattr(run.config, name) for name in (*LABELLED, *names))
        if setting in seen:
            raise BgkitError(
                f"The runs {seen[setting]} and {run.folder} have the same setting and the same "
                "seed; leave one of them out."
            )
        seen[setting] = run.folder
    return names


def _rows_of(run: runs.Run, names: list[str]) -> list[dict]:
    if not run.complete:
        raise BgkitError(
            f"The run {run.folder} is incomplete; finish it with the command that started it, or "
            "leave it out."
        )
    rows = run.read_json("result.json").get("rows")
    if not (isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows)):
        raise BgkitError(
            f"The run {run.folder} was made by another version of bgkit (its result.json has no "
            "'rows'); use that version to read it, or train it again."
        )
    what = f"The result.json of the run {run.folder}, made by another version of bgkit,"
    table = checked(pd.DataFrame(rows), what)
    more = {name: getattr(run.config, name) for name in names}
    table = table[[*KEYS, *NUMBERS]].assign(**more, seed=str(run.config.seed))
    return table.to_dict("records")


def checked(table: pd.DataFrame, what: str) -> pd.DataFrame:
    """The table with numbers as numbers; raises BgkitError where one or a column is missing."""
    if missing := [column for column in (*KEYS, *NUMBERS) if column not in table]:
        raise BgkitError(
            f"{what} lacks the column(s) {', '.join(missing)}; give results of this version."
        )
    try:
        numbers = table[list(NUMBERS)].astype(float)
    except (TypeError, ValueError) as error:
        raise BgkitError(f"{what} holds a mean, low or high that is no number: {error}.") from error
    if numbers["mean"].isna().any():
        raise BgkitError(f"{what} holds a row without a mean; remove it.")
    return table.assign(**numbers)


def tidy(table: pd.DataFrame) -> pd.DataFrame:
    """The table with its columns in one order and of one type each."""
    more = [c for c in table if c not in (*KEYS, *NUMBERS, "seed", "n_seeds", "interval", "n")]
    columns = [*SETTING, *more, "seed", "kind", "metric", *NUMBERS, "n_seeds", "interval"]
    return table[columns].astype({"seed": str, "n_seeds": int}).reset_index(drop=True)
