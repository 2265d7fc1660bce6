"""scripts/test_next.py: what it installs, out of a folder of empty wheels, and how it tells what broke."""

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from empty_wheels import write_wheel

ROOT = Path(__file__).parents[1]
TESTS = """
import subprocess, sys
import pytest

@pytest.mark.parametrize("number", [1, 2])
def test_missing(number):
    import nowhere

def test_another_process():
    done = subprocess.run([sys.executable, "-c", "raise OSError('full')"], capture_output=True, text=True)
    assert done.stderr == ""

def test_well():
    pass
"""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("test_next")


def test_the_newest_are_taken_with_what_they_ask_for(
    script: Any, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    wheels = tmp_path / "wheels"
    for name, version, needs in (
        ("hydra_core", "1.3.8", ()),
        ("hydra_core", "1.4.0rc2", ("omegaconf>=2.4.0rc1",)),
        ("omegaconf", "2.3.1", ()),
        ("omegaconf", "2.4.0rc1", ()),
        ("huggingface_hub", "2.4.0", ()),
        ("huggingface_hub", "2.5.0rc1", ()),
        ("transformers", "5.24.0", ("huggingface-hub<2", "tokenizers>=1")),
        ("trl", "1.16.0", ("nowhere_at_all>=1",)),
    ):
        write_wheel(wheels, name, version, needs)
    for name, value in (("NO_INDEX", "1"), ("FIND_LINKS", str(wheels)), ("CONFIG_FILE", "/dev/null")):
        monkeypatch.setenv(f"PIP_{name}", value)
    venv = script.setup.Venv(tmp_path / "venv")
    subprocess.run([sys.executable, "-m", "venv", venv.folder], check=True)
    assert script.install(venv, ["omegaconf"]) == ""  # the locked one

    failed = script.bring_forward(venv)

    assert set(failed) == {"peft", "tokenizers", "nowhere-at-all"}
    assert all(reason.startswith("ERROR: Could not find a version") for reason in failed.values())
    taken = {package: here for package, _, here in script.versions(venv)}
    assert taken["hydra-core"] == "1.4.0rc2"
    assert taken["omegaconf"] == "2.4.0rc1"
    assert taken["huggingface-hub"] == "2.4.0", "its release candidates are not tried"
    told = script.told(script.versions(venv), failed, script.check(venv), {})
    assert any("transformers 5.24.0 has requirement huggingface-hub<2, but you have" in line for line in told)


def test_what_broke_is_told_by_the_error_behind_it(script: Any, tmp_path: Path) -> None:
    (tmp_path / "test_broken.py").write_text(TESTS)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--junitxml=report.xml",
        "-p",
        "no:cacheprovider",
        "test_broken.py",
    ]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert script.broken_tests(tmp_path / "report.xml") == {
        "ModuleNotFoundError: No module named 'nowhere'": [
            "test_broken::test_missing[1]",
            "test_broken::test_missing[2]",
        ],
        "OSError: full": ["test_broken::test_another_process"],
    }
