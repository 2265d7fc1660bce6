"""The llama.cpp sources that belong to the installed llama-cpp-python: its converter, and the wheel built from them.

    python -m llama.source           prints the folder of the converter
    python -m llama.source --wheel   builds the wheel where it is not cached, and prints its path
    python -m llama.source --share   puts the wheel into wheels/, where an image's build finds it and compiles nothing

Both come from one sdist, checked by hash, so that converter, quantizer and server are one version. They are kept under
`${XDG_CACHE_HOME:-~/.cache}/tunesmith`; with them there, nothing here touches the network. Only the standard library is
imported: `scripts/setup.py` runs this before anything is installed.
"""

import argparse
import hashlib
import os
import platform
import re
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import UserError
from common.files import atomic_path
from common.package_index import cache_root, download, exclusive, last_error, pip, require_sha256

VERSION = "0.3.36"
SDIST_SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"

SHARED = Path(__file__).parents[1] / "wheels"  # beside the project, where an image's build takes it along

# What the converter reads, of 200 MB of sources: its modules, and the vocabularies and chat templates it looks up.
CONVERTER_PARTS = (
    "convert_hf_to_gguf.py", "convert_lora_to_gguf.py", "conversion", "gguf-py", "models", "LICENSE",
)  # fmt: skip

# Nothing that this machine alone can run: a wheel may be carried to another one.
CMAKE_FLAGS = "-DGGML_NATIVE=OFF -DLLAVA_BUILD=OFF"

# On x86-64, ggml's kernels are built in variants, of which the best that a machine can run is loaded there. A variant
# takes 45 s of a processor to compile, so there are few: for processors without AVX2, as virtual ones may be; with it;
# with AVX-VNNI, which desktops have from 2021 on; with AVX-512 and VNNI, servers from 2019 on. LLAMA_VARIANTS=all
# builds llama.cpp's others, too, as an image for all machines wants them. None has AMX: virtual machines may only claim
# to have it, and every quantized model crashed there.
VARIANT_FLAGS = "-DGGML_BACKEND_DL=ON -DGGML_CPU_ALL_VARIANTS=ON"
VARIANTS = ("x64", "haswell", "alderlake", "cascadelake")

# All libraries in the package, once each: by default each comes six times, under three names in two places.
LAYOUT_FLAGS = (
    "-DCMAKE_INSTALL_LIBDIR=llama_cpp/lib -DCMAKE_INSTALL_BINDIR=llama_cpp/lib -DCMAKE_PLATFORM_NO_VERSIONED_SONAME=ON"
)

# What is changed in the sources: file, pattern, what stands there instead.
SGEMM = "vendor/llama.cpp/ggml/src/ggml-cpu/llamafile/sgemm.cpp"
VARIANTS_FILE = "vendor/llama.cpp/ggml/src/CMakeLists.txt"
FEW_VARIANTS = (
    VARIANTS_FILE,
    rf"ggml_add_cpu_backend_variant\((?!(?:{'|'.join(VARIANTS)})\b)\w+ +SSE42[^)]*\)",
    "",
)
PATCHES = (
    # llama.cpp's `common` library is not part of the wheel, yet takes 8 of 10 minutes; the sdist forces it on.
    ("CMakeLists.txt", r"set\(LLAMA_BUILD_COMMON ON ", "set(LLAMA_BUILD_COMMON OFF "),
    (VARIANTS_FILE, r"ggml_add_cpu_backend_variant\([^)]*\bAMX_[^)]*\)", ""),
    FEW_VARIANTS,
    # Compilers from before 2021 (GCC 10, clang 11) know nothing of AVX-VNNI.
    (
        VARIANTS_FILE,
        r"ggml_add_cpu_backend_variant\(alderlake\b[^)]*\)",
        "check_cxx_compiler_flag(-mavxvnni KNOWS_AVX_VNNI)\nif (KNOWS_AVX_VNNI)\n\\g<0>\nendif()",
    ),
    # `Llama` looks for no variants, and finds no kernels; ours are loaded by variants.py.
    (
        "llama_cpp/llama.py",
        r"( +)llama_cpp\.llama_backend_init\(\)",
        r"\g<0>\n\1llama_cpp._lib.ggml_backend_load_all_from_path(os.fsencode(llama_cpp._base_path))",
    ),
    # One row of floats is multiplied by another kernel than several are, which adds up in another order: several tokens
    # of an answer in one step would not be computed as one by one (speculation.py). Here by the same, which waits for
    # no other thread at each head of the attention. Without AVX2 that holds for rows of Q8_0, too.
    (
        SGEMM,
        r"    if \(n < 2\)",
        "#if defined(__AVX__) && !defined(__AVX2__)\n    if (n < 1)\n#else\n"
        "    if (n < 2 && !(Atype == GGML_TYPE_F32 || Atype == GGML_TYPE_F16 || Atype == GGML_TYPE_BF16))\n#endif",
    ),
    (SGEMM, r"(\n +)(ggml_barrier\(params->threadpool\);)", r"\1if (n > 1) \2"),
    (SGEMM, r"(ggml_threadpool_chunk_add\(params->threadpool, 1\));", r"n > 1 ? \1 : job + params->nth;"),
)


