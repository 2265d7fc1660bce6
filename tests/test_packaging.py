"""The wheel: the code with its data and nothing else, and metadata that name what there is."""

import re
import shutil
import subprocess
import sys
import tomllib
from configparser import ConfigParser
from email import message_from_string
from email.message import Message
from zipfile import ZipFile

import pytest
from project import ROOT, project_files

CLONE = {"benchmarks", "starter"}  # packages that are run in a clone alone
PACKAGES = {init.parent.name for init in ROOT.glob("*/__init__.py")} - CLONE
INFO = "tunesmith-{}.dist-info".format(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> ZipFile:
    """Built from a copy: setuptools leaves folders behind where it builds."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("out")
    for name in project_files("pyproject.toml", "README.md", "LICENSE", "NOTICE", *CLONE, *PACKAGES):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*build, "--wheel-dir", str(out), str(source)], check=True)
    return ZipFile(next(out.glob("*.whl")))


@pytest.fixture(scope="module")
def metadata(wheel: ZipFile) -> Message:
    return message_from_string(wheel.read(f"{INFO}/METADATA").decode())


def test_a_wheel_holds_all_files_of_its_packages_and_no_others(wheel: ZipFile) -> None:
    assert {name for name in wheel.namelist() if not name.startswith(INFO)} == project_files(*PACKAGES)


def test_each_package_says_that_it_is_typed(wheel: ZipFile) -> None:
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(wheel.namelist())


def test_the_licences_come_with_it(wheel: ZipFile, metadata: Message) -> None:
    named = {f"{INFO}/licenses/{name}" for name in metadata.get_all("License-File", [])}
    assert named == {f"{INFO}/licenses/LICENSE", f"{INFO}/licenses/NOTICE"}
    assert named <= set(wheel.namelist())


def test_packages_that_are_looked_for_are_there() -> None:
    found = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    assert [pattern for pattern in found["include"] if not list(ROOT.glob(pattern))] == []


def test_commands_lead_to_functions(wheel: ZipFile) -> None:
    entries = ConfigParser()
    if f"{INFO}/entry_points.txt" in wheel.namelist():
        entries.read_string(wheel.read(f"{INFO}/entry_points.txt").decode())
    for target in dict(entries["console_scripts"]).values() if "console_scripts" in entries else ():
        module, _, function = target.partition(":")
        code = wheel.read(f"{module.replace('.', '/')}.py").decode()
        assert re.search(rf"^(def )?{function}\b", code, re.MULTILINE), target
