"""Promotion into a real MLflow registry, on sqlite and behind a server, and what the chat's sources then find there."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import mlflow
import pytest
from evaluated import evaluation, write_model
from mlflow import MlflowClient
from mounts import may_mount, on_small_disk
from told_models import told_lineage, write_told_adapter, write_told_gguf

from common.errors import UserError
from common.files import sha256
from pipeline import cli
from pipeline.commands import promote as promotion
from pipeline.comparison.champion import champions_adapter
from pipeline.core.composition import compose
from pipeline.core.config import load
from pipeline.provenance.signing import OWN, make_key_pair
from pipeline.tracking import registry
from serve.models.sources import find_files

REPO = Path(__file__).parents[3]
CHAMPION = "models:/tunesmith@champion"
FILES = {
    "Q8_0": {"accuracy": 0.8, "loss": 0.2, "bytes": 2000},
    "Q4_K_M": {"accuracy": 0.79, "loss": 0.21, "bytes": 1000},
    "base-Q8_0": {"of": "base", "accuracy": 0.99, "bytes": 500},
}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The command: what it prints, or the line that it ends with."""

    def command(*arguments: str, refused: bool = False) -> str:
        capsys.readouterr()
        status = cli.run(["promote", *arguments])
        printed = capsys.readouterr()
        if not refused:
            assert status == 0, printed.err
            return printed.out
        assert status == 1
        return printed.err.splitlines()[-1]  # above it stands what MLflow's migrations say

    return command


def client() -> MlflowClient:
    return MlflowClient(f"sqlite:///{Path.cwd()}/mlflow.db")


def served() -> dict[str, bytes]:
    """What the chat serves as the champion: contents by name."""
    return {file.name: file.path.read_bytes() for file in find_files(CHAMPION)}


def version() -> str:
    return str(client().get_model_version_by_alias("tunesmith", "champion").version)


def write(place: Path, content: bytes = b"one", files: dict[str, Any] | None = None, **more: Any) -> None:
    write_model(place, evaluation("starter-s", files or FILES, **more), content)


def better(accuracy: float = 0.9, loss: float = 0.1) -> dict[str, Any]:
    return {"Q8_0": {"accuracy": accuracy, "loss": loss, "bytes": 2000}}


def test_the_first_that_passes_is_the_champion_and_is_served_with_its_card(
    place: Path, run: Callable[..., str]
) -> None:
    write(place)
    assert "starter-s-Q8_0.gguf is the champion: version 1 of tunesmith" in run()
    content = (place / "models/gguf/starter-s-Q8_0.gguf").read_bytes()
    assert served() == {"tunesmith@champion/starter-s-Q8_0": content}
    (file,) = find_files(CHAMPION)
    assert (file.path.parent / "card.json").read_bytes() == (place / "models/card.json").read_bytes()


def test_with_a_key_the_champion_is_signed(
    place: Path, run: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(place)
    path = write_told_gguf(
        Path("models/gguf/starter-s-Q8_0.gguf"), write_told_adapter(Path("models/adapter"), told_lineage())
    )
    manifest = json.loads(Path("models/gguf/manifest.json").read_text())
    manifest["adapter"] = sha256(Path("models/adapter"))
    next(file for file in manifest["files"] if file["file"] == path.name)["sha256"] = sha256(path)
    Path("models/gguf/manifest.json").write_text(json.dumps(manifest))
    private, public = make_key_pair(place / "mine")
    monkeypatch.setenv(OWN, str(private))
    run("--quantization", "Q8_0")
    (file,) = find_files(CHAMPION)
    for artifact in (file.path, file.path.parent / "adapter"):
        assert cli.run(["verify", str(artifact), "--key", str(public)]) == 0
    tags = client().get_model_version_by_alias("tunesmith", "champion").tags
    assert len(tags["signed_by"]) == 64


def test_a_version_has_its_lineage_as_tags(place: Path, run: Callable[..., str]) -> None:
    run_id = client().create_run(client().create_experiment("tunesmith")).info.run_id
    write(place, mlflow_run=run_id)
    (place / "dvc.lock").write_text("schema: '2.0'\n")
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "one"], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    run("--quantization", "Q4_K_M")
    found = client().get_model_version_by_alias("tunesmith", "champion")
    assert found.run_id == run_id
    assert found.tags == {
        "git_commit": commit,
        "git_dirty": "false",
        "model": "starter-s",
        "base": "starter/models/starter-s",
        "fingerprint": evaluation("starter-s", {})["fingerprint"],
        "data_digest": f"{'7' * 16}+{'7' * 16}",
        "dvc_lock": sha256(place / "dvc.lock"),
        "mlflow_run": run_id,
        "quantization": "Q4_K_M",
        "file": "starter-s-Q4_K_M.gguf",
        "bytes": "1000",
        "sha256": sha256(place / "models/gguf/starter-s-Q4_K_M.gguf"),
        "adapter_digest": sha256(place / "models/adapter"),
        "passed": "true",
        "test_rows": f"{'7' * 64} 300",
        "test_tokens": "12345",
        "questions": f"{sha256(place / 'data/prepared/questions.jsonl')} 573",
        "loss": "0.21",
        "perplexity": "1.1052",
        "accuracy": "0.79",
        "answer_seconds": "0.125",
        "tokens_per_second": "812.5",
    }


