import hashlib
import os
import socket
from pathlib import Path

import pytest
from gguf import PoolingType
from servers import free_port, run_server
from tiny_gguf import split, write_other, write_random, write_vocabulary

from common.errors import UserError
from llama.model import LlamaModel
from serve.models.registry import find_models


def test_every_gguf_below_the_folder_is_found_by_name(folder: Path) -> None:
    models = find_models(folder)
    assert list(models) == ["endless", "nested/accents", "other", "random"]
    assert models["random"].size == (folder / "random.gguf").stat().st_size
    assert models["random"].label == "random (0.4 MB)"


def test_a_model_of_a_folder_is_known_by_its_content_and_its_quantization(tmp_path: Path) -> None:
    path = write_random(tmp_path / "tune.gguf", seed=0)
    first = find_models(tmp_path)["tune"]
    assert first.quantization == "F32"
    assert first.revision == hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    write_random(path, seed=1)
    assert find_models(tmp_path)["tune"].revision != first.revision


def test_a_file_that_has_been_replaced_or_is_gone_says_nothing_of_the_model(tmp_path: Path) -> None:
    path = write_random(tmp_path / "tune.gguf", seed=0)
    replaced, removed = (find_models(tmp_path)["tune"] for _ in range(2))
    write_random(path, seed=1)
    assert replaced.revision is None
    path.unlink()
    assert removed.revision is None


def test_files_still_being_written_are_passed_over(tmp_path: Path) -> None:
    write_random(tmp_path / "whole.gguf")
    for name in (".part.gguf", "part.gguf.tmp", ".staging/part.gguf"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"GGUF")
    assert list(find_models(tmp_path)) == ["whole"]


@pytest.mark.parametrize(
    ("architecture", "says", "what"),
    [
        ("clip", {"general__type": "mmproj"}, "a projector of images or sound"),
        ("clip", {}, "a projector of images or sound"),  # as they were before there were types
        ("llama", {"general__type": "imatrix"}, "an importance matrix"),
        ("bert", {"tokenizer__ggml__model": "bert"}, "an embedding model"),
        ("qwen3", {"tokenizer__ggml__model": "gpt2", "qwen3__pooling_type": 4}, "a model that ranks texts"),
        ("llada", {"llada__attention__causal": False}, "a model that does not write from left to right"),
        ("llama", {"tokenizer__ggml__model": "none"}, "a model without a vocabulary"),
    ],
)
def test_what_is_no_model_is_left_out_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, architecture: str, says: dict, what: str
) -> None:
    other = write_other(tmp_path / "other.gguf", architecture, **says)
    with pytest.raises(UserError, match=rf"other\.gguf is {what}\b.* no model to chat with$"):
        find_models(tmp_path)
    write_random(tmp_path / "tune.gguf")
    assert list(find_models(tmp_path)) == ["tune"]
    (line,) = caplog.messages
    assert line.startswith(f"left out: {other} is {what}")
    with pytest.raises(UserError, match=rf"SERVE_MODEL=other: .* is {what}"):
        find_models(tmp_path, "other")


def test_a_vocabulary_without_a_model_is_left_out(tmp_path: Path) -> None:
    write_vocabulary(tmp_path / "vocabulary.gguf", [b"hi"])
    with pytest.raises(UserError, match=r"vocabulary\.gguf is a vocabulary without a model"):
        find_models(tmp_path)


def test_damaged_files_are_left_out_beside_a_whole_one_and_all_named_without_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = write_random(tmp_path / "whole.gguf")
    (tmp_path / "cut.gguf").write_bytes(whole.read_bytes()[:200_000])
    (tmp_path / "page.gguf").write_text("<html>not found</html>")
    write_other(tmp_path / "foreign.gguf", "martian", tokenizer__ggml__model="gpt2")
    assert list(find_models(tmp_path)) == ["whole"]
    assert [line.partition(": ")[2].partition(" ")[0] for line in caplog.messages] == [
        str(tmp_path / name) for name in ("cut.gguf", "foreign.gguf", "page.gguf")
    ]
    whole.unlink()
    with pytest.raises(UserError, match=r"has no model to serve: .*cut\.gguf .*; .*foreign\.gguf .*; .*page\.gguf "):
        find_models(tmp_path)


def test_a_name_that_cannot_be_written_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_random(tmp_path / "tune.gguf").rename(os.fsdecode(os.fsencode(tmp_path) + b"/tune\xff.gguf"))
    write_random(tmp_path / "über tune.gguf")
    assert list(find_models(tmp_path)) == ["über tune"]
    assert caplog.messages == [r"left out: 'tune\udcff' is no name in UTF-8: rename the file"]


