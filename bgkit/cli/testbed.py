"""The embedded models: build, check."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from bgkit.errors import BgkitError
from bgkit.progress import say

ACTION = "train the models anew, or compare them with their sha256"
OPTIONS = {
    "action": (("build", "check"), ACTION),
    "--out": (Path, "folder of the models (data/testbed)"),
    "--workers": (int, "processes that train (one per core)"),
}


def run(arguments: argparse.Namespace) -> int:
    """Check every file of the testbed, or run the program of the checkout that builds it."""
    from bgkit.testbed import store

    root = arguments.out or store.testbed_folder()
    if arguments.action == "build":
        program = store.data_folder().parent / "tools/testbed/build.py"
        if not program.is_file():
            raise BgkitError(f"This needs {program.name} of a source checkout; run it in one.")
        workers = arguments.workers or os.cpu_count() or 1
        return subprocess.call([sys.executable, program, root, str(workers)])
    files = store.manifest(root)["files"]
    for file, entry in files.items():
        store.verify(root / file, entry["sha256"])
    say(f"{len(files)} files in {root} are as they were shipped")
    return 0