def test_a_failed_check_refuses_and_names_itself_and_force_keeps_it_in_a_tag(
    place: Path, run: Callable[..., str]
) -> None:
    write(place, failed="quantization Q4_K_M")
    reason = "the check quantization Q4_K_M failed: perplexity rose by 9%"
    assert run(refused=True) == (
        f"promote: starter-s-Q8_0.gguf is not promoted: {reason} (--force promotes it all the same)"
    )
    with pytest.raises(Exception, match="not found"):
        version()
    assert f"forced, although {reason}" in run("--force")
    assert client().get_model_version("tunesmith", "1").tags["forced"] == reason
    assert client().get_model_version("tunesmith", "1").tags["passed"] == "false"


def test_too_few_conversations_refuse_as_a_failure_does_and_force_keeps_that_in_a_tag(
    place: Path, run: Callable[..., str]
) -> None:
    write(place, missing=44)
    reason = "too little was measured to tell: too few of them: raise data.test"
    assert run(refused=True) == (
        f"promote: starter-s-Q8_0.gguf is not promoted: {reason} (--force promotes it all the same)"
    )
    assert f"forced, although {reason}" in run("--force")
    tags = client().get_model_version("tunesmith", "1").tags
    assert (tags["forced"], tags["passed"]) == (reason, "false")


@pytest.mark.parametrize(
    ("files", "more", "why"),
    [
        (better(0.7, 0.01), {}, "cannot tell: loss better, +0.1900 nats a token"),  # and worse at answers
        (better(0.7, 0.3), {}, "worse: loss worse, -0.1000 nats a token"),
        (better(0.8, 0.2), {}, "no worse: loss no worse, +0.0000 nats a token"),
        (better(0.8, 0.1), {"tokens": 54321}, "split the same rows into different tokens, so that a loss per token"),
        (better(0.9, 0.3), {"questions": 9}, "worse: loss worse, -0.1000 nats a token"),
        (better(0.9, 0.1), {"questions": 9, "test": "8" * 64}, "version 1: models/gguf/starter-s-Q8_0.gguf"),
    ],
)
def test_one_that_is_not_better_is_refused(
    place: Path, run: Callable[..., str], files: dict[str, Any], more: dict[str, Any], why: str
) -> None:
    write(place)
    run()
    write(place, b"two", files, **more)
    said = run(refused=True)
    assert why in said
    assert "the champion, version 1: " in said
    assert version() == "1"
    assert why in run("--force")
    assert version() == "2"
    assert why in client().get_model_version("tunesmith", "2").tags["forced"]


