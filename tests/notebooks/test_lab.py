"""The notebooks in JupyterLab and Chromium, used by mouse and keyboard as a reader uses them.

With ``BGKIT_SCREENSHOTS`` set to a folder the notebooks run with their defaults (minutes instead
of seconds) and the tests leave pictures there, as ``make screenshots`` does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import lab
import pytest

from bgkit.texts import clean_text

pytestmark = [pytest.mark.browser, pytest.mark.thorough]

SMALL = {
    "02": {"PROMPTS": 60, "POLICY": "tiny"},
    "03": {"STEPS": 30, "BATCH_SIZE": 16, "TEST_PROMPTS": 16, "EVAL_EVERY": 0, "POLICY": "tiny"},
    "04": {},
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


@pytest.fixture(scope="class")
def opened(chromium: Any, served: tuple) -> Iterator[Callable[..., lab.Lab]]:
    """Open a copy of a notebook, with other parameters and more cells at its end, in one page."""
    folder, address, token = served
    page = lab.Lab(chromium.new_page(viewport={"width": 1200, "height": 1000}), address, token)

    def open_(name: str, *more: str, **parameters: object) -> lab.Lab:
        if not lab.PICTURES:
            parameters = {**SMALL[name], **parameters}
        page.open(lab.copy_notebook(name, folder, parameters, *more))
        return page

    yield open_
    page.close()


class TestThresholds:
    """Notebook 02: the threshold moves numbers and figure, and a bar opens its completions."""

    @pytest.fixture(scope="class")
    def book(self, opened: Callable[..., lab.Lab]) -> lab.Lab:
        book = opened("02")
        book.run("notebook:run-all-cells")
        return book

    @pytest.fixture
    def view(self, book: lab.Lab) -> Any:
        return book.cell("widgets.explore")

    def tau(self, view: Any) -> float:
        return float(view.locator(".widget-readout:visible").first.inner_text())

    def wait_until_all_show(self, view: Any, tau: float) -> None:
        """Wait until the table and the one figure in sight are those of a threshold."""
        view.get_by_text(f"at tau = {tau:.2f}", exact=True).wait_for()
        view.get_by_text(f"Shaded: |t − {tau:g}| < 0.3.").wait_for()
        assert view.locator(".js-plotly-plot:visible").count() == 1
        assert view.locator("table:visible").count() == 1

    def test_all_cells_run(self, book: lab.Lab, view: Any) -> None:
        assert book.errors() == [] and book.faults == []
        assert book.page.locator(".jp-InputPrompt", has_text="[ ]").count() == 0
        assert view.locator("select option:checked").text_content() == "all\xa0kinds"
        self.wait_until_all_show(view, 0.5)

    def test_arrow_keys_move_numbers_and_figure(self, view: Any) -> None:
        handle = view.get_by_role("slider")
        handle.focus()
        for _ in range(3):
            handle.press("ArrowLeft")
        self.wait_until_all_show(view, 0.47)
        assert self.tau(view) == 0.47

    def test_dragging_moves_numbers_and_figure(self, book: lab.Lab, view: Any) -> None:
        mouse = book.page.mouse
        view.evaluate("cell => cell.scrollIntoView()")
        box = view.get_by_role("slider").bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        mouse.move(x, y)
        mouse.down()
        mouse.move(x - 60, y, steps=10)
        mouse.up()
        tau = self.tau(view)
        assert 0.1 < tau < 0.4
        self.wait_until_all_show(view, tau)

    def test_a_bar_opens_its_completions(self, book: lab.Lab, view: Any) -> None:
        view.get_by_title("completions of bar 1 of 25").click()
        facts = view.get_by_text(re.compile(r"t [\d.]+ · truth .* · "))
        facts.first.wait_for()
        assert facts.count() == 5
        heading = view.get_by_text(re.compile(r"t from 0\.000 to [\d.]+: 1 to 5 of \d+"))
        assert heading.count() == 1
        book.picture(view, "02_margin_distributions")
        view.get_by_role("button", name="close").click()
        facts.first.wait_for(state="hidden")

    def test_a_kind_is_chosen_from_the_menu(self, book: lab.Lab, view: Any) -> None:
        view.locator("select").select_option("jailbreak")
        view.get_by_text(re.compile(r"jailbreak n=\d+")).wait_for()
        view.locator("select").select_option(index=0)
        view.get_by_text(re.compile(r"all kinds n=\d+")).wait_for()

    def test_the_dark_theme_is_legible(self, book: lab.Lab, view: Any) -> None:
        book.run("apputils:change-theme", theme="JupyterLab Dark")
        book.page.wait_for_function("document.body.dataset.jpThemeLight === 'false'")
        book.picture(view, "02_margin_distributions_dark")
        ink = view.locator("td").first.evaluate("cell => getComputedStyle(cell).color")
        assert min(map(float, re.findall(r"[\d.]+", ink)[:3])) > 150, ink
        assert book.faults == []


class TestTraining:
    """Notebook 03: a run is stopped, goes on when its cell is run again, and shows its result."""

    def test_stop_and_resume(self, opened: Callable[..., lab.Lab]) -> None:
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


class TestComparison:
    """Notebook 04: filters of the browser of completions."""

    def test_filters(self, opened: Callable[..., lab.Lab], small_run: Any) -> None:
        book = opened("04", RUNS=[] if lab.PICTURES else [str(small_run.folder)])
        book.run("notebook:run-all-cells")
        assert book.errors() == [] and book.faults == []
        view = book.cell("widgets.browse(")
        assert view.locator("table:visible").count() == 1
        for choice, wrong in (("filtered", "shown"), ("shown", "filtered")):
            view.locator("select").first.select_option(choice)
            answers = view.locator("tr td:nth-child(2) small")  # of base, which the filter looks at
            answers.filter(has_text=wrong).first.wait_for(state="hidden")
            answers.filter(has_text=choice).first.wait_for()  # the table is cleared, then drawn
            assert answers.filter(has_text=choice).count() == answers.count() > 0
        assert view.locator("table:visible").count() == 1


class TestHostileText:
    """A log full of markup, formulas and control characters is text wherever it is shown."""

    MORE = """import bgkit
near = (samples["t"] - tau).abs() < 0.3
rated = samples.assign(filtered=samples["t"] >= tau, near=near)
bgkit.widgets.browse({"base": rated, samples["prompt"][1]: rated});"""

    def row(self, i: int) -> dict[str, object]:
        kind = ("benign", *HOSTILE)[i % 6]
        text = {"prompt": HOSTILE[i % 5], "response": f"{' / '.join(HOSTILE)} {i}", "kind": kind}
        return {**text, "p_unsafe": i / 40, "harmful": i > 18}

    def test_it_is_shown_and_nothing_of_it_runs_or_becomes_an_element(
        self, opened: Callable[..., lab.Lab], served: tuple
    ) -> None:
        log = served[0] / "hostile.jsonl"
        log.write_text("".join(json.dumps(self.row(i)) + "\n" for i in range(40)))
        book = opened("02", self.MORE, "samples.head()", SCORED_LOG=str(log))
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
