"""What is signed of an artifact: in-toto's statements, with SLSA's provenance and with its bill of materials.

Formats: https://in-toto.io/Statement/v1, https://slsa.dev/provenance/v1, https://cyclonedx.org/bom.
"""

import json
from typing import Literal
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field

from pipeline.provenance.artifacts import Artifact, Material

STATEMENT = "https://in-toto.io/Statement/v1"
PROVENANCE, BILL = "https://slsa.dev/provenance/v1", "https://cyclonedx.org/bom"
NAMES = "urn:tunesmith"  # of what this project has names for


class Part(BaseModel):
    """A part of a statement, written by in-toto's names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def tree(self) -> dict[str, object]:
        """Return it as JSON has it, without what is not said."""
        return self.model_dump(by_alias=True, exclude_defaults=True)


class Subject(Part):
    """A file that a statement is of."""

    name: str
    digest: dict[str, str]  # by algorithm


class Resource(Part):
    """Something that an artifact was made of."""

    name: str
    uri: str
    digest: dict[str, str] = {}
    annotations: dict[str, str] = {}


class Definition(Part):
    """What was built of what, as SLSA has it."""

    build_type: str = Field(alias="buildType")
    external_parameters: dict[str, object] = Field(alias="externalParameters")
    internal_parameters: dict[str, object] = Field(alias="internalParameters")
    resolved_dependencies: tuple[Resource, ...] = Field(alias="resolvedDependencies")


class Provenance(Part):
    """How an artifact was made; no time is in it, so that the same is said of the same."""

    build_definition: Definition = Field(alias="buildDefinition")
    run_details: dict[str, object] = Field(alias="runDetails")


class Statement(Part):
    """What somebody says of files."""

    kind: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: tuple[Subject, ...] = Field(min_length=1)
    predicate_type: str = Field(alias="predicateType")
    predicate: dict[str, object]

    @property
    def files(self) -> dict[str, str]:
        """The SHA-256 of each file, by its name; empty where another digest stands in its place."""
        return {one.name: one.digest.get("sha256", "") for one in self.subject}

    def text(self) -> str:
        """Return it as JSON, the same for the same."""
        return json.dumps(self.tree(), sort_keys=True, ensure_ascii=False)


def statements(artifact: Artifact, bill: str) -> tuple[Statement, Statement]:
    """Return what is said of an artifact: how it was made, and what it is made of.

    Args:
        artifact: that has been read.
        bill: its bill of materials, CycloneDX's JSON.
    """
    files = tuple(Subject(name=name, digest={"sha256": digest}) for name, digest in artifact.files.items())
    said = {"_type": STATEMENT, "subject": files, "predicateType": PROVENANCE, "predicate": provenance(artifact).tree()}
    made = Statement.model_validate(said)
    return made, made.model_copy(update={"predicate_type": BILL, "predicate": json.loads(bill)})


def provenance(artifact: Artifact) -> Provenance:
    """Return how an artifact was made."""
    definition = {
        "buildType": f"{NAMES}:{artifact.built_as}:1",
        "externalParameters": artifact.settings,
        "internalParameters": artifact.circumstances,
        "resolvedDependencies": [resource(material) for material in artifact.materials],
    }
    return Provenance.model_validate({"buildDefinition": definition, "runDetails": {"builder": {"id": NAMES}}})


def resource(material: Material) -> Resource:
    """Return a material as in-toto describes resources; what no registry has gets a name of ours."""
    digests = {"sha256": material.sha256, "gitCommit": commit(material)}
    notes = {"kind": material.kind, "version": material.version, "state": material.state, "licence": material.licence}
    return Resource(
        name=material.name,
        uri=str(material.purl or quote(f"{NAMES}:{material.kind}:{material.name}", safe=":/")),
        digest={name: digest for name, digest in digests.items() if digest},
        annotations={name: note for name, note in notes.items() if note},
    )


def commit(material: Material) -> str | None:
    """Return the commit of what has one: code, and what comes from a hub."""
    return material.version if material.kind in ("code", "model", "data") else None