@pytest.mark.parametrize(
    ("files", "more", "arguments"),
    [
        (better(), {}, []),
        (better(0.8, 0.1), {}, []),  # as right, and surer of it
        (better(0.7, 0.1), {}, ["compare.quality=loss"]),
        (better(0.7, 0.1), {"questions": 9}, []),  # other questions, the same rows
        (better(0.9, 0.3), {"test": "8" * 64}, []),  # other rows, the same questions
    ],
)
def test_a_better_one_takes_over(
    place: Path, run: Callable[..., str], files: dict[str, Any], more: dict[str, Any], arguments: list[str]
) -> None:
    write(place)
    run()
    write(place, b"two", files, **more)
    run(*arguments)
    assert version() == "2"
    tags = client().get_model_version("tunesmith", "2").tags
    assert tags["previous"] == "1"
    assert tags["against_champion"].startswith("better: ")
    assert next(iter(served().values())).startswith(b"two")


def choosing(share: float, **more: Any) -> dict[str, Any]:
    """One that chooses rightly in such a share of pairs, in all else as good as the first."""
    return {"Q8_0": {"accuracy": 0.8, "loss": 0.2, "bytes": 2000, "preference_accuracy": share} | more}


BY_PREFERENCE = "compare.quality=preference"


def test_by_preferences_one_is_promoted_that_is_better_in_pairs_and_it_is_said_everywhere(
    place: Path, run: Callable[..., str]
) -> None:
    write(place, files=choosing(0.5), pairs=300)
    (place / "models/README.md").write_text("# starter-s\n")
    run(BY_PREFERENCE)
    assert "preferences" not in next(place.glob("mlartifacts/**/README.md")).read_text()
    write(place, b"two", choosing(0.6), pairs=300)
    run(BY_PREFERENCE)
    tags = client().get_model_version("tunesmith", "2").tags
    assert tags["against_champion"].startswith("better: loss no worse, ")
    assert "preferences better, +10.0 points (" in tags["against_champion"]
    assert "on 300 pairs (30 won, 0 lost), which could have shown" in tags["against_champion"]
    assert (tags["preference_accuracy"], tags["pairs"].split()[1]) == ("0.6", "300")
    (file,) = find_files(CHAMPION)
    readme, card = ((file.path.parent / name).read_text() for name in ("README.md", "card.json"))
    assert readme.startswith("# starter-s\n\n## Against the champion before\n\nbetter: loss no worse, ")
    assert json.loads(card)["against_champion"] == tags["against_champion"]
    assert "against_champion" not in (place / "models/card.json").read_text()


@pytest.mark.parametrize(
    ("files", "why"),
    [
        (choosing(0.5), "preferences no worse"),
        (choosing(0.503), "preferences no worse, +0.3 points"),
        (choosing(0.4), "worse: loss no worse"),
        (choosing(0.6, loss=0.3), "cannot tell (held back by loss): loss worse, -0.1000 nats a token"),
        (choosing(0.6, accuracy=0.7), "cannot tell (held back by accuracy): loss no worse"),
        (choosing(0.5, loss=0.1, accuracy=0.9), "preferences no worse"),
    ],
)
def test_by_preferences_what_fails_is_named_and_nothing_moves(
    place: Path, run: Callable[..., str], files: dict[str, Any], why: str
) -> None:
    write(place, files=choosing(0.5), pairs=1000)
    run(BY_PREFERENCE)
    write(place, b"two", files, pairs=1000)
    said = run(BY_PREFERENCE, refused=True)
    assert why in said
    assert "promote: starter-s-Q8_0.gguf is not promoted: against the champion, version 1: " in said
    assert version() == "1"


def test_by_preferences_data_without_pairs_promotes_nothing(place: Path, run: Callable[..., str]) -> None:
    write(place)
    run(BY_PREFERENCE)
    write(place, b"two", better())
    assert "no pairs of answers are held out, which `data.preferences=learn` does" in run(BY_PREFERENCE, refused=True)
    assert version() == "1"


def test_rows_of_a_champion_that_another_version_wrote_are_no_rows(place: Path, run: Callable[..., str]) -> None:
    write(place, files=choosing(0.5), pairs=300)
    run()
    (kept,) = place.glob("mlartifacts/**/rows.json")
    kept.write_text(json.dumps(json.loads(kept.read_text()) | {"schema_version": 0}))
    write(place, b"two", choosing(0.6), pairs=300)
    said = run(BY_PREFERENCE, refused=True)
    assert "it cannot be compared with the champion, version 1: " in said
    assert version() == "1"


