import re
import subprocess
import sys

import pytest
from servers import ROOT, run_server

from common.errors import UserError
from serve.settings import Settings, describe


def test_defaults_hold_without_variables_and_for_empty_ones() -> None:
    assert Settings.from_env({"SERVE_PORT": " ", "OTHER": "1"}) == Settings()


def test_variables_are_read_in_their_types() -> None:
    settings = Settings.from_env(
        {"SERVE_HOST": "0.0.0.0", "SERVE_PORT": "8080", "SERVE_MODELS": "/x", "SERVE_TEMPERATURE_MAX": "1.5"}  # noqa: S104
    )
    assert settings.host == "0.0.0.0"  # noqa: S104
    assert (settings.port, settings.models, settings.temperature_max) == (8080, "/x", 1.5)


@pytest.mark.parametrize(
    ("name", "value", "range_"),
    [
        ("SERVE_PORT", "http", "a whole number from 1 to 65535"),
        ("SERVE_PORT", "70000", "a whole number from 1 to 65535"),
        ("SERVE_THREADS", "0", "a whole number from 1 to 1024"),
        ("SERVE_CONTEXT", "4096.5", "a whole number from 64 to"),
        ("SERVE_TEMPERATURE_MAX", "nan", "a number from 0 to 100"),
    ],
)
def test_a_bad_value_is_refused_with_variable_value_and_range(name: str, value: str, range_: str) -> None:
    with pytest.raises(UserError, match=f"{name}={value}: must be {range_}"):
        Settings.from_env({name: value})


def test_the_command_line_ends_in_one_line_for_a_bad_value() -> None:
    ended = run_server(port="http")
    assert ended.returncode == 1
    assert ended.stderr == "error: SERVE_PORT=http: must be a whole number from 1 to 65535\n"


def test_help_lists_every_variable() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "serve", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert describe() in shown.stdout
    assert all(f"SERVE_{name.upper()} " in shown.stdout for name in Settings.__dataclass_fields__)


def test_the_documentation_has_every_variable_as_the_help_has_it() -> None:
    page = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(SERVE_\w+)` \| (?:`(.*?)`)? \| (.*) \|$", page, re.MULTILINE)
    told = [f"  {name:<22} {text}{f' ({default})' if default else ''}" for name, default, text in rows]
    assert "\n".join(told) == describe()