def test_a_split_model_is_one_model(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = find_models(write_random(tmp_path / "tune.gguf").parent)["tune"]
    parts = split(whole.path, 3)
    beside = find_models(tmp_path)
    assert list(beside) == ["tune-00001-of-00003", "tune"]  # a name that is taken stays with whose it is
    whole.path.unlink()
    (tune,) = find_models(tmp_path).values()
    assert (tune.name, tune.path, tune.parts) == ("tune", parts[0], tuple(parts))
    assert tune.size == sum(part.stat().st_size for part in parts)
    assert (tune.context, tune.token_bytes, tune.chats) == (whole.context, whole.token_bytes, True)
    assert not caplog.messages
    revision = tune.revision
    (split_again,) = find_models(tmp_path).values()
    parts[2].write_bytes(parts[2].read_bytes()[::-1])
    assert revision
    assert split_again.revision is None
    with LlamaModel(split(write_random(tmp_path / "again.gguf"), 3)[0], context=512, threads=1) as model:
        assert model.vocabulary == 261


def test_a_split_model_that_is_not_whole_is_told_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    parts = split(write_random(tmp_path / "tune.gguf"), 4)
    content = parts[0].read_bytes()

    def told() -> str:
        caplog.clear()
        assert list(find_models(tmp_path)) == ["tune"]
        (line,) = caplog.messages
        return line.removeprefix(f"left out: {tmp_path}/")

    parts[3].unlink()
    assert told() == f"{parts[0].name} is a part of a model that lacks {parts[3].name}"
    parts[0].unlink()
    assert told() == f"{parts[1].name} is a part of a model that lacks {parts[0].name}, {parts[3].name}"
    parts[2].unlink()
    parts[1].rename(tmp_path / "second.gguf")
    assert told().startswith("second.gguf is part 2 of 4 of a model: name it …-00002-of-00004.gguf as the others are")
    (tmp_path / "second.gguf").unlink()
    (tmp_path / "tune-00001-of-00002.gguf").write_bytes(content)
    assert told() == "tune-00001-of-00002.gguf is named as one of 2 parts, and is one of 4: rename it"


def test_a_part_cut_short_is_named(tmp_path: Path) -> None:
    whole = write_random(tmp_path / "tune.gguf")
    parts = split(whole, 3)
    whole.unlink()
    parts[2].write_bytes(parts[2].read_bytes()[:-100])
    with pytest.raises(UserError, match=rf"{parts[2].name} .* is no whole GGUF model: it ends before its last tensor"):
        find_models(tmp_path)


@pytest.mark.parametrize("kept", [0, 3, 20, 3000, 100_000, -1], ids=str)
def test_a_gguf_cut_short_is_refused_by_name_and_size(tmp_path: Path, kept: int) -> None:
    path = write_random(tmp_path / "model.gguf")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=rf"model\.gguf \({path.stat().st_size} bytes\) is no whole GGUF model: \w+"):
        find_models(tmp_path)


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_text("<html>not found</html>")
    with pytest.raises(UserError, match=r"model\.gguf .*invalid magic"):
        find_models(tmp_path)


def test_the_server_ends_in_one_line_for_a_gguf_cut_short(tmp_path: Path) -> None:
    path = write_random(tmp_path / "model.gguf")
    path.write_bytes(path.read_bytes()[:200_000])
    ended = run_server(models=tmp_path, port=free_port())
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"error: {path} (200000 bytes) is no whole GGUF model: ")
    assert ended.stderr.count("\n") == 1


def test_the_server_without_a_model_says_how_to_get_one(tmp_path: Path) -> None:
    ended = run_server(models=tmp_path / "missing", port=free_port())
    assert ended.returncode == 1
    way_out = "run `tunesmith repro` to make one, or set SERVE_MODELS to a folder"
    assert ended.stderr == f"error: no *.gguf file in {tmp_path}/missing: {way_out}\n"


def test_a_model_to_begin_with_that_is_not_there_is_refused(folder: Path) -> None:
    ended = run_server(models=folder, model="gone", port=free_port())
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: SERVE_MODEL=gone: there is no such model; there is endless, ")


def test_a_taken_port_is_named_with_the_way_out(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = run_server(models=folder, port=port)
    assert ended.returncode == 1
    assert ended.stderr == (
        f"error: 127.0.0.1, port {port} is taken: end what listens there, or set SERVE_PORT to another port\n"
    )


def test_an_embedding_model_stands_beside_one_that_answers(tmp_path: Path) -> None:
    path = write_random(tmp_path / "vectors.gguf", template=None, pooling=PoolingType.LAST)
    with pytest.raises(UserError, match=rf"^{path} is an embedding model, and no model to chat with$"):
        find_models(tmp_path)
    write_random(tmp_path / "tune.gguf")
    models = find_models(tmp_path)
    assert {name: model.embeds for name, model in models.items()} == {"tune": False, "vectors": True}
    with pytest.raises(UserError, match=r"^SERVE_MODEL=vectors: .* is an embedding model, and no model to chat with$"):
        find_models(tmp_path, "vectors")