def test_a_champion_that_changes_while_files_are_compared_is_said_and_stays(
    place: Path, run: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(place)
    run()
    write(place, b"two", better())
    run()
    write(place, b"three", better(0.95, 0.05))
    kept, judged = sorted(place.glob("mlartifacts/**/*.gguf")), promotion.held_against

    def meanwhile(*arguments: Any) -> Any:
        client().set_registered_model_alias("tunesmith", "champion", "1")
        return judged(*arguments)

    monkeypatch.setattr(promotion, "held_against", meanwhile)
    said = "promote: version 1 has become the champion of tunesmith while files were compared; run again"
    assert run(refused=True) == said
    assert version() == "1"
    monkeypatch.setattr(
        promotion, "held_against", lambda *given: (client().delete_model_version("tunesmith", "1"), judged(*given))[1]
    )
    assert "MLflow fails (" in run(refused=True)
    assert sorted(place.glob("mlartifacts/**/*.gguf")) == kept


def test_more_right_answers_by_luck_promote_nothing_and_it_says_what_would_tell(
    place: Path, run: Callable[..., str]
) -> None:
    write(place, questions=40)
    run()
    write(place, b"two", better(0.9, 0.2), questions=40)  # four more of 40
    said = run(refused=True)
    assert "accuracy cannot tell, +10.0 points (" in said
    assert "on 40 questions, which could have shown +" in said
    assert version() == "1"


def test_a_smaller_file_that_is_no_worse_takes_over_where_it_was_asked_for(
    place: Path, run: Callable[..., str]
) -> None:
    write(place)
    run()  # Q8_0, 2,000 bytes
    small = {"accuracy": 0.8, "loss": 0.203, "bytes": 1000}
    close = {"Q8_0": {"accuracy": 0.8, "loss": 0.2, "bytes": 2000}, "Q4_K_M": small}
    write(place, b"two", close)
    assert "no worse: loss no worse, +0.0000" in run("--quantization", "Q8_0", refused=True)  # no smaller
    run("--quantization", "Q4_K_M")
    assert version() == "2"
    assert client().get_model_version("tunesmith", "2").tags["against_champion"].startswith("no worse: loss no worse")
    write(place, b"three", close | {"Q4_K_M": small | {"loss": 0.204, "bytes": 900}})
    assert "no worse: " in run("compare.max_answer_seconds=1", refused=True)  # not faster
    run("compare.max_gguf_mb=0.001")
    assert version() == "3"
    light = small | {"loss": 0.204, "memory_bytes": 8_000_000}
    write(place, b"four", close | {"Q4_K_M": light})
    assert "no worse: " in run("compare.max_memory_mb=8", refused=True)  # of the champion's memory nothing is known
    run("--force", "--quantization", "Q4_K_M")
    write(place, b"five", close | {"Q4_K_M": light | {"memory_bytes": 7_000_000}})
    run("compare.max_memory_mb=8")
    assert version() == "5"


def test_a_champion_without_its_rows_or_its_file_is_said_and_force_goes_on(
    place: Path, run: Callable[..., str]
) -> None:
    write(place)
    run()
    (kept,) = place.glob("mlartifacts/**/rows.json")
    kept.unlink()
    write(place, b"two", better())
    assert "cannot be compared with the champion, version 1: models/gguf/starter" in run(refused=True)
    (file,) = find_files(CHAMPION)
    content = file.path.read_bytes()
    file.path.write_bytes(b"x" * len(content))
    assert "starter-s-Q8_0.gguf in MLflow is not the file that was promoted" in run(refused=True)
    file.path.unlink()
    assert "version 1: starter-s-Q8_0.gguf is gone from MLflow" in run(refused=True)
    assert version() == "1"
    run("--force")
    assert version() == "2"


def test_rows_of_another_evaluation_promote_nothing(place: Path, run: Callable[..., str]) -> None:
    write(place)
    rows = (place / "reports/rows.json").read_text()
    write(place, files=better())
    (place / "reports/rows.json").write_text(rows)
    assert "reports/rows.json and its evaluation.json are of different evaluations" in run("--force", refused=True)
    (place / "reports/rows.json").unlink()
    assert "reports/rows.json is missing; run `dvc repro evaluate` first" in run("--force", refused=True)


def test_the_same_file_twice_is_no_error_and_no_second_version(place: Path, run: Callable[..., str]) -> None:
    write(place)
    run()
    assert "is the champion already: version 1" in run()
    assert len(client().search_model_versions("name='tunesmith'")) == 1


def test_a_rollback_returns_and_so_does_the_next(place: Path, run: Callable[..., str]) -> None:
    write(place)
    run()
    write(place, b"two", better())
    run()
    assert "is version 1 again, starter-s-Q8_0.gguf" in run("--rollback")
    assert next(iter(served().values())).startswith(b"one")
    assert "it is version 2, which was rolled back" in run(refused=True)
    assert "is version 2 again" in run("--rollback")
    assert "is version 1 again" in run("--rollback")
    write(place, b"three", better())
    run()
    assert version() == "3"
    assert "is version 1 again" in run("--rollback")


def test_a_rollback_goes_to_no_version_that_lost_its_file(place: Path, run: Callable[..., str]) -> None:
    assert "tunesmith has no champion in MLflow's registry" in run("--rollback", refused=True)
    write(place)
    run()
    assert "the champion, version 1 of tunesmith, has none before it: it is the first" in run(
        "--rollback", refused=True
    )
    (file,) = find_files(CHAMPION)
    write(place, b"two", better())
    run()
    file.path.write_bytes(b"cut")
    assert "has 3 bytes of it" in run("--rollback", refused=True)
    client().delete_model_version("tunesmith", "1")
    assert "has none before it: version 1 is gone" in run("--rollback", refused=True)
    assert version() == "2"


def test_tags_that_somebody_changed_are_no_figures_and_end_in_one_line(place: Path, run: Callable[..., str]) -> None:
    write(place)
    run()
    client().set_model_version_tag("tunesmith", "1", "quantization", "good")
    client().set_model_version_tag("tunesmith", "1", "bytes", "large")
    write(place, b"two", better())
    assert "it cannot be compared with the champion, version 1" in run("--quantization", "Q8_0", refused=True)
    run("--force")
    client().set_model_version_tag("tunesmith", "1", "bytes", "many")
    assert "version 1 of tunesmith has no number in its tag `bytes`" in run("--rollback", refused=True)
    client().delete_model_version_tag("tunesmith", "1", "bytes")
    assert "version 1 of tunesmith has no number in its tag `bytes`" in run("--rollback", refused=True)
    assert version() == "2"


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (lambda gguf: (gguf / "starter-s-Q8_0.gguf").write_bytes(b"x" * 2000), "its SHA-256 is not the manifest's"),
        (lambda gguf: (gguf / "starter-s-Q8_0.gguf").unlink(), "starter-s-Q8_0.gguf is missing; `dvc checkout`"),
        (
            lambda gguf: (gguf / "manifest.json").unlink(),
            "models/gguf/manifest.json is missing; run `dvc repro export` first",
        ),
        (lambda gguf: shutil.rmtree(gguf.parent / "adapter"), "models/adapter is missing; `dvc checkout`, or run"),
        (lambda gguf: edit(gguf, adapter="ad" * 32), "models/adapter is not what models/gguf was made of: its SHA-256"),
        (lambda gguf: edit(gguf, fingerprint="other"), "are of different trainings; run `dvc repro`"),
        (lambda gguf: edit(gguf, files=[]), "is not of the Q8_0 file that models/gguf/manifest.json lists"),
        (lambda gguf: exported_again(gguf), "is not of the Q8_0 file that models/gguf/manifest.json lists"),
    ],
)
def test_a_file_that_was_not_evaluated_is_never_promoted(
    place: Path, run: Callable[..., str], fault: Callable[[Path], Any], why: str
) -> None:
    write(place)
    fault(place / "models/gguf")
    assert why in run("--force", refused=True)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"schema_version": 1}, "reports/evaluation.json was made by another version of Tunesmith (schema 1, this one"),
        ({"verdict": None}, "reports/evaluation.json does not hold what it should: verdict: "),
        ({"answers": {}}, "reports/evaluation.json does not hold what it should: answers: of nobody, not of base, "),
    ],
)
def test_a_record_that_cannot_be_read_is_never_promoted(
    place: Path, run: Callable[..., str], change: dict[str, Any], why: str
) -> None:
    write(place)
    path = place / "reports/evaluation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert why in run("--force", refused=True)


