"""Makes the virtual environment: the locked versions, torch's CPU build where there is no GPU, llama.cpp compiled once.

    python3.11 scripts/setup.py                      .venv, with all that `make` needs
    python3.11 scripts/setup.py --extras pipeline,unsloth --venv DIR --deps-only
    python3.11 scripts/setup.py --extras '' --without gradio --deps-only    the server without its page
    python3.11 scripts/setup.py --extras tracking --only                    what an extra names, and no more

Runs under a bare CPython 3.11 or 3.12. A second call returns at once; an interrupted one goes on where it stopped.

Environment:
    TUNESMITH_TORCH   auto (default: the CPU build unless there is an NVIDIA GPU), cpu, or cuda
    CMAKE_ARGS        added to llama.cpp's build flags
    LLAMA_VARIANTS    few (default) or all of llama.cpp's variants for kinds of processors
Wheels in `wheels/` are found besides those of pip's own index.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS, HASHES = ROOT / "constraints.txt", ROOT / "hashes.txt"  # versions, and the files of each
CPU_INDEX = "https://download.pytorch.org/whl/cpu"  # PyTorch's own
SOURCES = ("antlr4-python3-runtime",)  # come as source alone, which is built: by its hash, before it is resolved
STEPS = 4


class SetupError(Exception):
    """What stops the set-up: one line that ends with what to do."""


def main() -> int:
    """Look at the machine first, so that what it lacks is said before minutes of work, not after."""
    arguments = parse_arguments()
    extras, without = (list(filter(None, names.split(","))) for names in (arguments.extras, arguments.without))
    venv = Venv(arguments.venv)
    try:
        check_python()
        digest = lock_digest(arguments.extras, arguments.without, "only" if arguments.only else "")
        if venv.is_ready(digest):
            return 0
        if "pipeline" in extras and not arguments.deps_only:
            check_repository()
        if not arguments.only:
            check_tools(extras)
        if "pipeline" in extras and wants_cuda():
            extras.append("gpu")
        step(1, f"virtual environment in {venv.folder}")
        venv.make()
        if "pipeline" in extras:
            install_torch(venv)
        if not arguments.only:
            install_llama_cpp(venv)
        install_packages(venv, extras, without, arguments.deps_only, arguments.only)
        venv.stamp.write_text(digest)
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nsetup: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description="Makes the virtual environment.")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv")
    parser.add_argument("--extras", default="pipeline,sweeps,dev", help="by commas; '' for the server alone")
    parser.add_argument("--without", default="", help="of this project's own dependencies, by commas")
    parser.add_argument("--deps-only", action="store_true", help="leave out this project itself, as images do")
    parser.add_argument("--only", action="store_true", help="leave out what this project needs, too")
    return parser.parse_args()


def lock_digest(*choices: str) -> str:
    """Change with everything that says what is to be installed."""
    digest = hashlib.sha256("\n".join(filter(None, choices)).encode())
    for path in (CONSTRAINTS, HASHES, ROOT / "pyproject.toml", Path(__file__), Path(llama_source().__file__)):
        if not path.is_file():
            raise SetupError(f"{path} is missing: restore it with `git checkout {path.name}`")
        digest.update(path.read_bytes())
    return digest.hexdigest()


# what the machine has


def check_python() -> None:
    """Check this interpreter's version, and the modules that Debian keeps in a package of their own."""
    version = "{}.{}".format(*sys.version_info)
    if version not in ("3.11", "3.12"):
        raise SetupError(
            f"Python {version} does not fit, 3.11 and 3.12 do: apt-get install python3.11-venv (python3.12-venv on "
            "Ubuntu 24.04), or name another with `make PYTHON=/path/to/python3.12`"
        )
    if not all(importlib.util.find_spec(module) for module in ("venv", "ensurepip")):
        raise SetupError(f"this Python lacks its venv module: apt-get install python{version}-venv")


def check_repository() -> None:
    """Check that this is a clone: DVC works in a git repository, and an archive of the files has none."""
    if not (ROOT / ".git").exists():
        raise SetupError(
            f"{ROOT} is no git repository, without which DVC does nothing: `git clone` the project, or make this copy "
            "one, `git init && git add . && git commit -m start`"
        )


