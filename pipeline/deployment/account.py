"""What an account on the Hub may make, as its documentation has it since 2026-07-21 (hub-docs, pull request 2624).

A Docker or Gradio Space that computes on CPU basic is for paid plans: PRO for a person, Team or Enterprise for an
organization. A person without one may have 2 Gradio Spaces on ZeroGPU, with a verified address and an account older
than 30 days; one with PRO 10, an organization with a plan 50.
"""

from dataclasses import dataclass
from typing import Literal

from huggingface_hub import HfApi, SpaceHardware

from common.errors import UserError
from pipeline.deployment.space_folder import KINDS, Sdk

SAID = "by the Hub's documentation of 2026-07-21"
ZERO_GPU = {"free": 2, "pro": 10, "organization": 50}  # Spaces at most
NAMES = {
    "free": "a free account",
    "pro": "a PRO account",
    "organization": "an organization with a Team or Enterprise plan",
}


@dataclass(frozen=True)
class Account:
    """Whose a Space is going to be."""

    owner: str
    kind: Literal["free", "pro", "organization"]
    zero_spaces: int = 0  # Spaces on ZeroGPU that it has
    is_known: bool = True  # whether the Hub says which plan it has; of an organization it may not

    @property
    def may(self) -> tuple[Sdk, ...]:
        """The kinds of Space that it may make, the better first: a Docker Space is built once, and asks for no GPU."""
        docker: tuple[Sdk, ...] = () if self.kind == "free" else ("docker",)
        gradio: tuple[Sdk, ...] = ("gradio",) if self.zero_spaces < ZERO_GPU[self.kind] else ()
        return docker + gradio

    def __str__(self) -> str:
        doubt = "" if self.is_known else ", if it is one: the Hub does not say"
        return f"{self.owner}, {NAMES[self.kind]}{doubt}"

    @property
    def rights(self) -> str:
        """What it may make, in a line."""
        docker = "no Docker Space (PRO, Team and Enterprise may)" if self.kind == "free" else "a Docker Space"
        condition = ", with a verified address and 30 days old" if self.kind == "free" else ""
        gradio = f"{ZERO_GPU[self.kind]} ZeroGPU Gradio Spaces{condition}; it has {self.zero_spaces}"
        return f"{docker}, {gradio} ({SAID})"


def account_of(owner: str) -> Account:
    """Return the account that a Space would belong to, as HF_TOKEN may act for it.

    Raises:
        UserError: the token is another account's, or may only read.
    """
    api = HfApi()
    user = api.whoami()
    if user.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise UserError("HF_TOKEN may only read; make one that may write, at https://huggingface.co/settings/tokens")
    if user["name"] == owner:
        return Account(owner, "pro" if user.get("isPro") else "free", zero_spaces(owner))
    if owner in (organization["name"] for organization in user.get("orgs") or ()):
        is_known = bool(api.get_organization_overview(owner).plan)
        return Account(owner, "organization", zero_spaces(owner), is_known)
    raise UserError(f"HF_TOKEN is {user['name']}'s, who is not {owner} and in no organization of that name")


def zero_spaces(owner: str) -> int:
    """Return how many of an owner's Spaces are on ZeroGPU."""
    runtimes = (space.runtime for space in HfApi().list_spaces(author=owner, expand=["runtime"]))
    return sum(
        SpaceHardware.ZERO_A10G in (runtime.hardware, runtime.requested_hardware) for runtime in runtimes if runtime
    )


def kind_to_make(account: Account, asked: Sdk | None) -> Sdk:
    """Return the kind of Space to make: what is asked for, or the better of what the account may make.

    Raises:
        UserError: it may not make that.
    """
    if asked in account.may or (asked is None and account.may):
        return asked or account.may[0]
    wanted = f"no {KINDS[asked]}" if asked else "neither kind of Space"
    other = next((f"; --sdk {kind} makes a {KINDS[kind]}" for kind in account.may), "")
    raise UserError(f"{account}, may make {wanted}: {account.rights}{other}")
