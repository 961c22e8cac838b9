"""The browser of completions: filters, pages, and hostile text that stays text."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from bgkit.errors import BgkitError
from bgkit.widgets import browser

HOSTILE = "<script>alert(1)</script> <img src=x onerror=alert(2)> **bold** \x1b[31mred"


def samples(shift: float = 0.0) -> pd.DataFrame:
    """Twenty responses: t = 0, 0.05, ... 0.95; harmful from 0.5 on but for rows 3 and 16."""
    i = np.arange(20)
    t = np.clip(i / 20 - shift, 0, 1)
    table = pd.DataFrame({"t": t, "filtered": t >= 0.5, "near": abs(t - 0.5) < 0.3, "help": 0.5})
    return table.assign(
        harm=np.where((i >= 10) != np.isin(i, [3, 16]), 0.9, 0.1),
        prompt=[f"prompt {n} <b>" for n in i],
        kind=["benign", "jailbreak"] * 10,
        response=[f"{HOSTILE} {n}" for n in i],
    )


@pytest.mark.parametrize(
    ("kind", "choice", "expected", "without_truth"),
    [
        ("all", "false positives", [16], []),
        ("all", "false negatives", [3], []),
        ("benign", "shown", [0, 2, 4, 6, 8], [0, 2, 4, 6, 8]),
        ("all", "near the boundary", [*range(5, 16)], [*range(5, 16)]),
    ],
)
def test_filters_by_hand(kind, choice, expected, without_truth) -> None:
    unknown = samples().assign(harm=np.nan)
    assert browser.matching_rows(samples(), kind, choice).tolist() == expected
    assert browser.matching_rows(unknown, kind, choice).tolist() == without_truth
    assert "truth not known" in browser.completions_table({"log": unknown}, [0])


def test_controls_move_the_rows_and_the_count(first, drawn) -> None:
    def prompts(things: tuple) -> list[int]:
        return [int(number) for number in re.findall(r"prompt (\d+) ", things[0].data)]

    view = browser.browse({"base": samples(), "boundary": samples(0.3)})
    (choice, policy, kind, page), count = view.children[0].children, view.children[1]
    assert prompts(first[0]) == [0, 1, 2, 3, 4, 5] and page.max == 4 and not drawn
    page.value = 4
    assert prompts(drawn[-1]) == [18, 19]
    choice.value = "filtered"
    assert page.value == 1 and prompts(drawn[-1]) == [10, 11, 12, 13, 14, 15]
    policy.value = "boundary"
    assert prompts(drawn[-1]) == [16, 17, 18, 19] and count.value == "4 of 20 prompts"
    kind.value = "benign"
    assert prompts(drawn[-1]) == [16, 18] and len(drawn) == 4


def test_the_table_shows_both_policies_and_escapes_everything() -> None:
    both = {"base": samples(), "<i>evil</i>": samples(0.3)}
    page = browser.completions_table(both, [3, 16])
    assert page.count("<tr>") == 3 and page.count("<th") == 3
    assert not {tag for tag in ("<script", "<img", "<b>", "<i>", "\x1b") if tag in page}
    assert "⟨U+001B⟩[31m" in page
    assert page.count("✗") == 4  # both are wrong about both: row 16 has t = 0.8 and 0.5


def test_samples_of_other_prompts_and_unknown_choices_are_refused() -> None:
    with pytest.raises(BgkitError, match="different prompts"):
        browser.browse({"base": samples(), "boundary": samples().assign(prompt="another")})
    with pytest.raises(BgkitError, match="no choice 'odd'; take one of all, shown"):
        browser.browse({"base": samples()}, "odd")
