"""scripts/setup.py, run as it is in a copy of the project whose packages are empty wheels in a folder."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from empty_wheels import write_wheel

from common.files import sha256

ROOT = Path(__file__).parents[1]
CUDA = ("nvidia-cudnn-cu13; platform_system == 'Linux'", "triton; platform_system == 'Linux'")
PYPROJECT = """\
[project]
name = "tried"
dependencies = ["llama-cpp-python==0.3.36"]
[project.optional-dependencies]
pipeline = ["torch>=2", "numbers-package>=1"]
gpu = ["gpu-package>=1"]
unsloth = ["unsloth>=1", "torchvision>=0.26,<0.30"]
"""
CONSTRAINTS = "torch==2.13.0\nnumbers-package==1.5\n"


@dataclass
class Project:
    """A small project beside a folder of wheels that is all of pip's index."""

    root: Path
    index: Path
    environment: dict[str, str]

    def setup(
        self, *arguments: str, before: str = "", deps_only: bool = True, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Runs the script; `before` is Python that is executed first, to change what it finds."""
        script = f"{before}\nimport runpy; runpy.run_path('scripts/setup.py', run_name='__main__')"
        return subprocess.run(
            [sys.executable, "-c", script, *(["--deps-only"] if deps_only else []), *arguments],
            cwd=self.root,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def lock(self) -> None:
        """Writes the hashes of the files that the index has."""
        wheels = [(wheel, "==".join(wheel.name.split("-")[:2])) for wheel in sorted(self.index.glob("*.whl"))]
        lines = [f"{name.replace('_', '-')} \\\n    --hash=sha256:{sha256(wheel)}\n" for wheel, name in wheels]
        (self.root / "hashes.txt").write_text("".join(lines))

    def installed(self) -> set[str]:
        """The packages in its environment, with their versions."""
        found = self.root.glob(".venv/lib/python*/site-packages/*.dist-info")
        return {
            folder.name.removesuffix(".dist-info") for folder in found if not folder.name.startswith(("pip", "setup"))
        }


@pytest.fixture
def project(tmp_path: Path) -> Project:
    root, index, tools = tmp_path / "project", tmp_path / "index", tmp_path / "tools"
    for name in ("scripts", "common", "llama"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "pyproject.toml").write_text(PYPROJECT)
    (root / "constraints.txt").write_text(CONSTRAINTS)
    index.mkdir()
    tools.mkdir()
    for name in ("git", "g++"):
        (tools / name).symlink_to("/bin/true")
    write_wheel(index, "torch", "2.13.0", CUDA)
    write_wheel(index, "numbers_package", "1.5")
    write_wheel(index, "numbers_package", "1.6")
    write_wheel(index, "gpu_package", "1.0")
    write_wheel(index, "torchvision", "0.28.0", CUDA)
    write_wheel(index, "unsloth", "1.0", ("certifi>=2099",))
    environment = {
        "PATH": str(tools),
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "TUNESMITH_TORCH": "cpu",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(index),
    }
    project = Project(root, index, environment)
    project.lock()
    return project


@pytest.fixture
def compiled(project: Project) -> Project:
    """A project whose llama-cpp-python has been compiled before."""
    compile_llama_cpp(project)
    return project


def compile_llama_cpp(project: Project, **environment: str) -> str:
    """Put a wheel where one that was compiled so is kept; return its folder's name."""
    command = [sys.executable, "-c", "from llama import source; print(source._wheel_folder())"]
    variables = project.environment | environment
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=True)
    folder = Path(done.stdout.strip())
    write_wheel(folder, "llama_cpp_python", "0.3.36")
    return folder.name


def refused(done: subprocess.CompletedProcess[str], pattern: str) -> None:
    assert done.returncode == 1
    assert re.fullmatch(rf"setup: .*{pattern}.*\n", done.stderr), done.stderr


@pytest.mark.parametrize("version", [(3, 10), (3, 13)])
def test_another_python_is_refused(project: Project, version: tuple[int, int]) -> None:
    pretend = f"import sys; sys.version_info = ({version[0]}, {version[1]}, 0, 'final', 0)"
    done = project.setup(before=pretend)
    refused(done, rf"Python {version[0]}\.{version[1]} does not fit, 3.11 and 3.12 do: apt-get install python3.11-venv")
    assert not (project.root / ".venv").exists()