def llama_cpp_tree() -> Path:
    """Return the folder that holds the converters, `conversion/`, `gguf-py/` and `models/`; fetched on first use.

    Raises:
        UserError: no package index answers, its file is not the expected one, or the disk refuses.
    """
    tree = cache_folder() / "llama.cpp"
    if not _is_complete(tree):
        with exclusive(cache_folder()):
            if not _is_complete(tree):  # another process may have been first
                with _unpacked_sdist() as source:
                    _keep_converter(source)
    return tree


def llama_cpp_wheel(constraints: Path | None = None) -> Path:
    """Return a wheel of llama-cpp-python for this machine; compiled on first use, in 3 to 4 minutes on 2 cores.

    Args:
        constraints: a pip constraints file that fixes the versions of the build's own tools.

    Raises:
        UserError: as `llama_cpp_tree`, or the compiler fails.
    """
    if cached := cached_wheel():
        return cached
    with exclusive(cache_folder()):
        if cached := cached_wheel():  # another process may have been first
            return cached
        with _unpacked_sdist() as source:
            _keep_converter(source)
            _patch(source)
            built = _build(source, constraints)
            with atomic_path(_wheel_folder() / built.name) as temporary:
                shutil.move(built, temporary)
            return _wheel_folder() / built.name


def cached_tree() -> Path | None:
    """Return the folder of the converter, where an earlier call has fetched it."""
    tree = cache_folder() / "llama.cpp"
    return tree if _is_complete(tree) else None


def cached_wheel() -> Path | None:
    """Return the wheel that was built before with the same flags on the same kind of machine, or shared by one."""
    folders = (_wheel_folder(), _shared_folder())
    return next((wheel for folder in folders for wheel in sorted(folder.glob("*.whl"))), None)


def share_wheel() -> Path:
    """Put the wheel beside the project, and return its path there; built where it was not.

    Raises:
        UserError: as `llama_cpp_wheel`.
    """
    wheel = llama_cpp_wheel()
    shared = _shared_folder() / wheel.name
    if not shared.is_file():
        with atomic_path(shared) as temporary:
            shutil.copyfile(wheel, temporary)
    return shared


def cache_folder() -> Path:
    """Return where this version's files are kept."""
    return cache_root() / f"llama_cpp_python-{VERSION}"


def kind() -> str:
    """Return a name that stands for all that the compiled libraries depend on, Python not among it."""
    flags, machine = (LAYOUT_FLAGS, cmake_flags(), repr(patches())), (platform.system(), platform.machine())
    parts = "\n".join([*flags, *machine, *platform.libc_ver()])
    return hashlib.sha256(parts.encode()).hexdigest()[:12]


def patches() -> tuple[tuple[str, str, str], ...]:
    """Return what is changed in the sources: PATCHES, less the choice of variants with LLAMA_VARIANTS=all.

    Raises:
        UserError: LLAMA_VARIANTS is something else.
    """
    asked = os.environ.get("LLAMA_VARIANTS") or "few"
    if asked not in ("few", "all"):
        raise UserError(f"LLAMA_VARIANTS={asked} is not known; it may be few or all")
    return PATCHES if asked == "few" else tuple(patch for patch in PATCHES if patch is not FEW_VARIANTS)


