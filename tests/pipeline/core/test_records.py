"""A record is read as it was written, and what is no record of this version says so in one line."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import recorded_run
from evaluation_sample import sample

from common.errors import UserError
from pipeline.core.records import Lineage, Manifest, Record, UnreadableError
from pipeline.report.record import SCHEMA, Evaluation, Measurements

PLACE = "reports/evaluation.json of HEAD~9"


def refused(tree: Any, kind: type[Record] = Evaluation) -> str:
    """The line that it ends with."""
    with pytest.raises(UnreadableError) as raised:
        kind.parse(tree, PLACE)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        (Evaluation, sample),
        (Evaluation, recorded_run.evaluation),
        (Manifest, recorded_run.manifest),
        (Lineage, recorded_run.lineage),
    ],
)
def test_a_record_comes_back_as_it_was_written(
    kind: type[Record], make: Callable[[], dict[str, Any]], tmp_path: Path
) -> None:
    record = kind.parse(make(), PLACE)
    record.write(tmp_path / "record.json")
    assert kind.read(tmp_path / "record.json") == record
    assert json.loads((tmp_path / "record.json").read_text()) == make()


@pytest.mark.parametrize(
    ("version", "called"),
    [(None, "unnumbered"), (1, "1"), (SCHEMA + 1, str(SCHEMA + 1)), (str(SCHEMA), f"'{SCHEMA}'")],
)
@pytest.mark.parametrize("kind", [Evaluation, Measurements])
def test_another_schema_is_another_version_s_whatever_it_holds(
    kind: type[Record], version: int | str | None, called: str
) -> None:
    tree = sample() | {"schema_version": version} if version else {"model": "tiny"}
    assert refused(tree, kind) == (
        f"{PLACE} was made by another version of Tunesmith (schema {called}, this one reads {SCHEMA}); "
        f"make it again: `dvc repro -sf {kind.made_by}`"
    )


@pytest.mark.parametrize("key", sorted(set(sample()) - {"schema_version", "judgement"}))
def test_a_missing_field_is_named(key: str) -> None:
    tree = sample()
    del tree[key]
    said = f"{PLACE} does not hold what it should: {key}: field required; make it again: `dvc repro -sf report`"
    assert refused(tree) == said


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda tree: tree["gain"].pop("low"), "gain.low: field required"),
        (lambda tree: tree["gguf"]["Q8_0"].update(of="mine"), "gguf.Q8_0.of: input should be 'tuned' or 'base'"),
        (lambda tree: tree["verdict"]["checks"][1].pop("passed"), "verdict.checks.1.passed: field required"),
        (lambda tree: tree.update(rows="many"), "rows: input should be a valid integer"),
        (lambda tree: tree.update(another=1), "another: extra inputs are not permitted"),
    ],
)
def test_what_is_wrong_is_named_by_its_place(change: Callable[[dict[str, Any]], object], where: str) -> None:
    tree = sample()
    change(tree)
    assert f" does not hold what it should: {where}" in refused(tree)


@pytest.mark.parametrize("content", [[], None, "text", 7])
def test_what_is_no_mapping_is_refused(content: Any) -> None:
    for kind in (Evaluation, Lineage):
        assert refused(content, kind).startswith(f"{PLACE} does not hold what it should: the whole: ")


def test_a_file_that_is_missing_cut_or_no_text_says_so(tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    with pytest.raises(UserError, match=r"evaluation.json is missing; run `dvc repro report` first$"):
        Evaluation.read(path)
    for content in (json.dumps(sample()).encode()[:-50], b"\xff\xfe\x00", b""):
        path.write_bytes(content)
        with pytest.raises(
            UnreadableError, match=r"evaluation.json is no JSON; make it again: `dvc repro -sf report`$"
        ):
            Evaluation.read(path)


def test_a_file_of_a_model_has_checks_and_one_of_an_adapter_none() -> None:
    manifest = recorded_run.manifest()
    assert manifest["files"][-1]["of"] == "adapter"
    assert list(Manifest.parse(manifest, PLACE).models) == ["F16", "Q8_0", "base-Q8_0"]
    manifest["files"][1]["kl"] = None  # no finite number
    assert Manifest.parse(manifest, PLACE).models["Q8_0"].kl is None
    del manifest["files"][1]["kl"]
    assert "files.1: tiny-Q8_0.gguf has no checks; make it again: `dvc repro -sf export`" in refused(manifest, Manifest)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda t: t["files"].append(t["files"][0]), "files: tiny-F16.gguf is listed twice"),
        (lambda t: t["files"][1].update(type="F16"), "files: tuned F16 is listed twice"),
        (lambda t: t["files"][0].update(file="../x.gguf"), "files.0: '../x.gguf' is no name of a file beside the"),
        (lambda t: t["files"][0].update(type="Q8_0\nQ4_0"), "files.0.type: string should match pattern"),
        (lambda t: t["files"][0].update(bytes=-3000), "files.0.bytes: input should be greater than or equal to 0"),
        (lambda t: t["files"][0].update(perplexity=0), "files.0.perplexity: input should be greater than 0"),
        (lambda t: t["files"][0].update(top_1=1.1), "files.0.top_1: input should be less than or equal to 1"),
        (lambda t: t.update(method="magic"), "method: string should match pattern"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(spoil: Callable[[dict[str, Any]], object], said: str) -> None:
    manifest = recorded_run.manifest()
    spoil(manifest)
    assert f" does not hold what it should: {said}" in refused(manifest, Manifest)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_not_finite_is_no_json_wherever_it_stands(number: str) -> None:
    tree = sample()
    tree["settings"]["train"]["lr"] = "LR"
    with pytest.raises(UnreadableError, match="is no JSON; make it again"):
        Evaluation.parse_text(json.dumps(tree).replace('"LR"', number), PLACE)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"model": "\\ud800"}'])
def test_brackets_without_end_and_half_a_character_are_no_json(text: str) -> None:
    with pytest.raises(UnreadableError, match="is no JSON; make it again"):
        Evaluation.parse_text(text, PLACE)


def test_a_record_is_not_changed() -> None:
    record = Evaluation.parse(sample(), PLACE)
    with pytest.raises(ValueError, match="frozen"):
        record.rows = 1  # type: ignore[misc]
    assert record.model_copy(update={"rows": 1}) != record


def test_a_number_that_json_has_not_is_no_record(tmp_path: Path) -> None:
    record = Evaluation.parse(sample(), PLACE)
    broken = record.model_copy(update={"gain": record.gain.model_copy(update={"loss": math.nan})})
    with pytest.raises(ValueError, match="not JSON compliant"):
        broken.write(tmp_path / "record.json")
    assert not list(tmp_path.iterdir())