def test_python_without_venv_names_the_package(project: Project) -> None:
    done = project.setup(before="import importlib.util as u; u.find_spec = lambda name: None")
    refused(done, r"lacks its venv module: apt-get install python3\.1[12]-venv")


def test_a_copy_that_is_no_git_repository_is_refused_before_any_work(project: Project) -> None:
    done = project.setup("--extras", "pipeline", deps_only=False)
    refused(done, "is no git repository, without which DVC does nothing: `git clone` the project, or make this copy")
    assert not (project.root / ".venv").exists()


def test_missing_compiler_is_said_before_any_work(project: Project, tmp_path: Path) -> None:
    (tmp_path / "tools" / "g++").unlink()
    refused(project.setup("--extras=pipeline"), r"no C\+\+ compiler .*: apt-get install g\+\+ make")
    assert not (project.root / ".venv").exists()


def test_missing_git_is_said_before_any_work(project: Project, tmp_path: Path) -> None:
    (tmp_path / "tools" / "git").unlink()
    refused(project.setup("--extras=pipeline"), "git is missing: apt-get install git")


def test_unknown_choice_of_torch_names_the_choices(project: Project) -> None:
    done = project.setup("--extras=pipeline", TUNESMITH_TORCH="rocm")
    refused(done, "TUNESMITH_TORCH=rocm is not known; it may be auto, cpu or cuda")


def test_a_folder_that_is_no_environment_is_left_alone(project: Project) -> None:
    done = project.setup("--venv=scripts")
    refused(done, "is not a virtual environment; name another folder")
    assert (project.root / "scripts" / "setup.py").is_file()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a CUDA build")
def test_torch_that_brings_cuda_is_refused_without_a_gpu(project: Project) -> None:
    done = project.setup("--extras=pipeline")
    refused(done, r"no CPU build of torch 2\.13\.0 for CPython .*wheels/.*TUNESMITH_TORCH=cuda")
    assert project.installed() == set()


def test_everything_is_installed_in_the_locked_versions_and_once(compiled: Project) -> None:
    write_wheel(compiled.root / "wheels", "torch", "2.13.0+cpu")

    first = compiled.setup("--extras=pipeline")
    assert first.returncode == 0, first.stderr
    assert [line[:3] for line in first.stdout.splitlines()] == ["1/4", "2/4", "3/4", "4/4"]
    assert compiled.installed() == {"torch-2.13.0+cpu", "llama_cpp_python-0.3.36", "numbers_package-1.5"}

    second = compiled.setup("--extras=pipeline")
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")


def test_a_file_that_the_lock_does_not_know_is_not_installed(compiled: Project) -> None:
    write_wheel(compiled.index, "numbers_package", "1.5", ("gpu-package",))  # another one of the same version
    (compiled.root / "pyproject.toml").write_text(PYPROJECT.replace('36"', '36", "numbers-package"'))
    done = compiled.setup("--extras=")
    assert done.returncode == 1
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert compiled.installed() == {"llama_cpp_python-0.3.36"}
    (compiled.root / "hashes.txt").write_text("")
    refused(compiled.setup("--extras="), "hashes.txt has no hash of numbers.package==1.5: `make lock`")
    (compiled.root / "hashes.txt").unlink()
    refused(compiled.setup("--extras="), "hashes.txt is missing: restore it with `git checkout hashes.txt`")


def test_what_is_in_no_lock_is_told(compiled: Project) -> None:
    (compiled.root / "pyproject.toml").write_text(PYPROJECT.replace('36"', '36", "gpu-package"'))
    done = compiled.setup("--extras=")
    assert "    in no lock, so without a known hash: gpu-package==1.0\n" in done.stdout.replace("_", "-")


def test_every_locked_version_has_hashes() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    locked = {line for line in lines if not line.startswith("#")}
    blocks = re.findall(
        r"^(\S+==\S+) \\\n    --hash=sha256:[0-9a-f]{64}", (ROOT / "hashes.txt").read_text(), re.MULTILINE
    )
    assert len(locked) > 200
    assert set(blocks) == locked, "`make lock`"


