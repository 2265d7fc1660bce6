"""A Space on the Hub: made, given its secrets and its files, waited for.

huggingface_hub's `upload_large_folder` is deprecated since 1.33, and commits several times: a Space would be built of
half a folder. Large files go first, and all becomes one commit (pipeline/publishing/hub.py).
"""

import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import httpx
from huggingface_hub import HfApi, SpaceHardware, SpaceInfo, SpaceRuntime, SpaceStage
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from common.errors import UserError
from pipeline.deployment.space_folder import KINDS, Sdk
from pipeline.publishing.hub import check_visibility

HARDWARE: Mapping[Sdk, SpaceHardware | None] = {"docker": None, "gradio": SpaceHardware.ZERO_A10G}  # None: CPU basic
UNDER_WAY = ("BUILDING", "APP_STARTING", "RUNNING_BUILDING", "RUNNING_APP_STARTING")  # as huggingface_hub has them
UP = ("RUNNING", "SLEEPING")
PATIENCE = 3600.0  # seconds until it is up: llama.cpp in all variants takes 10 minutes on two processors
NEWS = 60.0  # seconds until the Hub speaks of a new commit
POLL = 5.0  # seconds
LINES = 20  # of a log that are shown
PASSING = (408, 429, 500, 502, 503, 504)  # statuses after which the Hub is asked again
NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)


@dataclass(frozen=True)
class Secret:
    """A secret of a Space: its name there, and the variable here that has its value, which is never shown."""

    name: str
    variable: str

    @property
    def value(self) -> str:
        """What it is."""
        return os.environ[self.variable]

    def __str__(self) -> str:
        return self.name if self.name == self.variable else f"{self.name} (of {self.variable})"


def read_secrets(texts: Iterable[str]) -> list[Secret]:
    """Return the secrets that NAME or NAME=VARIABLE name, each with a value in this environment.

    Raises:
        UserError: a name is none, or the variable is not set.
    """
    secrets = [Secret(name, variable or name) for name, _, variable in (text.partition("=") for text in texts)]
    for secret in secrets:
        if not (NAME.fullmatch(secret.name) and NAME.fullmatch(secret.variable)):
            raise UserError(
                "--secret wants names alone, NAME or NAME=VARIABLE: its value comes from this environment, so that no "
                "command line has it"
            )
        if not os.environ.get(secret.variable):
            raise UserError(f"--secret {secret.name}: the variable that has its value is not set here; export it")
    return secrets


def find_space(repository: str, private: bool, sdk: Sdk | None) -> SpaceInfo | None:
    """Return a Space as it is; None where there is none.

    Raises:
        UserError: it is for others to see than was asked for, or of another kind.
    """
    try:
        found = HfApi().space_info(repository)
    except RepositoryNotFoundError:
        return None
    check_visibility(found, private)
    kind = next((name for known, name in KINDS.items() if known == found.sdk), None)
    if kind is None:
        raise UserError(f"{repository} is a Space of the kind {found.sdk}; name another")
    if sdk and found.sdk != sdk:
        raise UserError(f"{repository} is a {kind}; leave --sdk out, or name another")
    return found


def make_space(repository: str, sdk: Sdk, private: bool) -> SpaceInfo:
    """Return a Space that was made, with nothing in it yet."""
    api = HfApi()
    api.create_repo(
        repository, repo_type="space", private=private, space_sdk=sdk, space_hardware=HARDWARE[sdk], exist_ok=True
    )
    return api.space_info(repository)


def give_secrets(repository: str, secrets: Sequence[Secret]) -> None:
    """Set a Space's secrets, in the place of those of their names."""
    for secret in secrets:
        HfApi().add_space_secret(repository, secret.name, secret.value)


def wait_until_up(repository: str, commit: str) -> None:
    """Wait until a Space runs a commit, or sleeps with it: it wakes when it is asked.

    Raises:
        UserError: it fails, whose last words are printed, or takes more than an hour.
    """
    begun, said, is_under_way = time.monotonic(), "", False
    while True:
        runtime = runtime_of(repository)
        waited = time.monotonic() - begun
        if runtime and runtime.stage != said:
            said = runtime.stage
            print(f"{repository}: {said.lower().replace('_', ' ')}", flush=True)
        if runtime and runtime.stage in UP and runtime.raw.get("sha") in (None, commit):
            return
        is_under_way |= bool(runtime and runtime.stage in UNDER_WAY)
        # What it says in the first seconds may still be of the commit before.
        if runtime and runtime.stage not in (*UNDER_WAY, *UP) and (is_under_way or waited > NEWS):
            show_log(repository, build=runtime.stage == SpaceStage.BUILD_ERROR)
            why = " ".join(str(runtime.raw.get("errorMessage") or "its page has the log, and restarts it").split())
            raise UserError(f"{repository} does not come up ({runtime.stage}): {why[:200]}")
        if waited > PATIENCE:
            raise UserError(f"{repository} is not up after {PATIENCE / 60:.0f} minutes ({said}); its page has the log")
        time.sleep(POLL)


def address(repository: str) -> str:
    """Return where a Space answers.

    Raises:
        UserError: the Hub does not say.
    """
    found = HfApi().space_info(repository)
    if not found.host:
        raise UserError(f"the Hub does not say where {repository} answers; its page shows it")
    return found.host.rstrip("/")


def runtime_of(repository: str) -> SpaceRuntime | None:
    """Return in which stage a Space is; None while the Hub does not say."""
    try:
        return HfApi().get_space_runtime(repository)
    except HfHubHTTPError as error:
        if error.response.status_code not in PASSING:
            raise
    except httpx.TransportError:
        pass
    return None


def show_log(repository: str, build: bool) -> None:
    """Print the last lines of a Space's log, of its build or its run."""
    with suppress(HfHubHTTPError, httpx.HTTPError):
        lines = [line.rstrip() for line in HfApi().fetch_space_logs(repository, build=build)]
        print("\n".join(lines[-LINES:]), flush=True)
