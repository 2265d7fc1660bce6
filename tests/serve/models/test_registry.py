import hashlib
import socket
from pathlib import Path

import gguf
import numpy as np
import pytest
from servers import free_port, run_server
from tiny_gguf import write_random

from common.errors import UserError
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


def test_adapters_are_passed_over(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "tune-adapter-F16.gguf", "llama")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_tensor("blk.0.attn_q.weight.lora_a", np.ones((4, 64), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UserError, match=r" has adapters alone, which are no models"):
        find_models(tmp_path)
    write_random(tmp_path / "tune.gguf")
    assert list(find_models(tmp_path)) == ["tune"]


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