TRACKING = load(compose(REPO / "conf")).tracking


def adapter_of_champion(folder: Path) -> Path:
    with registry.mlflow_client(TRACKING) as found:
        champion = registry.champion(found, "tunesmith")
        assert champion is not None
        return champions_adapter(champion, folder)


def test_the_champion_keeps_its_adapter_which_is_fetched_whole(place: Path, run: Callable[..., str]) -> None:
    write(place)
    run()
    trained = sha256(place / "models/adapter")
    shutil.rmtree(place / "models/adapter")
    fetched = place / "models/champion"
    fetched.mkdir()
    (fetched / "adapter_model.safetensors").write_bytes(b"of the champion before")
    assert adapter_of_champion(fetched) == fetched
    assert sha256(fetched) == trained
    assert [path.name for path in (place / "models").iterdir() if path.name.startswith(".")] == []
    assert list(served()) == ["tunesmith@champion/starter-s-Q8_0"]
    shutil.rmtree(place / "mlartifacts")
    assert adapter_of_champion(fetched) == fetched  # which it is already


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (
            lambda kept: (kept / "adapter_model.safetensors").write_bytes(b"two"),
            "is not what was promoted: its SHA-256",
        ),
        (lambda kept: (kept / "adapter_config.json").unlink(), "is not what was promoted: its SHA-256 is another"),
        (shutil.rmtree, "the adapter of version 1 of tunesmith is gone from MLflow"),
        (
            lambda kept: client().delete_model_version_tag("tunesmith", "1", "adapter_digest"),
            "version 1 of tunesmith has no",
        ),
    ],
)
def test_an_adapter_that_is_not_the_champions_is_never_fetched(
    place: Path, run: Callable[..., str], fault: Callable[[Path], Any], why: str
) -> None:
    write(place)
    run()
    fault(*place.glob("mlartifacts/**/adapter"))
    with pytest.raises(UserError, match=why):
        adapter_of_champion(place / "models/champion")
    assert not (place / "models/champion").exists()


