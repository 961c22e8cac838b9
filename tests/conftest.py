"""Shared fixtures: one small finished run, and a fresh command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

from bgkit import environment
from bgkit.errors import BgkitError
from bgkit.models.packaged import PACKAGED

# how long an example takes tells of the machine, not of the code
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")
# However the tests are started: no compared output of a notebook holds progress, none asks the
# network, results do not depend on the number of cores, and waiting threads sleep.
os.environ |= {"BGKIT_PROGRESS": "none", "HF_HUB_OFFLINE": "1"}
os.environ |= {"BGKIT_THREADS": "1", "OMP_NUM_THREADS": "1"}  # before torch is imported
os.environ |= environment.wait_settings(os.environ)

ROOT = Path(__file__).resolve().parents[1]
#: Seconds until a wait is given up. A busy machine is slow; only what fails takes as long.
PATIENCE = 600
#: A run of seconds: the smallest policy, few and short completions, no long contexts' cost.
SMALL = {"policy": "tiny", "steps": 4, "batch_size": 8, "num_generations": 4, "save_every": 2}
SMALL |= {"max_completion_length": 16, "eval_every": 2, "eval_prompts": 8, "test_prompts": 16}


@pytest.fixture(scope="session")
def small_run(tmp_path_factory):
    """A finished run of the boundary design."""
    return _trained_once(tmp_path_factory, "boundary", SMALL)


@pytest.fixture(scope="session")
def weak_run(tmp_path_factory):
    """A finished run like ``small_run``, trained with another guard and for two steps."""
    short = {"steps": 2, "guard": "weak", "eval_every": 0}
    return _trained_once(tmp_path_factory, "weak", {**SMALL, **short})


def _trained_once(factory: pytest.TempPathFactory, name: str, config: dict):
    """A run in a folder that all workers of a session share: the first of them trains it."""
    from bgkit import runs
    from bgkit.training import trainer as training

    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "runs" / name
    folder.parent.mkdir(exist_ok=True)
    with FileLock(f"{folder}.lock"):
        return training.train(runs.make_config(config), folder, device="cpu", threads=1)


#: Fixtures that train a policy: whatever uses one is slow.
TRAINED = {"small_run", "weak_run"}
#: Notebooks whose defaults are real models.
ENGLISH = ("06_your_own_models.ipynb",)


def installed(package: str) -> bool:
    """Whether pip has installed a package."""
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Cells of the notebooks run at their default parameters in `make test-all` only.

    Modules with slow tests come first, so that no worker is left with one of them at the end.
    """
    missing = [model.package for model in PACKAGED.values() if not installed(model.package)]
    for item in items:
        if item.path.suffix == ".ipynb":
            item.add_marker(pytest.mark.thorough)
            if item.path.name in ENGLISH:
                reason = "needs the packages of `make english`"
                item.add_marker(pytest.mark.skipif(bool(missing), reason=reason))
        trains = TRAINED & set(getattr(item, "fixturenames", ()))
        if trains or item.get_closest_marker("thorough"):
            item.add_marker(pytest.mark.slow)
    yield  # -m and -k leave tests out, and those are not waited for
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture
def bgkit_here(monkeypatch, capsys) -> Callable[..., SimpleNamespace]:
    """Run ``bgkit`` in this process, which has loaded what is slow to load."""
    from bgkit.cli.main import main

    def run(*arguments: object, cwd: Path = ROOT, **environment: str) -> SimpleNamespace:
        monkeypatch.chdir(cwd)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return SimpleNamespace(returncode=status, stdout=out, stderr=err)

    return run


@pytest.fixture
def bgkit_command() -> Callable[..., subprocess.CompletedProcess]:
    """Run ``python -m bgkit`` in a process of its own."""

    def run(*arguments: object, before: Callable | None = None, **environment: str):
        return subprocess.run(
            [sys.executable, "-m", "bgkit", *map(str, arguments)],
            cwd=ROOT,
            preexec_fn=before,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    return run


@pytest.fixture(scope="module")
def fewer_draws() -> Iterator[None]:
    """Bootstraps of few draws, where what is tested does not depend on their number."""
    from bgkit.evaluation import intervals

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intervals, "RESAMPLES", 300)
        yield


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Headless Chromium, driven by playwright; without them the test is skipped."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    import publish
    from lab import FLAGS

    try:
        path = publish.chromium()
    except BgkitError as error:
        pytest.skip(str(error))
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def first(monkeypatch) -> list[tuple]:
    """What views show before a touch."""
    from bgkit.widgets import views

    shown: list[tuple] = []
    monkeypatch.setattr(views, "show", lambda box, *things: shown.append(things))
    return shown


@pytest.fixture
def drawn(monkeypatch, first) -> list[tuple]:
    """What views draw after a touch, instead of showing it."""
    from bgkit.widgets import views

    shown: list[tuple] = []
    monkeypatch.setattr(views, "draw", lambda place, *things: shown.append(things))
    return shown