def test_cuda_is_installed_where_it_is_asked_for(compiled: Project) -> None:
    for name in ("nvidia_cudnn_cu13", "triton"):
        write_wheel(compiled.index, name, "3.0")
    done = compiled.setup("--extras=pipeline", TUNESMITH_TORCH="cuda")
    assert done.returncode == 0, done.stderr
    assert {"torch-2.13.0", "triton-3.0", "nvidia_cudnn_cu13-3.0", "gpu_package-1.0"} <= compiled.installed()


def test_unsloth_comes_unresolved_and_on_a_cpu_without_torchvision(compiled: Project) -> None:
    write_wheel(compiled.root / "wheels", "torch", "2.13.0+cpu")
    assert compiled.setup("--extras=pipeline,unsloth").returncode == 0
    assert "unsloth-1.0" in compiled.installed()
    assert not any(name.startswith(("torchvision", "certifi", "gpu_package")) for name in compiled.installed())


def test_a_failed_set_up_goes_on_where_it_stopped(compiled: Project) -> None:
    write_wheel(compiled.root / "wheels", "torch", "2.13.0+cpu")
    (compiled.index / "numbers_package-1.5-py3-none-any.whl").rename(compiled.index / "hidden")

    stopped = compiled.setup("--extras=pipeline")
    assert stopped.returncode == 1
    assert re.fullmatch(r"setup: this step failed, .*setup\.log.*", stopped.stderr.splitlines()[-1])

    (compiled.index / "hidden").rename(compiled.index / "numbers_package-1.5-py3-none-any.whl")
    shutil.rmtree(compiled.root / "wheels")  # torch is there by now
    assert compiled.setup("--extras=pipeline").returncode == 0
    assert "numbers_package-1.5" in compiled.installed()


def test_a_changed_lock_is_installed(compiled: Project) -> None:
    assert compiled.setup("--extras=").returncode == 0
    (compiled.root / "pyproject.toml").write_text(PYPROJECT.replace("36", '36", "numbers-package'))
    (compiled.root / "constraints.txt").write_text(CONSTRAINTS.replace("1.5", "1.6"))
    compiled.lock()
    assert compiled.setup("--extras=").returncode == 0
    assert "numbers_package-1.6" in compiled.installed()


def test_a_llama_cpp_of_other_kernels_takes_the_place_of_the_one_that_was_there(compiled: Project) -> None:
    origin = ".venv/lib/python*/site-packages/llama_cpp_python-*.dist-info/direct_url.json"
    assert compiled.setup("--extras=").returncode == 0
    (before,) = compiled.root.glob(origin)
    kind = compile_llama_cpp(compiled, LLAMA_VARIANTS="all")
    assert kind not in before.read_text()
    source = compiled.root / "llama" / "source.py"
    source.write_text(source.read_text() + "\n")  # an update of the project
    assert compiled.setup("--extras=", LLAMA_VARIANTS="all").returncode == 0
    (after,) = compiled.root.glob(origin)
    assert kind in after.read_text()


def test_an_unknown_choice_of_variants_names_the_choices(project: Project) -> None:
    refused(project.setup("--extras=", LLAMA_VARIANTS="many"), "LLAMA_VARIANTS=many is not known; it may be few or all")


def test_a_broken_environment_is_made_again(compiled: Project) -> None:
    assert compiled.setup("--extras=").returncode == 0
    for python in (compiled.root / ".venv" / "bin").glob("python*"):
        python.unlink()
    assert compiled.setup("--extras=").returncode == 0
    assert compiled.installed() == {"llama_cpp_python-0.3.36"}


def test_unknown_extra_names_those_there_are(compiled: Project) -> None:
    refused(compiled.setup("--extras=pipelin"), "no extra pipelin in pyproject.toml; it has pipeline")


def test_a_dependency_can_be_left_out_and_come_later(compiled: Project) -> None:
    (compiled.root / "pyproject.toml").write_text(PYPROJECT.replace("36", '36", "numbers-package'))
    assert compiled.setup("--extras=", "--without=numbers-package").returncode == 0
    assert compiled.installed() == {"llama_cpp_python-0.3.36"}
    assert compiled.setup("--extras=").returncode == 0
    assert "numbers_package-1.5" in compiled.installed()
    done = compiled.setup("--extras=", "--without=page")
    refused(done, "page is no dependency in pyproject.toml, which names llama-cpp-python, numbers-package")
