"""The candidate in MLflow's registry: the alias says that it is tried, its version's tags since when and how it ended.

A decision is made when it stands in a tag. What follows can be done over: whoever is killed in it goes on from there.
"""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.errors import UserError
from pipeline.canary.record import CanaryRecord, Contender
from pipeline.core.paths import CANARY_REPORT
from pipeline.tracking.registry import CANDIDATE, candidate, champion, set_candidate, set_champion, withdraw_candidate

if TYPE_CHECKING:  # seconds to import
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

STARTED, AGAINST, RECORD = "canary_started", "canary_champion", "canary"  # tags of the candidate's version


@dataclass(frozen=True)
class Canary:
    """One that runs, or whose end is not all done."""

    version: "ModelVersion"  # the candidate's
    champion: "ModelVersion | None"  # as it is now
    against: Contender  # as it was when this began
    started: str
    record: CanaryRecord | None  # of a decision that stands

    @property
    def candidate(self) -> Contender:
        """The version that is tried."""
        return Contender(version=str(self.version.version), sha256=self.version.tags["sha256"])

    @property
    def is_decided(self) -> bool:
        """Whether aliases are to move, or have."""
        return self.record is not None and self.record.action != "told"

    @property
    def has_lost_its_champion(self) -> bool:
        """Whether somebody else moved the alias meanwhile."""
        promoted = self.record is not None and self.record.action == "promoted"
        expected = {self.against.version, *((self.candidate.version,) if promoted else ())}
        return self.champion is None or str(self.champion.version) not in expected


def begin(client: "MlflowClient", version: "ModelVersion", against: "ModelVersion", time: str) -> None:
    """Let a version be tried from a time on. What was said of it before counts no more."""
    name, number = version.name, str(version.version)
    if RECORD in version.tags:
        client.delete_model_version_tag(name, number, RECORD)
    client.set_model_version_tag(name, number, STARTED, time)
    client.set_model_version_tag(name, number, AGAINST, f"{against.version} {against.tags['sha256']}")
    set_candidate(client, version)


def running(client: "MlflowClient", name: str) -> Canary | None:
    """Return the canary of the registered model `name`; None where there is none.

    Raises:
        UserError: somebody else has set the alias, or changed the tags.
    """
    version = candidate(client, name)
    if version is None:
        return None
    number, _, digest = version.tags.get(AGAINST, "").partition(" ")
    if not (number and digest and version.tags.get(STARTED) and version.tags.get("sha256")):
        raise UserError(
            f"version {version.version} of {name} has the alias {CANDIDATE}, but no canary was started on it; "
            f"`tunesmith canary start --version {version.version}` starts one"
        )
    place = f"the tag {RECORD} of version {version.version}"
    record = CanaryRecord.parse_text(version.tags[RECORD], place) if RECORD in version.tags else None
    against = Contender(version=number, sha256=digest)
    return Canary(version, champion(client, name), against, version.tags[STARTED], record)


def conclude(client: "MlflowClient", canary: Canary, record: CanaryRecord) -> None:
    """Let a decision stand, and do what it says."""
    text = json.dumps(record.tree(), ensure_ascii=False)
    client.set_model_version_tag(canary.version.name, str(canary.version.version), RECORD, text)
    carry_out(client, canary, record)


def carry_out(client: "MlflowClient", canary: Canary, record: CanaryRecord) -> None:
    """Do what a decision says, all of it or what is left of it."""
    record.write(CANARY_REPORT)
    if record.action == "promoted" and canary.champion and str(canary.champion.version) == canary.against.version:
        set_champion(client, canary.version, canary.champion)
    if record.action != "told":
        withdraw_candidate(client, canary.version)