def cmake_flags() -> str:
    """Return the flags of the build; `CMAKE_ARGS` adds to them and wins over them (`-DGGML_CUDA=ON`, say)."""
    is_x86_64_linux = (platform.system(), platform.machine()) == ("Linux", "x86_64")
    flags = [CMAKE_FLAGS, VARIANT_FLAGS if is_x86_64_linux else "", os.environ.get("CMAKE_ARGS", "")]
    return " ".join(filter(None, flags))


def _wheel_folder() -> Path:
    return cache_folder() / "wheels" / kind()


def _shared_folder() -> Path:
    return SHARED / cache_folder().name / kind()


@contextmanager
def _unpacked_sdist() -> Iterator[Path]:
    """Yield the sdist's folder, fetched and checked; it is gone when the block ends."""
    with tempfile.TemporaryDirectory(prefix="work-", dir=cache_folder(), ignore_cleanup_errors=True) as work:
        archive = _download(Path(work) / "sdist")
        require_sha256(archive, SDIST_SHA256)
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(Path(work) / "source")  # noqa: S202, its hash is the one expected
        except OSError as error:
            raise UserError(f"cannot unpack {archive.name} in {work}: {error.strerror or error}; make room") from error
        yield Path(work) / "source" / f"llama_cpp_python-{VERSION}"


def _download(into: Path) -> Path:
    return download(f"llama-cpp-python=={VERSION}", into, "--no-binary", "llama-cpp-python")


def _keep_converter(source: Path) -> None:
    """Move the converter's part of the sources to its final place; a folder there is complete."""
    tree = cache_folder() / "llama.cpp"
    if _is_complete(tree):
        return
    with atomic_path(tree) as temporary:
        temporary.mkdir()
        for part in CONVERTER_PARTS:
            original = source / "vendor" / "llama.cpp" / part
            copy = shutil.copytree if original.is_dir() else shutil.copy2
            copy(original, temporary / part)
        for expectation in temporary.glob("models/*.gguf.*"):  # of llama.cpp's own tests
            expectation.unlink()
        (temporary / "sdist.sha256").write_text(SDIST_SHA256 + "\n")


def _is_complete(tree: Path) -> bool:
    marker = tree / "sdist.sha256"
    whole = marker.is_file() and marker.read_text().strip() == SDIST_SHA256
    return whole and all((tree / part).exists() for part in CONVERTER_PARTS)  # an earlier release kept fewer


def _patch(source: Path) -> None:
    for name, pattern, replacement in patches():
        text, count = re.subn(pattern, replacement, (source / name).read_text())
        if not count:
            raise UserError(f"{name} of llama-cpp-python {VERSION} has nothing like {pattern!r}; mend {__file__}")
        (source / name).write_text(text)


def _build(source: Path, constraints: Path | None) -> Path:
    flags = f"{LAYOUT_FLAGS} {cmake_flags()}"
    environment = {"CMAKE_ARGS": flags, "CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count() or 1)}
    if constraints:  # pip before 25.3 reads the first for the tools of a build, later ones the second
        environment |= dict.fromkeys(("PIP_CONSTRAINT", "PIP_BUILD_CONSTRAINT"), str(constraints.resolve()))
    wheels = source.parent / "wheel"
    done = pip(["wheel", "--no-deps", "--wheel-dir", str(wheels), str(source)], environment)
    built = list(wheels.glob("*.whl"))
    if done.returncode or not built:
        log = cache_folder() / "build.log"
        log.write_text(done.stdout)
        raise UserError(f"llama-cpp-python {VERSION} does not compile ({last_error(done)}); the whole output is {log}")
    return built[0]


def _main() -> int:
    parser = argparse.ArgumentParser(prog="python -m llama.source", description=__doc__.splitlines()[0])
    parser.add_argument("--wheel", action="store_true", help="build the wheel and print its path")
    parser.add_argument("--share", action="store_true", help="put the wheel into wheels/ and print its path there")
    parser.add_argument("--constraints", type=Path, help="pip constraints file for the build's own tools")
    arguments = parser.parse_args()
    try:
        if arguments.share:
            print(share_wheel())
        else:
            print(llama_cpp_wheel(arguments.constraints) if arguments.wheel else llama_cpp_tree())
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main())