def test_all_weights_trained_leave_no_adapter(place: Path, run: Callable[..., str]) -> None:
    write(place)
    edit(place / "models/gguf", method="full")
    run()
    assert "adapter_digest" not in client().get_model_version("tunesmith", "1").tags
    assert not list(place.glob("mlartifacts/**/adapter"))
    with pytest.raises(UserError, match="has no adapter in MLflow: all its weights were trained, or"):
        adapter_of_champion(place / "models/champion")


def exported_again(gguf: Path) -> None:
    """As long as before, with other settings, and not evaluated."""
    files = json.loads((gguf / "manifest.json").read_text())["files"]
    edit(gguf, files=[file | {"kl": 0.5} for file in files])


def edit(gguf: Path, **changes: Any) -> None:
    manifest = json.loads((gguf / "manifest.json").read_text())
    (gguf / "manifest.json").write_text(json.dumps(manifest | changes))


def test_the_file_is_the_one_that_the_rule_of_compare_takes(place: Path, run: Callable[..., str]) -> None:
    write(place)
    assert "Change conf/compare, or choose by --quantization (Q8_0, Q4_K_M)" in run(
        "compare.max_answer_seconds=0.01", refused=True
    )
    assert "has no tuned file of type F16; it has Q8_0, Q4_K_M" in run("--quantization", "F16", refused=True)
    assert "starter-s-Q4_K_M.gguf is the champion" in run("compare.max_answer_seconds=0.2")


