import re
import subprocess
import sys

import pytest
from servers import ROOT, run_server

from common.errors import UserError
from serve.settings import Settings, describe, variable


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


def test_the_sites_that_may_frame_the_page_are_none_but_in_a_space(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPACE_ID", raising=False)
    assert Settings().embedders == []
    settings = Settings.from_env({"SERVE_EMBED": "https://a.example, http://b:8080"})
    assert settings.embedders == ["https://a.example", "http://b:8080"]
    with pytest.raises(UserError, match=r"^SERVE_EMBED: must be https://SITE,…$"):
        Settings.from_env({"SERVE_EMBED": "https://a.example; script-src *"})
    monkeypatch.setenv("SPACE_ID", "owner/name")
    assert Settings().embedders == ["https://huggingface.co"]


def test_a_misspelt_variable_ends_the_start_in_one_line_with_the_nearest() -> None:
    ended = run_server(modle="tiny")
    assert ended.returncode == 1
    nearest = "the nearest is SERVE_MODEL, and --help lists all: set that, or unset SERVE_MODLE"
    assert ended.stderr == f"error: SERVE_MODLE is no setting; {nearest}\n"


def test_a_variable_that_is_near_to_none_is_refused_too_but_not_an_empty_one() -> None:
    with pytest.raises(UserError, match=r"^SERVE_ is no setting; the nearest is SERVE_\w+, and "):
        Settings.from_env({"SERVE_": "1"})
    assert Settings.from_env({"SERVE_COLOUR": " ", "SERVER_NAME": "web", "OBSERVE_ALL": "1"}) == Settings()


def test_a_variable_of_before_is_told_by_its_name_of_today() -> None:
    with pytest.raises(UserError, match=r"^SERVE_LOADED is called SERVE_MAX_LOADED_MODELS now; set that instead$"):
        Settings.from_env({"SERVE_LOADED": "2"})


@pytest.mark.parametrize("name", ["SERVE_MAX_CHARS", "SERVE_MAX_MESSAGES"])
def test_a_setting_that_is_no_more_is_said_to_be_none(name: str) -> None:
    with pytest.raises(UserError, match=f"^{name} is no setting any more, SERVE_CONTEXT bounds a conversation: unset"):
        Settings.from_env({name: "2"})


def service_links(service: str) -> dict[str, str]:
    """What Kubernetes sets for a Service with one port, named http."""
    return {
        f"{service}_SERVICE_HOST": "10.0.0.11",
        f"{service}_SERVICE_PORT": "7860",
        f"{service}_SERVICE_PORT_HTTP": "7860",
        f"{service}_PORT": "tcp://10.0.0.11:7860",
        f"{service}_PORT_7860_TCP": "tcp://10.0.0.11:7860",
        f"{service}_PORT_7860_TCP_PROTO": "tcp",
        f"{service}_PORT_7860_TCP_PORT": "7860",
        f"{service}_PORT_7860_TCP_ADDR": "10.0.0.11",
    }


@pytest.mark.parametrize("service", ["SERVE", "SERVE_BLUE", "SERVE_MODELS"])
def test_what_a_cluster_says_of_a_service_is_no_setting_and_said(
    service: str, caplog: pytest.LogCaptureFixture
) -> None:
    links = service_links(service)
    assert Settings.from_env({**links, "SERVE_SLOTS": "2"}) == Settings(slots=2)
    [said] = caplog.messages
    assert said == f"warning: no settings, but what Kubernetes says of a Service: {', '.join(sorted(links))}"


def test_a_port_of_ones_own_holds_beside_a_service() -> None:
    assert Settings.from_env(service_links("SERVE") | {"SERVE_PORT": "8080"}).port == 8080


@pytest.mark.parametrize("alone", ["SERVE_PORT", "SERVE_PORT_7860_TCP", "SERVE_SERVICE_PORT"])
def test_what_looks_like_a_cluster_s_is_refused_where_there_is_no_service(alone: str) -> None:
    with pytest.raises(UserError, match=f"^{alone}"):
        Settings.from_env({alone: service_links("SERVE")[alone]})


def test_what_images_and_compose_set_are_settings() -> None:
    places = ("Dockerfile.serve", "compose.yaml")
    told = {name for place in places for name in re.findall(r"\bSERVE_\w+", (ROOT / place).read_text("utf-8"))}
    assert told
    assert told <= {variable(name) for name in Settings.__dataclass_fields__}


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
