"""Keys that nobody else reads, and bundles in which no byte can change."""

import base64
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from told_models import flip

from common.errors import UserError
from pipeline.provenance.bundles import sign, vouched
from pipeline.provenance.signing import OWN, make_key_pair, own_signer, read_private_key, read_public_key
from pipeline.provenance.statement import BILL, PROVENANCE

GGUF = Path("models/gguf/tiny-Q8_0.gguf")


@pytest.fixture
def bundle(workspace: Path, keys: tuple[Path, Path]) -> Path:
    return sign(GGUF, read_private_key(keys[0]))


def refused(path: Path, key: Path) -> str:
    with pytest.raises(UserError) as ended:
        vouched(path, read_public_key(key))
    assert "\n" not in str(ended.value)
    return str(ended.value)


def test_a_private_key_is_its_owners_and_is_never_overwritten(tmp_path: Path) -> None:
    private, public = make_key_pair(tmp_path / "new" / "mine")
    assert [path.stat().st_mode & 0o777 for path in (private, private.parent)] == [0o600, 0o700]
    before = private.read_bytes()
    for lost in (None, public):
        if lost:
            lost.unlink()
        with pytest.raises(UserError, match=r"is there already, and keys are never overwritten"):
            make_key_pair(tmp_path / "new" / "mine")
    assert private.read_bytes() == before


def test_a_private_key_that_others_may_read_signs_nothing(keys: tuple[Path, Path]) -> None:
    keys[0].chmod(0o640)
    with pytest.raises(UserError, match=rf"mine\.key may be read by others than its owner; `chmod 600 {keys[0]}`"):
        read_private_key(keys[0])


def test_a_key_of_the_wrong_kind_is_said(keys: tuple[Path, Path], tmp_path: Path) -> None:
    private, public = keys
    other = tmp_path / "other"
    other.write_text("no key")
    other.chmod(0o600)
    with pytest.raises(UserError, match="is a private key; name the public one"):
        read_public_key(private)
    public.chmod(0o600)
    for path in (public, other):
        with pytest.raises(UserError, match="is no private key in PEM that signs here"):
            read_private_key(path)
    with pytest.raises(UserError, match="is no public key in PEM"):
        read_public_key(other)
    with pytest.raises(UserError, match=r"cannot read the key .*none: No such file"):
        read_public_key(tmp_path / "none")


def test_the_environment_names_a_key(keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(OWN, raising=False)
    assert own_signer() is None
    monkeypatch.setenv(OWN, str(keys[0]))
    signer = own_signer()
    assert signer is not None
    assert signer.public_key.keyid == read_public_key(keys[1]).keyid
    monkeypatch.setenv(OWN, str(keys[0].with_name("gone.key")))
    with pytest.raises(
        UserError, match="cannot read the key"
    ):  # a key that is asked for and is not there is no "unsigned"
        own_signer()


def test_a_bundle_has_the_published_kinds_of_statements(bundle: Path, keys: tuple[Path, Path]) -> None:
    envelopes = [json.loads(line) for line in bundle.read_text().splitlines()]
    assert {one["payloadType"] for one in envelopes} == {"application/vnd.in-toto+json"}
    payloads = [json.loads(base64.b64decode(one["payload"])) for one in envelopes]
    assert {one["_type"] for one in payloads} == {"https://in-toto.io/Statement/v1"}
    assert [one["predicateType"] for one in payloads] == [PROVENANCE, BILL]
    assert payloads[1]["predicate"]["bomFormat"] == "CycloneDX"
    definition = payloads[0]["predicate"]["buildDefinition"]
    assert definition["buildType"] == "urn:tunesmith:gguf:1"
    assert definition["externalParameters"]["train"]["lr"] == 0.005
    assert definition["externalParameters"]["export"]["type"] == "Q8_0"
    named = {one["name"]: one["digest"] for one in definition["resolvedDependencies"] if "digest" in one}
    assert {"starter/chats.jsonl", "prepared/train", "adapter/adapter_model.safetensors"} <= named.keys()
    assert payloads[0]["predicate"]["runDetails"]["builder"]["id"] == "urn:tunesmith"


def test_the_same_key_signs_the_same_in_the_same_bytes(bundle: Path, keys: tuple[Path, Path]) -> None:
    before = bundle.read_bytes()
    assert sign(GGUF, read_private_key(keys[0])).read_bytes() == before


def test_no_byte_of_a_bundle_can_change(bundle: Path, keys: tuple[Path, Path]) -> None:
    size = bundle.stat().st_size
    for at in [*range(0, size, 307), *range(size - 20, size)]:
        flip(bundle, at)
        assert str(bundle) in refused(bundle, keys[1])
        flip(bundle, at)
    assert vouched(bundle, read_public_key(keys[1])).files.keys() == {GGUF.name}


def test_a_forged_statement_is_told_from_one_of_another(bundle: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    _, another = make_key_pair(tmp_path / "another")
    assert "is signed by " in refused(bundle, another)
    lines = [json.loads(line) for line in bundle.read_text().splitlines()]
    lines[0]["payload"] = lines[1]["payload"]
    bundle.write_text("".join(json.dumps(line, sort_keys=True) + "\n" for line in lines))
    assert refused(bundle, keys[1]).endswith("it was changed, or forged")


def test_a_bundle_with_a_statement_less_or_twice_is_refused(bundle: Path, keys: tuple[Path, Path]) -> None:
    first, second = bundle.read_text().splitlines(keepends=True)
    for text in ("", first, second, first + first, first + second + second):
        bundle.write_text(text)
        assert "does not have one provenance and one bill of materials" in refused(bundle, keys[1])


def test_a_bill_of_other_files_is_refused(bundle: Path, keys: tuple[Path, Path]) -> None:
    first, _ = bundle.read_text().splitlines(keepends=True)
    _, second = sign(Path("models/adapter"), read_private_key(keys[0])).read_text().splitlines(keepends=True)
    bundle.write_text(first + second)
    assert "of different files" in refused(bundle, keys[1])


@pytest.mark.skipif(not shutil.which("openssl"), reason="there is no openssl")
def test_openssl_finds_the_signature_right_and_makes_keys_that_sign(
    bundle: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    envelope = json.loads(bundle.read_text().splitlines()[0])
    kind, payload = envelope["payloadType"].encode(), base64.b64decode(envelope["payload"])
    (tmp_path / "said").write_bytes(b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload))
    (tmp_path / "signature").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(keys[1]), "-rawin"]
    files = ["-in", str(tmp_path / "said"), "-sigfile", str(tmp_path / "signature")]
    subprocess.run([*command, *files], check=True, capture_output=True)

    theirs, public = tmp_path / "theirs.key", tmp_path / "theirs.pub"
    kind_of_key = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
    subprocess.run(["openssl", "genpkey", *kind_of_key, "-out", str(theirs)], check=True, capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", str(theirs), "-pubout", "-out", str(public)], check=True)
    theirs.chmod(0o600)
    again = sign(GGUF, read_private_key(theirs))
    assert vouched(again, read_public_key(public)).files.keys() == {GGUF.name}
