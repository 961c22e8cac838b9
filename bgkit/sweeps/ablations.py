"""Results of many settings as one long table: from the shipped results, or from run folders.

A table of ablations has one row per setting, kind of prompt and metric:

* ``design``, ``utility``, ``scale``, ``guard``, ``tau`` and, where runs differ in more, a column
  for each such key of their configs (``margin_weight``, ``beta``, ...): the setting;
* ``seed``: the seed as text, or ``all`` for the mean over seeds;
* ``kind``: a kind of prompt, or ``all``; ``metric``; ``mean``, ``low``, ``high``;
* ``n_seeds``: the seeds behind the row; ``interval``: what ``low`` to ``high`` is, ``both``
  (bootstrap over seeds and prompts, :func:`bgkit.evaluation.intervals.crossed`), ``seeds``
  (Student's t over seeds: how much another training run would differ), ``prompts`` (over the test
  prompts of one run, Wilson's for shares and a bootstrap for means, which is blind to that), or
  ``none``.

``base`` is the untrained policy behind the same guard; it stands in every setting.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from bgkit import runs
from bgkit.errors import BgkitError
from bgkit.evaluation import settings
from bgkit.sweeps.ablation_runs import checked, read_runs, tidy
from bgkit.sweeps.reference import ablation_path

UNTOLD = "not told"


def reference_path() -> Path:
    """Where the shipped results lie: a collection (:mod:`bgkit.sweeps.reference`)."""
    return ablation_path()


def load_table(*sources: str | Path) -> pd.DataFrame:
    """The table of ablations of results files (.json) and run folders, in any number.

    A source is a results file (as ``python -m bgkit reproduce`` and :func:`write_table` make it), a
    collection (:mod:`bgkit.sweeps.reference`), a run folder, or a folder that holds run folders;
    without a source, the shipped collection. Raises BgkitError for a source that is missing,
    empty, broken or of another version, for an incomplete run, and for a setting that two sources
    hold.
    """
    paths = [Path(source) for source in sources] or [reference_path()]
    if not sources and not paths[0].exists():
        raise BgkitError(
            f"There are no shipped results at {paths[0]}; restore them, or give results files and "
            "run folders of your own as sources."
        )
    files = [path for path in paths if path.suffix == ".json"]
    collected = [path for path in paths if (path / "table.parquet").is_file()]
    folders = [path for path in paths if path not in (*files, *collected)]
    tables = [read_results(path) for path in files]
    tables += [tidy(pd.read_parquet(path / "table.parquet")) for path in collected]
    if folders:
        tables.append(read_runs(folders))
    table = pd.concat(tables, ignore_index=True) if len(tables) > 1 else tables[0]
    for column in set(settings.settings_of(table)) - set(settings.AXES):
        untold = table[column].isna()  # by a source whose runs do not differ in this key
        if untold.any():
            table[column] = table[column].astype(object).mask(untold, UNTOLD)
    return settings.in_order(_without_doubles(table, paths))


def read_results(path: str | Path) -> pd.DataFrame:
    """The table of one results file; see :func:`load_table` for the errors."""
    path = Path(path)
    if not path.is_file():
        raise BgkitError(f"There is no results file {path}; check the path.")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BgkitError(f"{path} is not a readable results file ({error}); restore it.") from error
    rows = found.get("rows") if isinstance(found, dict) else None
    if not (isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows)):
        raise BgkitError(f"{path} holds no list 'rows' of results; give another file.")
    table = checked(pd.DataFrame(rows), f"The results file {path}")
    if "n_seeds" not in table:
        table["n_seeds"] = 1
    if "seed" not in table:
        table["seed"] = "all"
    if "interval" not in table:
        kinds = table["n_seeds"].map(lambda n: "seeds" if n > 1 else "prompts")
        table["interval"] = kinds.where(table["low"].notna(), "none")
    return tidy(table)


def _without_doubles(table: pd.DataFrame, paths: list[Path]) -> pd.DataFrame:
    keys = [*settings.settings_of(table), "metric"]
    doubles = table[table.duplicated(keys)]
    if doubles.empty:
        return table
    one = doubles.iloc[0]
    setting = ", ".join(f"{key} {one[key]}" for key in keys)
    raise BgkitError(
        f"The sources {', '.join(map(str, paths))} hold the same result twice ({setting}); "
        "leave one of them out."
    )


def write_table(
    path: str | Path, table: pd.DataFrame, about: Mapping[str, Any] | None = None
) -> Path:
    """Write a table as a results file that :func:`load_table` reads again; returns the path.

    ``about`` stands beside the rows (command, machine, versions, ...). Raises BgkitError if the
    file can not be written.
    """
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    runs.write_json(Path(path), {**(about or {}), "rows": rows})
    return Path(path)
