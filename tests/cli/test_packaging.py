"""The package as a package: what it declares, what importing it costs, how it hangs together."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import bgkit

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "bgkit"


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_every_direct_dependency_is_declared_once_with_a_floor_and_pinned(project) -> None:
    """At a version that it allows, and that is no build of one machine."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [Requirement(text) for line in lines if (text := line.split("#")[0].strip())]
    pins = {canonicalize_name(pin.name): str(pin.specifier) for pin in pinned}
    assert len(pins) == len(pinned)
    assert all(re.fullmatch(r"==[^*+,]+", exact) for exact in pins.values()), pins
    extras = project["optional-dependencies"].values()
    direct = [Requirement(line) for part in (project["dependencies"], *extras) for line in part]
    assert len({canonicalize_name(requirement.name) for requirement in direct}) == len(direct)
    for requirement in direct:
        assert ">=" in {part.operator for part in requirement.specifier}, f"{requirement}: no floor"
        version = pins[canonicalize_name(requirement.name)].removeprefix("==")
        assert requirement.specifier.contains(version, prereleases=True), requirement


def test_conda_environment_installs_what_the_makefile_installs(project):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (extras,) = re.findall(r"^EXTRAS\s*:=\s*(\S+)$", makefile, flags=re.MULTILINE)
    assert {*extras.split(",")} <= set(project["optional-dependencies"])
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert environment["name"] == project["name"]
    *conda, nested = environment["dependencies"]
    (python,) = [entry for entry in conda if entry.startswith("python=")]
    assert SpecifierSet(project["requires-python"]).contains(python.removeprefix("python="))
    options = [shlex.split(line) for line in nested["pip"]]
    assert "pip" in conda and ["-c", "constraints.txt"] in options
    assert ["-e", f".[{extras}]"] in options


def test_entry_point_is_there_and_the_version_has_one_source(project):
    module, function = project["scripts"]["bgkit"].split(":")
    assert callable(getattr(importlib.import_module(module), function))
    if bgkit.__version__ == "unknown":
        pytest.skip("bgkit runs from its checkout here, without being installed")
    assert bgkit.__version__ == project["version"]


#: Imports bgkit in a fresh interpreter, with every write, child process, connection and change of
#: the environment that the interpreter itself announces on record.
IMPORT_PROBE = """
import json, os, sys, threading, warnings
WATCHED = {"os.mkdir", "os.remove", "os.rename", "os.putenv", "os.unsetenv", "os.system", "os.fork",
           "os.chdir", "subprocess.Popen", "socket.connect", "socket.bind"}
events = []
def watch(event, args):
    if event in WATCHED or (event == "open" and isinstance(args[2], int) and args[2] & 3):
        events.append([event, repr(args)[:200]])
def state():
    return [threading.active_count(), repr(warnings.filters), repr(sys.excepthook)]
before = state()
sys.addaudithook(watch)
import bgkit
caused, after = list(events), state()
print(json.dumps([caused, before == after, sorted(sys.modules), bgkit.__file__, dir(bgkit)]))
"""


def test_import_takes_this_checkout_and_does_nothing_else(tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-B", "-c", IMPORT_PROBE]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    events, same, modules, file, names = json.loads(done.stdout)
    assert events == [] and same and list(tmp_path.iterdir()) == []
    assert Path(file).parent == PACKAGE
    assert not {"torch", "transformers", "trl", "peft", "datasets", "accelerate"} & {*modules}
    assert set(bgkit.__all__) <= set(names)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = bgkit.no_such_name


# Parted, so that this file does not hold them. Nobody of us holds the last: what lies there is a
# stranger's.
PARTED = "pypi .org", "python hosted.org", "registry. npmjs", "deb. debian.org", "github.com/ bgkit"


def test_no_file_names_a_registry_host():
    command = ["git", "grep", "-I", "-i", "-l", "-F", "--untracked"]
    command += [part for host in PARTED for part in ("-e", host.replace(" ", ""))]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if found.returncode > 1:
        pytest.skip("this is no git checkout")
    assert found.stdout == ""
