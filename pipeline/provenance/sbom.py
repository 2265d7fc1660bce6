"""Bills of materials in CycloneDX's JSON: what an environment, an image or a model is made of.

The same content gives the same text: no time, and a serial number that follows from all else.
"""

import json
import subprocess
import sys
import uuid
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypedDict

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import License
from cyclonedx.output.json import JsonV1Dot6
from docker.errors import ContainerError, DockerException
from packageurl import PackageURL

from common.errors import UserError
from pipeline.containers.engine import connect, reason
from pipeline.provenance.artifacts import Artifact, Kind, Material, read_artifact
from pipeline.provenance.images import image_here

TYPES: dict[Kind, ComponentType] = {
    "model": ComponentType.MACHINE_LEARNING_MODEL,
    "data": ComponentType.DATA,
    "file": ComponentType.FILE,
    "library": ComponentType.LIBRARY,
    "platform": ComponentType.PLATFORM,
    "code": ComponentType.APPLICATION,
    "image": ComponentType.CONTAINER,
}
OWN = "tunesmith"  # this project among the packages of an environment, which is what the bill is of
SERIALS = uuid.uuid5(uuid.NAMESPACE_URL, "urn:tunesmith:sbom")
PROBE = Path(__file__).with_name("probe.py")  # runs under any Python, also one of an image that has nothing of ours


class Package(TypedDict):
    """A package as the probe finds it; a system's has its own kind of URL."""

    name: str
    version: str
    licences: list[str]


class Found(TypedDict):
    """What the probe says of the place that it runs in."""

    python: str
    platform: str
    packages: list[Package]
    system: list[Package]  # Debian's, where they were asked for
    distribution: str  # such as debian-12


def sbom_of_environment(python: Path | Sequence[str] | None = None, name: str = OWN) -> str:
    """Return the bill of an environment: Python, and each installed package with its version and licence.

    Args:
        python: its interpreter, or the command that starts it; else the one that runs this.
        name: what the bill is of.

    Raises:
        UserError: the interpreter does not start.
    """
    command = [str(python or sys.executable)] if python is None or isinstance(python, Path) else [*python]
    return bill_of(look(command), name)


def sbom_of_image(image: str) -> str:
    """Return the bill of an image of the Docker engine: its Python's packages, and Debian's.

    Args:
        image: its name or digest.

    Raises:
        UserError: there is none, or no Python in it.
    """
    with closing(connect()) as engine:
        found = image_here(engine, image)
        try:
            said = engine.containers.run(
                found.id,
                probe("system"),
                entrypoint="python",
                remove=True,
                network_mode="none",
                read_only=True,
                cap_drop=["ALL"],
            )
        except ContainerError as error:
            raise UserError(f"{image} does not tell its packages: {last_line(error.stderr.decode())}") from error
        except DockerException as error:
            raise UserError(f"{image} has no Python that tells its packages: {reason(error)}") from error
    return bill_of(json.loads(said), image)


def sbom_of_model(path: Path) -> str:
    """Return the bill of a GGUF file or an adapter's folder: base, data, code and libraries.

    Raises:
        UserError: it does not say where it comes from.
    """
    return sbom_of_artifact(read_artifact(path))


def sbom_of_artifact(artifact: Artifact) -> str:
    """Return the bill of what has been read of an artifact."""
    files = [component(Material("file", name, sha256=digest)) for name, digest in artifact.files.items()]
    root = Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=artifact.name,
        bom_ref="model",
        hashes=files[0].hashes if len(files) == 1 else None,
        components=files if len(files) > 1 else None,
    )
    return bill(root, [component(material) for material in artifact.materials])


def component(material: Material) -> Component:
    """Return a material as a bill lists it."""
    purl = material.purl
    version = purl.version if purl else material.version
    return Component(
        type=TYPES[material.kind],
        name=material.name,
        version=version,
        purl=purl,
        bom_ref=" ".join(filter(None, (material.kind, material.name, version or material.sha256))),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=material.sha256)] if material.sha256 else None,
        licenses=licences([material.licence]) if material.licence else None,
        properties=[Property(name="tunesmith:digest", value=material.state)] if material.state else None,
    )


def bill_of(found: Found, name: str) -> str:
    """Return the bill of what the probe has found."""
    family, _, _ = found["distribution"].partition("-")
    where = {"distro": found["distribution"]}
    root = Component(
        type=ComponentType.APPLICATION,
        name=name,
        version=next((one["version"] for one in found["packages"] if one["name"] == OWN), None),
        bom_ref="root",
        properties=[Property(name="platform", value=found["platform"])],
    )
    parts = [component(Material("platform", "python", found["python"]))]
    for one in found["packages"]:
        if one["name"] != OWN:
            parts.append(package(one, PackageURL("pypi", name=one["name"], version=one["version"])))
    for one in found["system"]:
        parts.append(package(one, PackageURL("deb", family, one["name"], one["version"], where)))
    return bill(root, parts)


def package(found: Package, purl: PackageURL) -> Component:
    """Return a package as a bill lists it."""
    return Component(
        type=ComponentType.LIBRARY,
        name=found["name"],
        version=found["version"],
        purl=purl,
        bom_ref=purl.to_string(),
        licenses=licences(found["licences"]),
    )


def licences(names: Sequence[str]) -> list[License]:
    """Return licences by their SPDX names where they have some; one expression, or a list of names."""
    make = LicenseFactory()
    if len(names) == 1:
        return [make.make_from_string(names[0])]
    return [make.make_with_name(name) for name in names]


def bill(root: Component, parts: Iterable[Component]) -> str:
    """Return a bill as text: what it is of, and all parts of that."""
    listed = list(parts)
    bom = Bom(metadata=BomMetaData(component=root), components=listed)
    bom.register_dependency(root, listed)
    tree = json.loads(JsonV1Dot6(bom).output_as_string())
    del tree["serialNumber"], tree["metadata"]["timestamp"]
    number = uuid.uuid5(SERIALS, json.dumps(tree, sort_keys=True))
    return json.dumps({**tree, "serialNumber": number.urn}, indent=2, ensure_ascii=False) + "\n"


def probe(what: str) -> list[str]:
    """Return what makes a Python run the probe."""
    return ["-I", "-c", PROBE.read_text(encoding="utf-8"), what]


def look(python: Sequence[str]) -> Found:
    """Run the probe under a Python and return what it says.

    Raises:
        UserError: it does not start.
    """
    try:
        done = subprocess.run([*python, *probe("packages")], capture_output=True, text=True)
    except OSError as error:
        raise UserError(f"{python[0]} does not start: {error.strerror}") from error
    if done.returncode:
        raise UserError(f"{' '.join(python)} does not tell its packages: {last_line(done.stderr)}")
    found: Found = json.loads(done.stdout)
    return found


def last_line(said: str) -> str:
    """Return the last line of what a program has said of its failure."""
    return next((line for line in reversed(said.splitlines()) if line.strip()), "it gives no reason")
