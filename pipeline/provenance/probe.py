"""Prints what is installed where it runs, as JSON. It is read as a text and run by other Pythons: none of ours here.

python -I - packages     Python's packages
python -I - system       Debian's, too
"""

import json
import platform
import sys
from importlib.metadata import PackageMetadata, distributions
from pathlib import Path

STATUS = Path("/var/lib/dpkg/status")


def packages() -> list[dict[str, object]]:
    """Return Python's, each once: the first on the path is the one that is imported."""
    found: dict[str, dict[str, object]] = {}
    for one in distributions():
        name = one.metadata["Name"]
        if name:
            key = name.replace("_", "-").replace(".", "-").lower()
            found.setdefault(key, {"name": name, "version": one.version, "licences": licences(one.metadata)})
    return [found[key] for key in sorted(found)]


def licences(metadata: PackageMetadata) -> list[str]:
    """Return what a package says of its licence: SPDX's expression, else the names that it is listed under."""
    (expression,) = metadata.get_all("License-Expression") or ("",)
    listed = [line for line in metadata.get_all("Classifier") or () if line.startswith("License :: ")]
    names = {line.rpartition(" :: ")[2] for line in listed} - {"OSI Approved"}
    own = (metadata.get_all("License") or ("",))[0].strip()  # may be the whole text
    if expression or (not names and own and "\n" not in own):
        return [expression or own]
    return sorted(names)


def system() -> list[dict[str, object]]:
    """Return Debian's packages that are installed, by dpkg's own list."""
    found: list[dict[str, object]] = []
    for entry in STATUS.read_text(encoding="utf-8").split("\n\n") if STATUS.is_file() else ():
        fields = dict(line.split(": ", 1) for line in entry.splitlines() if ": " in line and line[0] != " ")
        if fields.get("Status", "").endswith(" installed"):
            found.append({"name": fields["Package"], "version": fields["Version"], "licences": []})
    return sorted(found, key=lambda one: str(one["name"]))


def distribution() -> str:
    """Return which system it is, such as debian-12."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return "linux"
    return f"{release.get('ID', 'linux')}-{release.get('VERSION_ID', '')}".rstrip("-")


def main() -> None:
    """Print it."""
    print(
        json.dumps(
            {
                "python": platform.python_version(),
                "platform": f"{sys.platform}-{platform.machine()}",
                "packages": packages(),
                "system": system() if "system" in sys.argv else [],
                "distribution": distribution(),
            }
        )
    )


if __name__ == "__main__":
    main()
