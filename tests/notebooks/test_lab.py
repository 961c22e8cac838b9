"""The notebooks in JupyterLab and Chromium, used by mouse and keyboard as a reader uses them.

With ``BGKIT_SCREENSHOTS`` set to a folder the notebooks run with their defaults (minutes instead
of seconds) and the tests leave pictures there, as ``make screenshots`` does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lab
import pytest

from bgkit.texts import clean_text

pytestmark = [pytest.mark.browser, pytest.mark.thorough]

SMALL = {
    "02": {"PROMPTS": 60, "POLICY": "tiny"},
    "03": {"STEPS": 30, "BATCH_SIZE": 16, "TEST_PROMPTS": 16, "EVAL_EVERY": 0, "POLICY": "tiny"},
}
HOSTILE = (
    "<script>window.hit=1</script>",
    "<img src=x onerror=window.hit=1>",
    "**bold** _it_ `code` [link](javascript:window.hit=1)\n# head",
    "\x1b[31mred\x1b[0m",
    r"$\frac{1}{2}$ and $$x^2$$ and \(y\)",
)


@pytest.fixture(scope="module")
def served(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple]:
    """A folder for copies of notebooks, and the address and token of JupyterLab over it."""
    pytest.importorskip("jupyterlab", reason="jupyterlab is not installed")
    home = tmp_path_factory.mktemp("lab")
    (home / "notebooks").mkdir()
    with lab.jupyterlab(home, home / "notebooks") as (address, token):
        yield home / "notebooks", address, token


@pytest.fixture
def opened(chromium: Any, served: tuple) -> Iterator[Callable[..., lab.Lab]]:
    """Open a copy of a notebook, with other parameters and more cells at its end."""
    folder, address, token = served
    page = lab.Lab(chromium.new_page(viewport={"width": 1200, "height": 1000}), address, token)

    def open_(name: str, *more: str, **parameters: object) -> lab.Lab:
        small = {} if lab.PICTURES else SMALL[name]
        page.open(lab.copy_notebook(name, folder, {**small, **parameters}, *more))
        return page

    yield open_
    page.close()


def test_keys_buttons_and_menus_move_the_thresholds_explorer(
    opened: Callable[..., lab.Lab],
) -> None:
    """Notebook 02: the threshold moves numbers and figure, and a bar opens its completions."""
    book = opened("02")
    book.run("notebook:run-all-cells")
    assert book.errors() == [] and book.faults == []
    assert book.page.locator(".jp-InputPrompt", has_text="[ ]").count() == 0
    view = book.cell("widgets.explore")

    def wait_until_all_show(tau: float) -> None:
        """Wait until the table and the one figure in sight are those of a threshold."""
        view.get_by_text(f"at tau = {tau:.2f}", exact=True).wait_for()
        view.get_by_text(f"Shaded: |t − {tau:g}| < 0.3.").wait_for()
        assert view.locator(".js-plotly-plot:visible").count() == 1
        assert view.locator("table:visible").count() == 1

    wait_until_all_show(0.5)
    handle = view.get_by_role("slider")
    handle.focus()
    for _ in range(3):
        handle.press("ArrowLeft")
    wait_until_all_show(0.47)

    view.get_by_title("completions of bar 1 of 25").click()
    facts = view.get_by_text(re.compile(r"t [\d.]+ · truth .* · "))
    facts.first.wait_for()
    assert facts.count() == 5
    heading = view.get_by_text(re.compile(r"t from 0\.000 to [\d.]+: 1 to 5 of \d+"))
    assert heading.count() == 1
    book.picture(view, "02_margin_distributions")
    view.get_by_role("button", name="close").click()
    facts.first.wait_for(state="hidden")

    view.locator("select").select_option("jailbreak")
    view.get_by_text(re.compile(r"jailbreak n=\d+")).wait_for()

    book.run("apputils:change-theme", theme="JupyterLab Dark")
    book.page.wait_for_function("document.body.dataset.jpThemeLight === 'false'")
    book.picture(view, "02_margin_distributions_dark")
    ink = view.locator("td").first.evaluate("cell => getComputedStyle(cell).color")
    assert min(map(float, re.findall(r"[\d.]+", ink)[:3])) > 150, ink
    assert book.faults == []


def test_a_training_stops_and_goes_on_when_its_cell_is_run_again(
    opened: Callable[..., lab.Lab],
) -> None:
    """Notebook 03, to its result."""
    book = opened("03", **({"STEPS": 40} if lab.PICTURES else {}))
    training = book.cell("widgets.train")
    book.begin("notebook:run-all-cells")
    training.get_by_text(re.compile(r"boundary: step [1-9]\d* of")).wait_for()
    training.get_by_role("button", name="Stop").click()
    book.finish()
    (error,) = book.errors()
    stopped = re.search(r"StoppedError: Stopped after step (\d+) of (\d+); nothing is", error)
    assert stopped and int(stopped[1]) < int(stopped[2]) and "Traceback" not in error

    training.locator(".jp-InputArea-editor").click()
    book.begin("notebook:run-all-below")
    if lab.PICTURES:  # of the dashboard while it trains
        training.get_by_text(re.compile(r"step 3\d of")).wait_for()
        book.picture(training, "03_train_policy")
    book.finish()
    assert book.errors() == [] and book.faults == []
    assert f"step {stopped[2]} of {stopped[2]}" in training.inner_text()
    table = book.cell("bgkit.table(").locator("table").inner_text()
    assert "system_harm" in table and "boundary" in table


#: Cells at the end of notebook 02: a browser of two policies, one of which has a hostile name.
BROWSE = """import bgkit
near = (samples["t"] - tau).abs() < 0.3
rated = samples.assign(filtered=samples["t"] >= tau, near=near)
bgkit.widgets.browse({"base": rated, samples["prompt"][1]: rated});"""


def write_hostile_log(path: Path) -> None:
    """Rows of markup, formulas and control characters."""
    rows = [
        {
            "prompt": HOSTILE[i % 5],
            "response": f"{' / '.join(HOSTILE)} {i}",
            "kind": ("benign", *HOSTILE)[i % 6],
            "p_unsafe": i / 40,
            "harmful": i > 18,
        }
        for i in range(40)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_hostile_text_is_shown_and_nothing_of_it_runs_or_becomes_an_element(
    opened: Callable[..., lab.Lab], served: tuple
) -> None:
    log = served[0] / "hostile.jsonl"
    write_hostile_log(log)
    book = opened("02", BROWSE, "samples.head()", SCORED_LOG=str(log))
    book.run("notebook:run-all-cells")
    assert book.errors() == []
    explorer = book.cell("widgets.explore")
    explorer.get_by_title("completions of bar 1 of 25").click()
    explorer.locator("td", has_text="window.hit").first.wait_for()
    shown = [explorer.inner_text(), book.cell("widgets.browse(").inner_text()]
    assert all(clean_text(text) in place for text in HOSTILE for place in shown)
    assert HOSTILE[0] in book.cell("thresholds.table_by_kind").inner_text()
    assert HOSTILE[4] in book.cell("samples.head()").inner_text()
    outputs = book.page.locator(".jp-OutputArea-output")
    for element in ("script", "img[src='x']", "[onerror]", "[href^='javascript']", "b b"):
        assert outputs.locator(element).count() == 0, element
    assert outputs.locator("mjx-container").count() == 0
    assert book.page.evaluate("window.hit") is None and book.faults == []