def test_what_fails_before_the_alias_leaves_no_version_and_no_files(
    place: Path, run: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(place)
    run()
    kept = sorted(place.glob("mlartifacts/**/*.gguf"))
    write(place, b"two", better())

    class Cutting(MlflowClient):
        def create_model_version(self, *arguments: Any, **named: Any) -> Any:
            made = super().create_model_version(*arguments, **named)
            for path in set(place.glob("mlartifacts/**/*.gguf")) - set(kept):
                path.write_bytes(b"cut")  # as a store that lost the end of it
            return made

    monkeypatch.setattr(mlflow, "MlflowClient", Cutting)
    assert "is to have starter-s-Q8_0.gguf, but MLflow has 3 bytes of it" in run(refused=True)
    assert version() == "1"
    assert [found.version for found in client().search_model_versions("name='tunesmith'")] == [1]
    assert sorted(place.glob("mlartifacts/**/*.gguf")) == kept


def test_a_place_for_files_that_refuses_them_is_said(place: Path, run: Callable[..., str]) -> None:
    (place / "mlartifacts").write_text("a file in its place")
    write(place)
    said = run(refused=True)
    assert said.startswith("promote: MLflow fails (")
    assert "mlartifacts" in said
    assert registry.champion(client(), "tunesmith") is None


def test_an_mlflow_that_is_away_is_said(place: Path, run: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    write(place)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert run("tracking.uri=http://127.0.0.1:9", refused=True).startswith(
        "promote: MLflow fails (API request to http://127.0.0.1:9"
    )


@pytest.mark.skipif(not may_mount(), reason="may not mount")
def test_a_full_disk_is_said_and_nothing_is_left_on_it(place: Path, run: Callable[..., str]) -> None:
    write(place, files={"Q8_0": {"bytes": 300_000}})
    (place / "mlartifacts").mkdir()
    script = f"{sys.executable} -m pipeline promote; echo status $?; find mlartifacts -type f"
    ended = on_small_disk("mlartifacts", "128k", script)
    assert ended.stdout == "status 1\n"
    assert ended.stderr == "promote: MLflow fails ([Errno 28] No space left on device); see to it, then run again\n"
    assert registry.champion(client(), "tunesmith") is None


@pytest.fixture
def server(place: Path) -> Iterator[str]:
    """The address of an `mlflow server` on this folder's database, which keeps the files itself."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    stores = ["--backend-store-uri", "sqlite:///mlflow.db", "--artifacts-destination", "files-of-server"]
    command = [sys.executable, "-m", "mlflow", "server", *stores, "--port", str(port), "--workers", "1"]
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    (place / "pid").write_text(str(process.pid))
    try:
        while process.poll() is None and not healthy(f"http://127.0.0.1:{port}/health"):
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        with suppress(ProcessLookupError):  # a test has ended it
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def healthy(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as response:  # noqa: S310
            return bool(response.status == 200)
    except OSError:
        return False


def test_a_server_takes_the_champion_and_hands_it_out(
    place: Path, run: Callable[..., str], server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    write(place)
    run()
    write(place, b"two", better())
    run()
    assert list(served().values()) == [(place / "models/gguf/starter-s-Q8_0.gguf").read_bytes()]
    assert {path.suffix for path in (place / "cache").rglob("*") if path.is_file()} == {".gguf"}
    assert sha256(adapter_of_champion(place / "models/champion")) == sha256(place / "models/adapter")
    run("--rollback")
    assert next(iter(served().values())).startswith(b"one")


def test_a_server_that_goes_in_the_middle_of_a_promotion_leaves_the_champion(
    place: Path, run: Callable[..., str], server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    write(place)
    run()
    write(place, b"two", better())
    upload = MlflowClient.log_model_artifact

    def gone(*arguments: Any) -> None:
        os.killpg(int((place / "pid").read_text()), signal.SIGKILL)
        upload(*arguments)

    monkeypatch.setattr(MlflowClient, "log_model_artifact", gone)
    assert run(refused=True).startswith("promote: MLflow fails (API request to http://127.0.0.1")
    assert version() == "1"