def check_tools(extras: list[str]) -> None:
    """Check for the git that DVC works with, and a C++ compiler unless llama.cpp has been compiled before."""
    if "pipeline" in extras and not shutil.which("git"):
        raise SetupError("git is missing: apt-get install git")
    compilers = os.environ.get("CXX", "").split()[:1] or ["c++", "g++", "clang++"]
    if not any(map(shutil.which, compilers)) and not llama_source().cached_wheel():
        raise SetupError(f"no C++ compiler ({', '.join(compilers)}) to build llama.cpp with: apt-get install g++ make")


def wants_cuda() -> bool:
    """Return what TUNESMITH_TORCH says; by itself, whether an NVIDIA driver answers."""
    choice = os.environ.get("TUNESMITH_TORCH") or "auto"
    if choice not in ("auto", "cpu", "cuda"):
        raise SetupError(f"TUNESMITH_TORCH={choice} is not known; it may be auto, cpu or cuda")
    return choice == "cuda" or (choice == "auto" and has_gpu())


def has_gpu() -> bool:
    """Return whether there is an NVIDIA GPU; under WSL there is no device file, but nvidia-smi."""
    return Path("/dev/nvidia0").exists() or run_silently(["nvidia-smi", "-L"])


# what is installed


def install_torch(venv: Venv) -> None:
    """Install the locked torch: the CPU build unless CUDA is wanted, since that brings several GB of libraries."""
    version = locked_version("torch")
    cuda = wants_cuda()
    step(2, f"torch {version}, {'CUDA' if cuda else 'CPU'} build")
    if venv.version_of("torch").partition("+")[0] == version:
        return
    if cuda:
        venv.install(f"torch=={version}")
    else:
        venv.pip("install", "--no-deps", *cpu_torch(venv, version))


def cpu_torch(venv: Venv, version: str) -> list[str]:
    """Return what makes pip install a torch without CUDA.

    A build named so, else one that needs none of CUDA's parts.
    """
    offers = (
        [*find_links(), f"torch=={version}+cpu"],
        ["--retries=1", "--timeout=15", f"--index-url={CPU_INDEX}", f"torch=={version}+cpu"],
        [*find_links(), f"torch=={version}"],  # other processors' and macOS's builds are named plainly
    )
    for arguments in offers:
        needs = venv.requirements_of(arguments)
        if needs is not None and not brings_cuda(needs):
            return arguments
    raise SetupError(
        f"no CPU build of torch {version} for CPython {platform.python_version()}: pip's index offers none and "
        f"{CPU_INDEX} does not answer; put a wheel of it in ./wheels/, or set TUNESMITH_TORCH=cuda to accept the "
        "CUDA build (several GB)"
    )


def brings_cuda(requirements: list[str]) -> bool:
    """Return whether a torch with these requirements installs CUDA's libraries here."""
    return platform.system() == "Linux" and any(re.match(r"nvidia-|cuda-|triton\b", need) for need in requirements)


def install_llama_cpp(venv: Venv) -> None:
    """Install the wheel that is built from the sdist; its converter, which export needs, is kept on the way."""
    version = llama_source().VERSION
    cached = llama_source().cached_wheel()
    step(3, f"llama-cpp-python {version}, {'compiled before' if cached else 'compiled here, for some minutes'}")
    if venv.version_of("llama-cpp-python") == version and llama_source().kind() in venv.origin_of("llama-cpp-python"):
        return
    arguments = ["-m", "llama.source", "--wheel", "--constraints", str(CONSTRAINTS)]
    wheel = venv.call([str(venv.python), *arguments])
    venv.pip("install", "--no-deps", "--force-reinstall", wheel)  # one of the same version is no reason not to


