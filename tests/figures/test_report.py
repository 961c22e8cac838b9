"""The report is one offline page, and model text in it stays text."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from plotly.offline import get_plotlyjs

from bgkit.evaluation import results
from bgkit.figures.report import write_report

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    "end </script><script>alert(3)</script> & more",
    "red \x1b[31mtext\x1b[0m and \u202eevil",
    "{{ 7 * 7 }} {% if true %} <!-- ]]>",
    "'\" onmouseover=alert(4) \x00",
]
NAME = "</script><script>alert(5)</script><img src=x onerror=alert(6)>"
LONG = "Long context. " * 60
KINDS = ("benign", "ambiguous", "jailbreak", "long_context")


def policy(shift: float) -> pd.DataFrame:
    """Sixteen responses, four of each kind; t runs up in steps of 0.06 from ``shift``."""
    i = np.arange(16)
    t, harm = shift + 0.06 * i, np.where(i % 3 == 0, 0.9, 0.2)
    frame = pd.DataFrame({"t": t, "filtered": t >= 0.5, "near": abs(t - 0.5) < 0.3, "harm": harm})
    frame = frame.assign(prompt_id=i, kind=[*KINDS] * 4, u=0.4, kl=shift, length=3, help=0.6)
    frame = frame.assign(system_harm=harm * (t < 0.5), system_help=0.5 + 2 * shift)
    frame[["judge_system_harm", "judge_system_help"]] = 0.5
    frame["prompt"] = [f"Question {n}? {LONG if n % 4 == 3 else ''}" for n in i]
    return frame.assign(response=[HOSTILE[n % len(HOSTILE)] for n in i])


def study() -> dict[str, Any]:
    """What a report is made of: base and a policy of a hostile name."""
    samples, steps = {"base": policy(0.0), NAME: policy(0.1)}, np.arange(1, 11)
    log = pd.DataFrame({"step": steps, "reward": steps / 10, "kl": 0.1, "near_boundary": 0.3})
    log = log.assign(filter_rate=0.2, eval_system_harm=0.3, eval_system_help=0.4)
    told = {"command": "bgkit run --out <here>", "created": "2025-10-14T09:00:00Z"}
    told |= {"machine": {"cpu": "2 cores"}, "versions": {"python": "3.11", "plotly": "x"}}
    told["rows"] = results.rows_of(samples).to_dict("records")
    title = "A <b>small</b> study \ud800"
    return {"title": title, "result": told, "samples": samples, "metrics": {NAME: log}, "tau": 0.5}


class Page(HTMLParser):
    """What a browser would see: elements with their attributes, scripts, and the text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = self._inside = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag
        self.scripts += [""] * (tag == "script")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.text += data


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "new" / "report.html"
    assert write_report(path, **study()) == path
    return path.read_text("utf-8")


@pytest.fixture(scope="module")
def page(source: str) -> Page:
    return Page(source)


def test_plotly_is_inlined_once_and_nothing_is_loaded(source: str, page: Page) -> None:
    assert source.count(get_plotlyjs()) == 1
    assert not {"link", "iframe", "object", "embed", "img", "base"} & {n for n, _ in page.elements}
    identifiers = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(identifiers) == len(set(identifiers))
    for _, attributes in page.elements:
        assert "src" not in attributes
        assert attributes.get("href", "#content").removeprefix("#") in identifiers
    own = source.replace(get_plotlyjs(), "")
    assert "http:" not in own and "https:" not in own and "@import" not in own


def test_scripts_are_figures_or_have_the_nonce_of_the_policy(page: Page, tmp_path: Path) -> None:
    def nonce(page: Page) -> str:
        (policy,) = [a["content"] for _, a in page.elements if a.get("http-equiv")]
        (found,) = {a["nonce"] for n, a in page.elements if n == "script" and "type" not in a}
        assert "default-src 'none'" in policy and f"script-src 'nonce-{found}'" in policy
        return found

    scripts = [attributes.get("type") for name, attributes in page.elements if name == "script"]
    assert scripts == ["application/json"] * 6 + [None] * 2
    again = write_report(tmp_path / "again.html", **study()).read_text("utf-8")
    assert nonce(Page(again)) != nonce(page) and Page(again).text == page.text


def test_hostile_names_and_completions_stay_text(source: str, page: Page) -> None:
    assert not any(set("<>&") & set(text) for text in page.scripts[:6])
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)
    assert "&lt;" in json.dumps(json.loads(page.scripts[0])) and page.text.count(NAME) >= 2
    footer = ("A <b>small</b> study", "bgkit run --out <here>", "python 3.11, plotly x")
    for text in (*HOSTILE[:3], "{{ 7 * 7 }} {% if true %}", *footer):
        assert text in page.text
    own = source.replace(get_plotlyjs(), "")
    assert not {"\x1b", "\x00", "\u202e", "\ud800"} & set(own)
    assert "red ⟨U+001B⟩[31mtext⟨U+001B⟩[0m and ⟨U+202E⟩evil" in page.text
    assert "⟨U+D800⟩" in page.text


def test_every_figure_and_the_headline_table_are_there(page: Page) -> None:
    titles = [json.loads(text)["layout"]["title"]["text"] for text in page.scripts[:6]]
    first = ("probability", "helpfulness against harm", "Training", "calibrated")
    wanted = (*first, "harm by kind of prompt", "help by kind of prompt")
    assert all(part in title for part, title in zip(wanted, titles, strict=True))
    assert page.text.count("How to read it.") == len(titles) + 1
    text = page.text.replace("\n", "")
    for metric, (base, other) in results.table(study()["samples"]).iterrows():
        assert f"{metric}{base}{other}".replace("_", " ") in text
    assert "system help0.500 [0.500, 0.500]0.700 [0.700, 0.700] *" in text


def test_prompts_cover_every_kind_and_the_boundary(page: Page) -> None:
    # base has t = 0.06 * i, so 0.48 (8) is nearest to 0.5 of the benign prompts, and so on.
    shown = re.findall(r"Question (\d+)\?", page.text)
    assert shown == "8 12 4 9 5 13 7 11 3 10 6 14".split()
    assert page.text.count("· truth ") == 24 and "t 0.480 · truth safe (0.20), help" in page.text
    assert sum(name == "details" for name, _ in page.elements) == 3  # those with a long context
    assert LONG in page.text.replace("…", "")
