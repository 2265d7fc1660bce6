"""What a model takes and what there is, before it is loaded."""

from contextlib import closing
from pathlib import Path

import pytest
from gguf import PoolingType
from machine_files import write
from servers import run_server
from tiny_gguf import write_encoder, write_random

from common.errors import UserError
from llama import model as llama_model
from llama.embedding import Embedder
from llama.memory import WORK, cache_bytes, check_memory, check_work, free_bytes, work_bytes
from llama.model import Entry, LlamaModel, metadata
from serve.models.registry import find_models

MIB = 1 << 20
LLAMA_1B = {
    "general.architecture": "llama",
    "llama.block_count": "16",
    "llama.embedding_length": "2048",
    "llama.attention.head_count": "32",
    "llama.attention.head_count_kv": "8",
}


@pytest.mark.parametrize(
    ("says", "size"),
    [
        (LLAMA_1B, 16 * 8 * (64 + 64) * 2),
        ({**LLAMA_1B, "llama.attention.key_length": "96"}, 16 * 8 * (96 + 64) * 2),
        ({**LLAMA_1B, "llama.attention.head_count_kv": "[8, 0, 4]"}, 12 * (64 + 64) * 2),
        ({"general.architecture": "mamba", "mamba.block_count": "4"}, 0),
    ],
)
def test_a_token_takes_its_keys_and_values_in_every_layer(says: dict[str, str], size: int) -> None:
    assert cache_bytes(says) == size


def test_the_estimate_is_what_llama_cpp_keeps(tmp_path: Path) -> None:
    path = write_random(tmp_path / "random.gguf", width=256)
    (model,) = find_models(tmp_path).values()
    assert model.context == 512
    with LlamaModel(path, 512, 1) as loaded:
        tokens = loaded.prompt([{"role": "user", "content": "x" * 400}])
        for start in range(0, len(tokens), 200):
            piece = tokens[start : start + 200]
            loaded.decode([Entry(token, start + i, 0, False) for i, token in enumerate(piece)])
        assert len(loaded.save(0)) == pytest.approx(len(tokens) * model.token_bytes, rel=0.05)


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, None),
        ({"proc/meminfo": "MemTotal: 9000 kB\nMemAvailable:   2048 kB\n"}, 2 * MIB),
        (
            {
                "proc/meminfo": f"MemAvailable: {1 << 20} kB\n",
                "proc/self/cgroup": "0::/box\n",
                "sys/fs/cgroup/box/memory.max": f"{100 * MIB}\n",
                "sys/fs/cgroup/box/memory.current": f"{70 * MIB}\n",
                "sys/fs/cgroup/box/memory.stat": f"anon 1\nfile {20 * MIB}\n",
                "sys/fs/cgroup/memory.max": "max\n",
            },
            50 * MIB,
        ),
        (
            {
                "proc/self/cgroup": "3:memory:/box\n",
                "sys/fs/cgroup/memory/box/memory.limit_in_bytes": f"{100 * MIB}\n",
                "sys/fs/cgroup/memory/box/memory.usage_in_bytes": f"{40 * MIB}\n",
                "sys/fs/cgroup/memory/box/memory.stat": f"total_cache {10 * MIB}\n",
            },
            70 * MIB,
        ),
    ],
    ids=["nothing tells", "the machine", "version 2", "version 1"],
)
def test_the_strictest_limit_counts(tmp_path: Path, files: dict[str, str], free: int | None) -> None:
    assert free_bytes(write(tmp_path, files)) == free


def test_a_model_that_does_not_fit_is_refused_with_the_figures(tmp_path: Path) -> None:
    root = write(tmp_path, {"proc/meminfo": f"MemAvailable: {2 << 20} kB\n"})
    assert check_memory("small", 800 * MIB, 512 * MIB, "4 x 4,096 tokens", root) == 2048 * MIB - 1312 * MIB - WORK
    line = r"large takes 2\.8 GB of memory \(2\.1 GB of weights, 0\.5 GB for 4 x 4,096 tokens\) and 2\.1 GB are free"
    with pytest.raises(UserError, match=line):
        check_memory("large", 2000 * MIB, 512 * MIB, "4 x 4,096 tokens", root)


def test_the_server_says_so_before_it_loads(tmp_path: Path) -> None:
    write_random(tmp_path / "wide.gguf", width=256, context=1 << 20)
    done = run_server(models=tmp_path, slots=32, context=1 << 20)
    assert done.returncode == 1
    assert done.stderr.startswith("error: wide takes ")
    assert done.stderr.endswith("lower SERVE_SLOTS or SERVE_CONTEXT, or take a smaller model\n")


@pytest.mark.parametrize(("width", "tokens"), [(32, 2048), (256, 2048), (256, 4096)])
def test_what_a_text_takes_at_once_is_what_llama_cpp_takes(tmp_path: Path, width: int, tokens: int) -> None:
    mean = PoolingType.MEAN
    for path in (
        write_random(tmp_path / "causal.gguf", context=tokens, width=width, template=None, pooling=mean),
        write_encoder(tmp_path / "both.gguf", mean, width, tokens),
    ):
        with closing(Embedder(path, tokens, threads=1)):
            taken = sum(size for what, size in llama_model._buffers if what == "compute")
        assert work_bytes(metadata(path), tokens) == pytest.approx(taken, rel=0.2)


def test_a_text_that_does_not_fit_is_refused_with_the_figures(tmp_path: Path) -> None:
    root = write(tmp_path, {"proc/meminfo": f"MemAvailable: {1 << 20} kB\n"})
    check_work("small", 8192, 800 * MIB, root)
    line = r"large takes 2\.1 GB of memory to read 32,768 tokens at once, and 1\.1 GB are free: lower SERVE_CONTEXT"
    with pytest.raises(UserError, match=line):
        check_work("large", 1 << 15, 2000 * MIB, root)


def test_an_embedder_is_checked_before_it_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_random(tmp_path / "mean.gguf", template=None, context=1024, pooling=PoolingType.MEAN)
    monkeypatch.setattr("llama.memory.free_bytes", lambda root: 1 * MIB)
    with pytest.raises(UserError, match=r"^mean takes .* to read 1,024 tokens at once"):
        Embedder(path, 1024, threads=1)
    last = write_random(tmp_path / "last.gguf", template=None, context=1024, pooling=PoolingType.LAST)
    with closing(Embedder(last, 1024, threads=1)) as embedder:  # which reads in pieces
        assert len(embedder.embed(list(b"So it is."))) == 64