def install_packages(venv: Venv, extras: list[str], without: list[str], deps_only: bool, only: bool) -> None:
    """Install what pyproject.toml names, in the locked versions."""
    import tomllib  # which 3.10 lacks: check_python() comes first

    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project, optional = pyproject["project"], pyproject["project"]["optional-dependencies"]
    if unknown := [extra for extra in extras if extra not in optional]:
        raise SetupError(f"no extra {', '.join(unknown)} in pyproject.toml; it has {', '.join(optional)}")
    own = {re.split(r"[^\w-]", need)[0]: need for need in project["dependencies"]}
    if unknown := [name for name in without if name not in own]:
        raise SetupError(f"{', '.join(unknown)} is no dependency in pyproject.toml, which names {', '.join(own)}")
    needed = [need for name, need in own.items() if name not in without and not only]
    step(4, f"packages for {', '.join(extras) or 'the server'}")
    resolved = [need for extra in extras if extra != "unsloth" for need in optional[extra]]
    is_left_out = deps_only or only
    builders = [] if is_left_out else pyproject["build-system"]["requires"]
    if "pipeline" in extras:
        venv.install_by_hash([f"{name}=={locked_version(name)}" for name in SOURCES if is_locked(name)])
    venv.install(*find_links(), *builders, *needed, *resolved)
    if "unsloth" in extras:  # names all it needs, as it asks for a certifi newer than others were locked with
        venv.install("--no-deps", *unsloth_needs(optional["unsloth"]))
    if not is_left_out:
        venv.pip("install", "--no-deps", "--no-build-isolation", "--editable", ".")


def unsloth_needs(needs: list[str]) -> list[str]:
    """Return what to install of what Unsloth names.

    Without torchvision on a CPU, whose CUDA build no `import transformers` survives there.
    """
    return needs if wants_cuda() else [need for need in needs if not need.startswith("torchvision")]


def locked_version(package: str) -> str:
    """Return the version in constraints.txt."""
    found = re.search(rf"^{package}==(\S+)", CONSTRAINTS.read_text(), re.MULTILINE)
    if not found:
        raise SetupError(f"{CONSTRAINTS} names no version of {package}: restore it with `git checkout constraints.txt`")
    return found[1]


def is_locked(package: str) -> bool:
    """Return whether constraints.txt names a package; an extra that it leaves out brings others."""
    return any(normal(line.partition("==")[0]) == normal(package) for line in CONSTRAINTS.read_text().splitlines())


def with_hashes(needs: list[str]) -> str:
    """Return packages of exact versions as pip's requirements with the SHA-256 of each of their files."""
    entries = {normal(block.partition(" ")[0]): block for block in re.split(r"\n(?=\S)", HASHES.read_text())}
    if lost := [need for need in needs if normal(need) not in entries]:
        raise SetupError(f"{HASHES} has no hash of {', '.join(lost)}: `make lock` after a change of constraints.txt")
    return "\n".join(entries[normal(need)].strip() for need in needs) + "\n"


def normal(name: str) -> str:
    """Return a package's name as all of its spellings come to; a version behind it stays."""
    name, equals, version = name.partition("==")
    return re.sub(r"[-_.]+", "-", name).lower() + equals + version


def find_links() -> list[str]:
    """Return where wheels have been put beside the project, as an image build does."""
    wheels = ROOT / "wheels"
    return [f"--find-links={wheels}"] if wheels.is_dir() else []


def llama_source() -> ModuleType:
    """Return the project's module on llama.cpp's sources, which wants nothing but the standard library."""
    sys.path.insert(0, str(ROOT))
    from llama import source

    try:
        source.patches()
    except source.UserError as error:
        raise SetupError(str(error)) from None
    return source


