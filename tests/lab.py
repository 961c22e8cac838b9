"""JupyterLab in a real browser, for the tests that need one: a server, a page, and its notebook.

JupyterLab is told to expose its application to the page, so that cells are run and waited for by
its own commands; everything of ours is touched as a reader touches it, by mouse and keyboard.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import noop
from conftest import ROOT

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
QUIET = {"fetchNews": "false", "checkForUpdates": False}  # no pop-ups over what is tested
START, RUN = 300, 1800  # seconds for the server, and for a notebook
#: Runs a command of JupyterLab; ``window.ran`` tells when it is through.
COMMAND = """([name, options]) => {
  window.ran = false;
  jupyterapp.commands.execute(name, options).finally(() => { window.ran = true; });
}"""
#: A server that a killed test left behind ends by itself, some seconds after its last use.
ENDS_ITSELF = [
    "--ServerApp.shutdown_no_activity_timeout=600",
    "--MappingKernelManager.cull_idle_timeout=600",
]
PICTURES = os.environ.get("BGKIT_SCREENSHOTS")  # folder to write them to
SESSION = "jupyterapp.shell.currentWidget.sessionContext"
READY = "window.jupyterapp?.shell.currentWidget?.sessionContext?.isReady"


def copy_notebook(name: str, folder: Path, parameters: dict[str, Any], *more: str) -> str:
    """Copy a notebook of the series without its outputs; returns the copy's name.

    ``parameters`` are set at the end of its parameters cell; ``more`` are code cells added to it.
    """
    (path,) = (ROOT / "notebooks").glob(f"{name}*.ipynb")
    book = nbformat.read(path, as_version=4)
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if "parameters" in cell.metadata.get("tags", []):
            cell.source += "".join(f"\n{key} = {value!r}" for key, value in parameters.items())
    return noop.write_notebook(book.cells, folder / path.name, *more).name


def _environment(home: Path) -> dict[str, str]:
    """All that JupyterLab and its kernels write lies below ``home``; kernels import this tree."""
    names = [f"JUPYTER_{name}_DIR" for name in ("CONFIG", "DATA", "RUNTIME")]
    names += ["JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR"]
    return {**os.environ, "PYTHONPATH": str(ROOT), **{name: str(home / name) for name in names}}


@contextlib.contextmanager
def jupyterlab(home: Path, notebooks: Path) -> Iterator[tuple[str, str]]:
    """A JupyterLab server over a folder of notebooks; gives its address and token."""
    folder = home / "JUPYTERLAB_SETTINGS_DIR" / "@jupyterlab" / "apputils-extension"
    folder.mkdir(parents=True)
    file = folder / "notification.jupyterlab-settings"
    file.write_text(json.dumps(QUIET), encoding="utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port, token = probe.getsockname()[1], secrets.token_hex(16)
    options = [f"--ServerApp.port={port}", "--ServerApp.port_retries=0", "--no-browser"]
    options += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={notebooks}"]
    options += ["--ServerApp.ip=127.0.0.1", "--LabApp.expose_app_in_browser=True", "--allow-root"]
    command = [sys.executable, "-m", "jupyterlab", *options, *ENDS_ITSELF]
    with open(home / "server.log", "w", encoding="utf-8") as log:
        server = subprocess.Popen(command, env=_environment(home), stdout=log, stderr=log)
        try:
            address = f"http://127.0.0.1:{port}"
            ready = f"{address}/api?token={token}"
            noop.until(lambda: _answers(ready, server, home / "server.log"))
            yield address, token
        finally:
            server.terminate()  # it shuts its kernels down, too
            server.wait(timeout=START)


def _answers(address: str, server: subprocess.Popen, log: Path) -> bool:
    assert server.poll() is None, log.read_text(encoding="utf-8")
    with contextlib.suppress(OSError):
        urllib.request.urlopen(address, timeout=5).close()
        return True
    return False


class Lab:
    """One page of Chromium with a notebook open in JupyterLab."""

    def __init__(self, page: Any, address: str, token: str) -> None:
        self.page, self.address, self.token = page, address, token
        self.faults: list[str] = []
        page.set_default_timeout(1000 * START)
        page.on("pageerror", lambda error: self.faults.append(str(error)))

    def open(self, notebook: str) -> None:
        """Open a notebook in the simple interface (one document, no tabs)."""
        self.page.goto(f"{self.address}/doc/tree/{notebook}?token={self.token}&reset")
        self.page.wait_for_function(READY)

    def close(self) -> None:
        """Shut the kernels down and close the page."""
        self.page.evaluate("jupyterapp.serviceManager.sessions.shutdownAll()")
        self.page.close()

    def begin(self, command: str, **options: Any) -> None:
        """Start a command of JupyterLab, such as ``notebook:run-all-cells``."""
        self.page.evaluate(COMMAND, [command, options])

    def finish(self) -> None:
        """Wait until the command is through and the kernel is idle."""
        idle = f"window.ran && {SESSION}.session.kernel.status === 'idle'"
        self.page.wait_for_function(idle, timeout=1000 * RUN)

    def run(self, command: str, **options: Any) -> None:
        """Start a command and wait for its end."""
        self.begin(command, **options)
        self.finish()

    def errors(self) -> list[str]:
        """Text of all outputs of errors and warnings."""
        kind = "application/vnd.jupyter.stderr"
        return self.page.locator(f".jp-RenderedText[data-mime-type='{kind}']").all_text_contents()

    def cell(self, source: str) -> Any:
        """The code cell whose source holds a text, brought into view (the rest is not rendered)."""
        editor = self.page.locator(".jp-InputArea-editor", has_text=source)
        cell = self.page.locator(".jp-CodeCell").filter(has=editor).first
        cell.evaluate("cell => cell.scrollIntoView()")
        return cell

    def picture(self, cell: Any, name: str) -> None:
        """Photograph the page with the cell's top at its top, if pictures are wanted."""
        if not PICTURES:
            return
        cell.evaluate("cell => cell.scrollIntoView()")
        self.page.mouse.move(0, 0)  # no hover marks
        self.page.wait_for_timeout(700)
        Path(PICTURES).mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=Path(PICTURES) / f"{name}.png")
