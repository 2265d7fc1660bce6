"""Models that come in the place of others while the server runs."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import mlflow
import pytest
from gguf import PoolingType
from loras import write_lora
from mlflow import MlflowClient
from servers import started_server, wait_until
from tiny_gguf import write_random, write_scripted

from benchmarks.releases import SETTINGS, Releases, point
from benchmarks.swap import FIGURES, swapped
from common.errors import UserError
from common.files import sha256
from llama.errors import RequestError
from llama.types import Message, Sampling
from pipeline.gguf.quantize import quantize
from serve.engine import Engine, given_by
from serve.feedback import CONSENT, Answer, AnswerRecord, FeedbackStore, ModelVersion, Visit
from serve.following import Follower, candidate_of, sources_of
from serve.http.embeddings import EmbeddingsRequest, embedded
from serve.loaded import LoadedModels
from serve.models.catalogue import Catalogue
from serve.models.registry import find_models
from serve.page.remembered import Answers
from serve.settings import Settings

GREEDY = Sampling(max_tokens=24, temperature=0)
FOR_EVER = Sampling(max_tokens=1 << 17, temperature=0)


def ask(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


@pytest.fixture
def pointer(tmp_path: Path) -> Path:
    """A link to the folder of a model that says one for ever; in `two` and `three` are others, one of another name."""
    for folder, name, word in (("one", "tune", b" one"), ("two", "tune", b" two"), ("three", "tuned", b" three")):
        (tmp_path / folder).mkdir()
        write_scripted(tmp_path / folder / f"{name}.gguf", [word, b"!"], loop=True, context=1 << 18)
    point(tmp_path / "current", tmp_path / "one")
    return tmp_path / "current"


@pytest.fixture
def follower(pointer: Path) -> Iterator[Follower]:
    with following(pointer, slots=2) as follower:
        yield follower


@contextmanager
def following(models: object, **settings: Any) -> Iterator[Follower]:
    """An engine with the models of sources, and what follows those; it looks when it is told to."""
    given = {"context": 1 << 12, "max_tokens": 1 << 17, "follow_seconds": 0} | settings
    limits = Settings(models=str(models), **given)
    sources = sources_of(limits.models)
    with Engine(find_models(limits.models), limits) as engine:
        yield Follower(sources, engine, limits)


def said(engine: Engine, model: str, question: str = "hi", sampling: Sampling = GREEDY) -> str:
    return "".join(piece.text for piece in engine.stream(model, ask(question), sampling))


def test_answers_under_way_end_on_their_model_and_what_waits_goes_to_the_next(
    follower: Follower, pointer: Path
) -> None:
    engine = follower.engine
    before = engine.catalogue.models["tune"]
    under_way = [engine.stream("tune", ask("hi"), FOR_EVER) for _ in range(2)]
    began = [list(islice(answer, 4)) for answer in under_way]
    waited: list[str] = []
    waiting = threading.Thread(target=lambda: waited.append(said(engine, "tune")))
    waiting.start()
    wait_until(lambda: engine.load().waiting == 1)
    point(pointer, pointer.with_name("two"))
    assert follower.look()
    waiting.join(60)
    assert waited == [" two!" * 12]
    for answer, begun in zip(under_way, began, strict=True):
        pieces = [*begun, *islice(answer, 20)]
        assert "".join(piece.text for piece in pieces) == " one!" * 12
        assert {given_by(piece) for piece in pieces} == {before}
    assert len(engine._loaded.batches) == 2
    for answer in under_way:
        answer.close()
    wait_until(lambda: len(engine._loaded.batches) == 1)
    assert engine.seconds_with_two > 0
    assert said(engine, "tune") == " two!" * 12


def test_a_name_stands_for_what_is_in_its_place(follower: Follower, pointer: Path) -> None:
    engine = follower.engine
    for folder, name, words in (("three", "tuned", " three!"), ("one", "tune", " one!"), ("three", "tuned", " three!")):
        point(pointer, pointer.with_name(folder))
        assert follower.look()
        assert (list(engine.models), engine.default) == ([name], name)
        for asked in ("tune", name):
            assert said(engine, asked) == words * 12
            assert engine.find(asked) == engine.catalogue.models[name]
    assert follower.swaps == 3
    with pytest.raises(RequestError, match=r"There is no model named 'none'; there is tuned\.$"):
        said(engine, "none")


def test_a_model_without_room_beside_it_waits_until_the_old_one_is_gone(
    follower: Follower, pointer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = follower.engine
    room = 240 << 20
    monkeypatch.setattr("llama.memory.free_bytes", lambda _: room if not engine._loaded.batches else 0)
    # So much is free when nothing is loaded: what the old one gives back has to count.
    monkeypatch.setattr("llama.memory.WORK", 0)
    answer = engine.stream("tune", ask("hi"), FOR_EVER)
    begun = list(islice(answer, 4))
    point(pointer, pointer.with_name("two"))
    looking = threading.Thread(target=follower.look)
    looking.start()
    wait_until(lambda: engine._loaded.leaving)
    waited: list[str] = []
    waiting = threading.Thread(target=lambda: waited.append(said(engine, "tune")))
    waiting.start()
    wait_until(lambda: engine.load().waiting == 1)
    assert "".join(piece.text for piece in [*begun, *islice(answer, 20)]) == " one!" * 12
    assert not waited
    answer.close()
    looking.join(60)
    waiting.join(60)
    assert waited == [" two!" * 12]
    assert engine.seconds_with_two == 0
    assert follower.failures == 0


def test_the_old_model_comes_back_where_the_next_one_does_not_load_in_its_place(
    follower: Follower, pointer: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = follower.engine
    monkeypatch.setattr("llama.memory.free_bytes", lambda _: None if not engine._loaded.batches else 0)
    monkeypatch.setattr("llama.memory.WORK", 0)
    two = pointer.with_name("two") / "tune.gguf"
    whole = two.read_bytes()

    def leave(name: str, since: float | None = None) -> Any:
        two.write_bytes(b"GGUF")  # when it has been looked at
        return LoadedModels._leave(engine._loaded, name, since)

    monkeypatch.setattr(engine._loaded, "_leave", leave)
    point(pointer, pointer.with_name("two"))
    assert not follower.look()
    assert said(engine, "tune") == " one!" * 12
    (line,) = caplog.messages
    assert line.startswith(f"{pointer} stays at {pointer.with_name('one')}: {two} (4 bytes) is no whole GGUF model: ")
    two.write_bytes(whole)
    monkeypatch.undo()
    assert follower.look()
    assert said(engine, "tune") == " two!" * 12


def test_one_that_would_not_fit_alone_lets_nothing_go(
    follower: Follower, pointer: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_random(pointer.with_name("two") / "tune.gguf", width=512, context=1 << 18)
    batch = follower.engine._loaded.batches
    monkeypatch.setattr("llama.memory.free_bytes", lambda _: 0)
    point(pointer, pointer.with_name("two"))
    assert not follower.look()
    (line,) = caplog.messages
    assert "tune takes 0." in line
    assert follower.engine._loaded.batches == batch


def test_what_is_damaged_is_said_once_and_not_tried_at_each_look(
    follower: Follower, pointer: Path, caplog: pytest.LogCaptureFixture
) -> None:
    follower._every = 3600
    two = pointer.with_name("two") / "tune.gguf"
    whole = two.read_bytes()
    two.write_bytes(whole[:-1000])
    point(pointer, pointer.with_name("two"))
    for _ in range(3):
        assert not follower.look(patiently=True)
    assert follower.failures == 1
    (line,) = caplog.messages
    assert line.startswith(f"{pointer} stays at {pointer.with_name('one')}: {two} ({len(whole) - 1000} bytes) is no ")
    assert said(follower.engine, "tune") == " one!" * 12
    assert not follower.look()  # whoever asks for it is no look like the others
    assert (follower.failures, len(caplog.messages)) == (2, 1)
    two.write_bytes(whole)
    assert follower.look()
    assert said(follower.engine, "tune") == " two!" * 12


def test_a_pointer_to_nothing_or_to_no_model_moves_nothing(
    follower: Follower, pointer: Path, caplog: pytest.LogCaptureFixture
) -> None:
    point(pointer, pointer.with_name("gone"))
    assert not follower.look()
    assert caplog.messages[-1].startswith(f"{pointer} stays at {pointer.with_name('one')}: no *.gguf file in {pointer}")
    empty = pointer.with_name("empty")
    empty.mkdir()
    write_random(empty / "vectors.gguf", template=None, pooling=PoolingType.LAST)
    point(pointer, empty)
    assert not follower.look()
    assert caplog.messages[-1].endswith(": there is no model that answers in the place of tune")
    point(pointer, pointer.with_name("one"))
    assert follower.look()
    assert len(caplog.messages) == 2
    assert said(follower.engine, "tune") == " one!" * 12


def test_a_plain_folder_is_not_followed(tmp_path: Path) -> None:
    write_scripted(tmp_path / "tune.gguf", [b" one", b"!"], loop=True)
    with following(tmp_path) as follower:
        write_scripted(tmp_path / "tune.gguf", [b" two", b"!"], loop=True)  # as the pipeline does, before it is judged
        assert follower.look()
        assert said(follower.engine, "tune") == " one!" * 12
        assert follower.swaps == 0


def test_adapters_move_with_their_base_and_without_it(tmp_path: Path) -> None:
    base = tmp_path / "base" / "base.gguf"
    base.parent.mkdir()
    quantize(write_random(tmp_path / "unquantized", width=256), base, "Q8_0")
    for seed, folder in enumerate(("one", "two")):
        (tmp_path / folder).mkdir()
        write_lora(tmp_path / folder / "poems.gguf", base, seed)
    point(tmp_path / "poems", tmp_path / "one")
    with following(f"{base.parent},{tmp_path}/poems") as follower:
        engine = follower.engine
        plain, first = said(engine, "base"), said(engine, "poems")
        point(tmp_path / "poems", tmp_path / "two")
        assert follower.look()
        second = said(engine, "poems")
        assert said(engine, "base") == plain
        point(tmp_path / "poems", tmp_path / "one")
        assert follower.look()
        assert said(engine, "poems") == first
        assert len({plain, first, second}) == 3
        assert list(engine._loaded.by_name) == ["base"]


def test_an_adapter_that_does_not_fit_the_next_base_keeps_the_old_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for folder, width in (("one", 64), ("two", 96)):
        (tmp_path / folder).mkdir()
        write_random(tmp_path / folder / "base.gguf", width=width)
    (tmp_path / "adapters").mkdir()
    write_lora(tmp_path / "adapters" / "poems.gguf", tmp_path / "one" / "base.gguf", 0, kind="F32")
    point(tmp_path / "current", tmp_path / "one")
    with following(f"{tmp_path}/current,{tmp_path}/adapters") as follower:
        poem = said(follower.engine, "poems")
        point(tmp_path / "current", tmp_path / "two")
        assert not follower.look()
        assert "poems.gguf is an adapter without its base" in caplog.messages[-1]
        assert said(follower.engine, "poems") == poem


def test_a_draft_model_moves_too(tmp_path: Path) -> None:
    for seed, folder in enumerate(("one", "two")):
        (tmp_path / folder).mkdir()
        write_random(tmp_path / folder / "draft.gguf", seed)
    (tmp_path / "large").mkdir()
    write_random(tmp_path / "large" / "large.gguf", 2, width=96)
    point(tmp_path / "current", tmp_path / "one")
    with following(f"{tmp_path}/large,{tmp_path}/current", draft="draft", max_loaded_models=2) as follower:
        engine = follower.engine
        assert engine.default == "large"
        before = said(engine, "large")
        point(tmp_path / "current", tmp_path / "two")
        assert follower.look()
        wait_until(lambda: len(engine._loaded.batches) == 1)
        (batch,) = engine._loaded.batches
        assert batch._speculation._draft_model._model.path == tmp_path / "two" / "draft.gguf"
        assert said(engine, "large") == before


def test_vectors_of_one_request_are_of_one_model(tmp_path: Path) -> None:
    (tmp_path / "chat").mkdir()
    write_random(tmp_path / "chat" / "answers.gguf")
    for seed, folder in enumerate(("one", "two")):
        (tmp_path / folder).mkdir()
        write_random(tmp_path / folder / "vectors.gguf", seed, template=None, pooling=PoolingType.MEAN)
    point(tmp_path / "current", tmp_path / "one")
    with following(f"{tmp_path}/chat,{tmp_path}/current", max_loaded_models=2) as follower:
        body = EmbeddingsRequest(model="vectors", input=["hi", "there"])

        async def swapped_between(engine: Engine) -> Any:
            embed = engine.embed

            async def first_then_swap(model: str, text: Any) -> Any:
                told = await embed(model, text)
                if text == "hi" and follower.swaps == 0:
                    point(tmp_path / "current", tmp_path / "two")
                    assert await asyncio.to_thread(follower.look)
                return told

            engine.embed = first_then_swap  # type: ignore[method-assign]
            return await embedded(body, engine)

        between = asyncio.run(swapped_between(follower.engine))
        assert between["data"] == asyncio.run(embedded(body, follower.engine))["data"]
        assert follower.swaps == 1


def test_a_judgement_names_the_file_that_answered_when_it_is_gone(follower: Follower, pointer: Path) -> None:
    engine, one = follower.engine, pointer.with_name("one") / "tune.gguf"
    digest = sha256(one)
    *_, last = engine.stream("tune", ask("hi"), GREEDY)
    record = AnswerRecord(messages=ask("hi"), sampling={}, answer=Answer("one", ModelVersion("tune")))
    with FeedbackStore(pointer.with_name("feedback")) as store:
        answers = Answers(store)
        answers.remember(record, given_by(last))
        point(pointer, pointer.with_name("three"))
        assert follower.look()
        one.unlink()
        kept = answers.judge(record.id, Visit("somebody", "talk", CONSENT), verdict="good")
    assert isinstance(kept, AnswerRecord)
    assert kept.answer.model == ModelVersion("tune", digest[:12], "F32", "tune.gguf", digest)


def test_a_change_that_fails_halfway_leaves_the_catalogue(follower: Follower, pointer: Path) -> None:
    engine = follower.engine
    before, model = engine.catalogue, engine.catalogue.models["tune"]
    missing = replace(model, parts=(pointer / "missing.gguf",))
    with pytest.raises(UserError, match=r"missing\.gguf"):
        engine.change(Catalogue({"tune": missing}))
    assert engine.catalogue is before
    assert said(engine, "tune") == " one!" * 12


# The real server, asked by many at once.


def test_many_clients_get_an_answer_of_one_model_or_the_other_through_several_swaps(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    for seed, folder in enumerate(folders):
        folder.mkdir()
        quantize(write_random(tmp_path / "F32.gguf", seed, width=256), folder / "tune.gguf", "Q8_0")
    releases = Releases.laid_out(tmp_path, *folders)
    limits = {"models": releases.link, "rate": 0, "queue": 64, **SETTINGS}
    with started_server(tmp_path / "log.txt", until="/readyz", **limits) as (url, _):
        questions = [f"What is {number} and {number}?" for number in range(6)]
        report = asyncio.run(swapped(url, releases, questions, clients=64, swaps=4, between=0.5))
    assert report.failures == []
    assert set(report.given) == {sha256(folder / "tune.gguf")[:12] for folder in folders}
    swaps, failures, seconds = (report.figures[name] for name in FIGURES)
    assert (swaps, failures) == (5, 0)  # one for the answers alone
    assert seconds > 0


def test_whoever_runs_the_server_has_a_key_of_their_own(pointer: Path, tmp_path: Path) -> None:
    limits = {"models": pointer, "follow_seconds": 0, "api_key": "theirs", "context": 512}
    log = tmp_path / "log.txt"
    with started_server(log, until="/readyz", admin_key="s3cret", **limits) as (url, _):

        def told(path: str, key: str = "s3cret", method: str = "GET", **headers: str) -> httpx.Response:
            return httpx.request(method, f"{url}/admin{path}", headers={"x-api-key": key} | headers)

        assert told("/models", "theirs").status_code == 401
        assert told("/reload", "", "POST").status_code == 401
        assert told("/models", "s3cret", Origin="https://elsewhere.example").status_code == 403
        assert told("/reload").status_code in (404, 405)
        (model,) = told("/models").json()["models"]
        assert (model["name"], model["in_memory"], model["revision"]) == (
            "tune", True, sha256(pointer / "tune.gguf")[:12]
        )  # fmt: skip
        point(pointer, pointer.with_name("gone"))
        refused = told("/reload", method="POST")
        (source,) = refused.json()["sources"]
        assert (refused.status_code, source["leads_to"]) == (503, str(pointer.with_name("one")))
        assert source["tried"] == str(pointer.with_name("gone"))
        assert source["why_not"].startswith(f"no *.gguf file in {pointer}: ")
        assert "tunesmith_swap_failures_total 1.0" in httpx.get(f"{url}/metrics").text
        point(pointer, pointer.with_name("three"))
        followed = told("/reload", method="POST").json()
        assert [model["name"] for model in followed["models"]] == ["tuned"]
        assert followed["instead_of"] == {"tune": "tuned"}
        listed = httpx.get(f"{url}/v1/models/tune", headers={"x-api-key": "theirs"}).json()
        assert listed["id"] == "tuned"
    assert "s3cret" not in log.read_text()
    with started_server(log, **limits) as (url, _):
        assert httpx.get(f"{url}/admin/models", headers={"x-api-key": ""}).status_code == 404
        assert httpx.post(f"{url}/admin/reload").status_code in (404, 405)


# MLflow's own registry, on sqlite.


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes | None, str], str]:
    """Adds a version with a model that says a word, or with none, and returns its number."""
    tracking = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking)
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(tracking)
    client = MlflowClient()
    experiment = client.create_experiment("tests", str(tmp_path / "artifacts"))
    client.create_registered_model("tune")

    def add(word: bytes | None, stem: str) -> str:
        model = client.create_logged_model(experiment, name="tune")
        folder = tmp_path / f"logged-{model.model_id}"
        folder.mkdir()
        (folder / "README.md").write_text("A model")
        if word:
            write_scripted(folder / f"{stem}.gguf", [word, b"!"], loop=True)
        client.log_model_artifacts(model.model_id, str(folder))
        client.finalize_logged_model(model.model_id, "READY")
        return str(client.create_model_version("tune", f"models:/{model.model_id}", model_id=model.model_id).version)

    return add


def test_an_alias_is_followed_forth_and_back_and_whatever_is_wrong_with_it_moves_nothing(
    registry: Callable[[bytes | None, str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = MlflowClient()
    first, second, empty = registry(b" one", "tune-Q8_0"), registry(b" two", "tune-Q4_K_M"), registry(None, "")
    client.set_registered_model_alias("tune", "champion", first)
    source = "models:/tune@champion"

    def stays(why: str) -> None:
        assert not follower.look()
        assert caplog.messages[-1].startswith(f"{source} stays at {first}: {source}: ")
        assert why in caplog.messages[-1]
        assert "\n" not in caplog.messages[-1]
        for name in ("tune@champion/tune-Q8_0", "tune@champion/tune-Q4_K_M", "tune@champion"):
            assert said(engine, name) == " one!" * 12

    with following(source, context=512) as follower:
        engine = follower.engine
        for version, stem, words in ((second, "tune-Q4_K_M", " two!"), (first, "tune-Q8_0", " one!")):
            client.set_registered_model_alias("tune", "champion", version)
            assert follower.look()
            for name in ("tune@champion/tune-Q8_0", "tune@champion/tune-Q4_K_M", "tune@champion"):
                *_, last = pieces = list(engine.stream(name, ask("hi"), GREEDY))
                assert "".join(piece.text for piece in pieces) == words * 12
                assert given_by(last).title == f"tune@champion/{stem} (version {version})"
        caplog.clear()
        client.set_registered_model_alias("tune", "champion", empty)
        stays(f"version {empty} has no *.gguf among its artifacts")
        client.delete_registered_model_alias("tune", "champion")
        stays("champion not found")
        client.set_registered_model_alias("tune", "champion", second)
        (file,) = tmp_path.glob("artifacts/**/tune-Q4_K_M.gguf")
        file.rename(file.with_suffix(".gone"))
        stays("has no *.gguf")
        file.with_suffix(".gone").rename(file)
        client.delete_model_version("tune", second)
        stays("not found")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        mlflow.set_tracking_uri("http://127.0.0.1:9")
        stays("127.0.0.1")


def test_a_candidate_comes_goes_and_is_missed_by_nobody(
    registry: Callable[[bytes | None, str], str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client, candidate = MlflowClient(), "tune@candidate/tune-Q4_K_M"
    first, second, empty = registry(b" one", "tune-Q8_0"), registry(b" two", "tune-Q4_K_M"), registry(None, "")
    client.set_registered_model_alias("tune", "champion", first)
    with following("models:/tune@champion", context=512, follow_seconds=60) as follower:
        follower.sources += candidate_of("models:/tune@candidate")
        engine = follower.engine
        assert follower.look(), "there is no candidate yet"
        client.set_registered_model_alias("tune", "candidate", empty)
        assert not follower.look()
        assert caplog.messages[-1].startswith("models:/tune@candidate stays at nothing: ")
        client.set_registered_model_alias("tune", "candidate", second)
        assert follower.look()
        assert (said(engine, candidate), said(engine, engine.default)) == (" two!" * 12, " one!" * 12)
        (tmp_path / "mlflow.db").rename(tmp_path / "away")
        assert not follower.look()  # the registry is, and the candidate goes on
        (tmp_path / "mlflow.db").unlink(missing_ok=True)
        (tmp_path / "away").rename(tmp_path / "mlflow.db")
        assert said(engine, candidate) == " two!" * 12
        client.delete_registered_model_alias("tune", "candidate")
        assert follower.look(patiently=True)
        assert list(engine.models) == [engine.default]
        assert said(engine, candidate) == " one!" * 12