class Venv:
    """A virtual environment, the log of what was said while it was made, and the stamp that it is finished."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.python = self.folder / "bin" / "python"
        self.stamp = self.folder / "setup.stamp"
        self.log = self.folder / "setup.log"

    def is_ready(self, digest: str) -> bool:
        """Return whether this very lock has been installed and the interpreter is still there."""
        return self.python.exists() and self.stamp.is_file() and self.stamp.read_text() == digest

    def make(self) -> None:
        """Make it where it is missing, half-made or left behind by a Python that is gone."""
        self.stamp.unlink(missing_ok=True)
        if self.python.exists() and run_silently([str(self.python), "-m", "pip", "-V"]):
            return
        ours = self.log.exists() or (self.folder / "pyvenv.cfg").exists()
        if self.folder.exists() and any(self.folder.iterdir()) and not ours:
            raise SetupError(f"{self.folder} is not a virtual environment; name another folder with --venv")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.call([sys.executable, "-m", "venv", str(self.folder)])

    def pip(self, *arguments: str) -> None:
        """Run pip with the lock's versions."""
        options = ["--disable-pip-version-check", "--no-input", "--progress-bar=off", "--constraint", str(CONSTRAINTS)]
        self.call([str(self.python), "-m", "pip", arguments[0], *options, *arguments[1:]])

    def install(self, *needs: str) -> None:
        """Install packages, resolved by the lock's versions and taken by its hashes; what it does not name is told."""
        options = [need for need in needs if need.startswith("-")]
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.json"
            self.pip("install", "--dry-run", "--only-binary=:all:", f"--report={report}", *needs)
            found = [one["metadata"] for one in json.loads(report.read_text())["install"]]
        self.install_by_hash([f"{one['name']}=={one['version']}" for one in found if is_locked(one["name"])], options)
        if others := [f"{one['name']}=={one['version']}" for one in found if not is_locked(one["name"])]:
            print(f"    in no lock, so without a known hash: {', '.join(others)}", flush=True)
            self.pip("install", "--no-deps", *options, *others)

    def install_by_hash(self, needs: list[str], options: Sequence[str] = ()) -> None:
        """Install packages of exact versions, and only from files that the lock knows by their SHA-256."""
        if not needs:
            return
        with tempfile.TemporaryDirectory() as folder:
            listed = Path(folder) / "requirements.txt"
            listed.write_text(with_hashes(needs))
            self.pip("install", "--no-deps", "--require-hashes", *options, f"--requirement={listed}")

    def call(self, command: list[str]) -> str:
        """Run a command in the project's folder, its output going to the log; give back the last line of it."""
        with self.log.open("a+") as log:
            log.write(f"$ {' '.join(command)}\n")
            log.flush()
            start = log.tell()
            status = wait_visibly(subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
            log.seek(start)
            lines = log.read().splitlines() or [""]
        if status:
            print("\n".join(lines[-15:]), file=sys.stderr)
            raise SetupError(f"this step failed, its whole output is in {self.log}; the same command tries it again")
        return lines[-1]

    def version_of(self, package: str) -> str:
        """Return the version installed; empty where it is not."""
        return self._asked(package, "found.version")

    def origin_of(self, package: str) -> str:
        """Return where its wheel was, as pip has noted it; empty where it came from an index."""
        return self._asked(package, "found.read_text('direct_url.json') or ''")

    def _asked(self, package: str, what: str) -> str:
        code = f"from importlib.metadata import distributions as d; print(*({what} for found in d(name={package!r})))"
        return subprocess.run([self.python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()

    def requirements_of(self, arguments: list[str]) -> list[str] | None:
        """Return what the package needs that pip would install with these arguments; None where it finds none."""
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.json"
            dry_run = ["install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps", f"--report={report}"]
            if not run_silently([str(self.python), "-m", "pip", *dry_run, *arguments]):
                return None
            return json.loads(report.read_text())["install"][0]["metadata"].get("requires_dist", [])


def step(number: int, title: str) -> None:
    """Say what is being done; the rest of the output goes to the log."""
    print(f"{number}/{STEPS} {title}", flush=True)


def run_silently(command: list[str]) -> bool:
    """Return whether a command that only asks something ends well."""
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, timeout=600).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def wait_visibly(process: subprocess.Popen[bytes]) -> int:
    """Wait for a command and give back its status; on a terminal the seconds are seen to pass."""
    started = time.monotonic()
    try:
        while True:
            try:
                return process.wait(timeout=1)
            except subprocess.TimeoutExpired:
                if sys.stdout.isatty():
                    print(f"\r    {time.monotonic() - started:.0f} s", end="\r", flush=True)
    finally:
        if process.poll() is None:  # interrupted: pip must not go on behind our back
            process.terminate()
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
