"""An artifact is what was signed, or the file that is not is named; what is not signed is said to be so."""

import shutil
from pathlib import Path

import pytest
from told_models import flip

from common.errors import UserError
from pipeline.provenance.bundles import find, place_of, require_signed, sign
from pipeline.provenance.signing import make_key_pair, read_private_key, read_public_key

GGUF, ADAPTER = Path("models/gguf/tiny-Q8_0.gguf"), Path("models/adapter")


@pytest.fixture(autouse=True)
def signed(workspace: Path, keys: tuple[Path, Path]) -> None:
    for path in (GGUF, ADAPTER):
        sign(path, read_private_key(keys[0]))


def refused(path: Path, key: Path) -> str:
    with pytest.raises(UserError) as ended:
        require_signed(path, read_public_key(key))
    assert "\n" not in str(ended.value)
    return str(ended.value)


def test_what_dvc_keeps_stays_as_it_was(keys: tuple[Path, Path]) -> None:
    assert sorted(path.name for path in GGUF.parent.iterdir()) == [GGUF.name]
    assert [place_of(path).parent for path in (GGUF, ADAPTER)] == [Path("models/signatures")] * 2
    for path in (GGUF, ADAPTER, Path("models/../models/adapter/"), GGUF.absolute()):
        assert require_signed(path, read_public_key(keys[1])).files


def test_each_changed_byte_of_a_file_names_the_file(keys: tuple[Path, Path]) -> None:
    for at in range(0, GGUF.stat().st_size, 211):
        flip(GGUF, at)
        assert refused(GGUF, keys[1]).startswith(f"{GGUF} is not what was signed: tiny-Q8_0.gguf has changed: its SHA-")
        flip(GGUF, at)


def test_a_changed_a_missing_and_an_added_file_of_a_folder_are_named(keys: tuple[Path, Path]) -> None:
    flip(ADAPTER / "adapter_config.json", 0)
    assert refused(ADAPTER, keys[1]).startswith(
        "models/adapter is not what was signed: adapter_config.json has changed"
    )
    (ADAPTER / "adapter_config.json").unlink()
    (ADAPTER / "modeling_evil.py").write_text("")
    said = refused(ADAPTER, keys[1])
    assert "adapter_config.json is missing, it had the SHA-256 " in said
    assert said.endswith("; modeling_evil.py was never signed")


def test_a_form_for_readers_may_be_another(keys: tuple[Path, Path]) -> None:
    (ADAPTER / "README.md").write_text("filled in")
    assert require_signed(ADAPTER, read_public_key(keys[1]))


def test_a_copy_elsewhere_is_checked_by_the_bundle_beside_it(keys: tuple[Path, Path], tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    copy = Path(shutil.copy(GGUF, elsewhere))
    assert refused(copy, keys[1]) == f"{copy} is unsigned: there is no tiny-Q8_0.gguf.intoto.jsonl beside it"
    bundle = find(GGUF)
    assert bundle
    assert require_signed(copy, read_public_key(keys[1]), bundle)
    shutil.copy(bundle, elsewhere)
    assert require_signed(copy, read_public_key(keys[1]))
    assert sign(copy, read_private_key(keys[0])).parent == elsewhere


def test_a_file_in_a_folder_with_a_bundle_of_its_own_is_held_against_that(
    keys: tuple[Path, Path], tmp_path: Path
) -> None:
    bundle = find(GGUF)
    assert bundle
    inside = Path(shutil.copy(GGUF, ADAPTER))
    shutil.copy(bundle, ADAPTER)
    assert require_signed(ADAPTER, read_public_key(keys[1]))
    flip(inside, 100)
    assert refused(ADAPTER, keys[1]).startswith(f"{inside} is not what was signed: tiny-Q8_0.gguf has changed")
    flip(inside, 100)
    _, another = make_key_pair(tmp_path / "another")
    sign(ADAPTER, read_private_key(another.with_suffix(".key")))
    assert "is signed by " in refused(ADAPTER, another)  # the folder is theirs, the file in it is not


def test_another_models_signature_vouches_for_nothing(keys: tuple[Path, Path]) -> None:
    other = GGUF.with_name("other.gguf")
    shutil.copy(GGUF, other)
    bundle = find(GGUF)
    assert bundle
    shutil.copy(bundle, bundle.with_name("other.gguf.intoto.jsonl"))
    assert "other.gguf was never signed; tiny-Q8_0.gguf is missing" in refused(other, keys[1])


def test_what_is_not_there_is_said(keys: tuple[Path, Path]) -> None:
    assert refused(Path("none.gguf"), keys[1]) == "none.gguf is not here"
