"""scripts/check_any.py, run as it is on a small project."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts/check_any.py"
PYPROJECT = """\
[tool.mypy]
packages = ["common", "pipeline"]
[tool.tunesmith.any]
"pipeline.models" = 2
"""
MODULE = """\
import typing
from typing import Any

def load(path: str) -> "dict[str, Any]":
    \"\"\"Any other word.\"\"\"
    return {}

settings: typing.Any = load("Any")
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for package in ("common", "pipeline/models"):
        (tmp_path / package).mkdir(parents=True)
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    (tmp_path / "pipeline/models/loading.py").write_text(MODULE)
    return tmp_path


def check(project: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), str(project)], capture_output=True, text=True, check=False)


def test_as_many_as_are_allowed_pass_and_words_and_imports_do_not_count(project: Path) -> None:
    checked = check(project)
    assert checked.returncode == 0, checked.stderr
    assert "pipeline: Any 2 times" in checked.stdout


def test_one_more_is_refused(project: Path) -> None:
    with (project / "pipeline/models/loading.py").open("a") as file:
        file.write("def tokenizer(config: list[Any]) -> None: ...\n")
    checked = check(project)
    assert checked.returncode == 1
    assert checked.stderr == "pipeline.models: Any 3 times, 2 are allowed; name the type\n"


def test_another_name_for_it_is_refused(project: Path) -> None:
    (project / "common/files.py").write_text("from typing import Any as Open\n")
    assert check(project).stderr == "common: Any 1 times, 0 are allowed; name the type\n"


def test_a_package_that_is_not_named_is_allowed_none(project: Path) -> None:
    (project / "common/files.py").write_text("from typing import Any\nvalue: Any\n")
    checked = check(project)
    assert checked.returncode == 1
    assert checked.stderr == "common: Any 1 times, 0 are allowed; name the type\n"


def test_one_less_is_refused_until_the_number_is_lowered(project: Path) -> None:
    (project / "pipeline/models/loading.py").write_text(MODULE.replace("typing.Any", "dict"))
    checked = check(project)
    assert checked.returncode == 1
    assert checked.stderr == (
        'pipeline.models: Any 1 times, fewer than pyproject.toml allows; lower it to "pipeline.models" = 1\n'
    )
    (project / "pyproject.toml").write_text(PYPROJECT.replace("= 2", "= 1"))
    assert check(project).returncode == 0
