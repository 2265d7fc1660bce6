"""What a machine and a workspace have and lack for `dvc repro`, a line each; nothing is changed.

tunesmith doctor
"""

import importlib.metadata
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable
from pathlib import Path

from common.errors import UserError
from common.words import counted
from pipeline.commands import doctor_containers
from pipeline.commands.finding import Finding, Status, note, ok, problem
from pipeline.commands.identity import SIGN, has_identity
from pipeline.containers.cards import NVIDIA

FITTING = ("3.11", "3.12")  # as scripts/setup.py and pyproject.toml have it
NEEDED = ("conf/config.yaml", "dvc.yaml", ".dvc/config")
LITTLE_DISK, NO_DISK = 10e9, 1e9  # bytes
LITTLE_MEMORY = 4e9  # bytes; as much as one file of the tests takes
PATIENCE = 5.0  # seconds for a server's answer
PORTS = {7860: "the chat", 5000: "MLflow"}


def run() -> int:
    """Print a line for each check; return 1 if one found a problem, else 0."""
    findings = []
    for name, check in CHECKS.items():
        finding = examine(check)
        print(f"{finding.status.value:8} {name:13} {finding}", flush=True)
        findings.append(finding)
    problems = [finding for finding in findings if finding.status is Status.PROBLEM]
    print(f"{counted(len(problems), 'problem')} in the way of `dvc repro`" if problems else "`dvc repro` can run")
    return 1 if problems else 0


def examine(check: Callable[[], Finding]) -> Finding:
    """Return what a check finds; one that cannot be made is a problem, too."""
    try:
        return check()
    except UserError as error:
        return problem(str(error), "")
    except Exception as error:
        message = " ".join(str(error).split())
        return problem(f"this cannot be checked ({type(error).__name__}: {message})", "see the other problems first")


# the environment


def python_version() -> Finding:
    """Look for a Python that the locked versions fit."""
    version, where = platform.python_version(), f"{platform.python_version()} in {sys.prefix}"
    if not version.startswith(tuple(f"{fitting}." for fitting in FITTING)):
        return problem(where, f"{' and '.join(FITTING)} fit; make PYTHON=/path/to/python{FITTING[-1]} setup")
    return ok(where)


def packages() -> Finding:
    """Compare what is installed with pyproject.toml and constraints.txt."""
    missing = missing_of(needs("dependencies") + needs("pipeline"))
    if missing:
        return problem(f"{', '.join(missing)} {'are' if len(missing) > 1 else 'is'} not installed", "make setup")
    locked = locked_versions()
    other = [
        f"{name} {version} ({locked[name]})"
        for name, version in sorted(installed_versions().items())
        if name in locked and version.partition("+")[0] != locked[name]
    ]
    if other:
        what = f"{counted(len(other), 'package')} not at the locked version: {', '.join(other[:5])}"
        return note(what + (" …" if len(other) > 5 else ""), "make clean setup installs what was tested together")
    return ok("as constraints.txt has them")


def needs(group: str) -> list[str]:
    """Return the packages that pyproject.toml names for the server (`dependencies`) or an extra."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = project[group] if group == "dependencies" else project["optional-dependencies"][group]
    return [re.split(r"[^\w.-]", need, maxsplit=1)[0] for need in listed]


def missing_of(names: list[str]) -> list[str]:
    """Return which of some packages are not installed."""
    there = installed_versions()
    return [name for name in names if normal(name) not in there]


def locked_versions() -> dict[str, str]:
    """Return the versions in constraints.txt by package."""
    lines = Path("constraints.txt").read_text(encoding="utf-8").splitlines()
    return {normal(name): version for line in lines for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", line)}


def installed_versions() -> dict[str, str]:
    """Return the versions that this Python finds, by package."""
    return {normal(one.name): one.version for one in importlib.metadata.distributions() if one.name}


def normal(name: str) -> str:
    """Return a package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def compiler() -> Finding:
    """Look for a C++ compiler: of llama.cpp where it is not built yet, and of kernels on a GPU."""
    candidates = os.environ.get("CXX", "").split()[:1] or ["c++", "g++", "clang++"]
    found = next(filter(None, map(shutil.which, candidates)), None)
    if found:
        return ok(found)
    install = "apt-get install g++"
    if missing_of(["llama-cpp-python"]):
        return problem(f"no {', '.join(candidates)}, and llama.cpp is not built yet", install)
    return note("none; llama.cpp is built, but PyTorch compiles its kernels with it on a GPU", install)


def converter() -> Finding:
    """Look for llama.cpp's converter, which export runs."""
    from llama.source import VERSION, cached_tree

    if tree := cached_tree():
        return ok(str(tree))
    return note(f"that of llama-cpp-python {VERSION} is not cached", "the first export fetches it by pip")


# the workspace


def repository() -> Finding:
    """Look for git, and for a repository with DVC in it."""
    if not shutil.which("git"):
        return problem("git is missing", "apt-get install git")
    if absent := [name for name in NEEDED if not Path(name).is_file()]:
        return problem(f"no {', '.join(absent)} in {Path.cwd()}", "go to the folder that has dvc.yaml")
    command = ["git", "rev-parse", "--is-inside-work-tree"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no git repository"])[0]
        return problem(reason.removeprefix("fatal: "), "DVC works in a git repository; git init, or mend that")
    return ok(f"git and DVC in {Path.cwd()}")


def files_of_dvc() -> Finding:
    """Look for files that DVC was killed over."""
    from pipeline.core import dvc_files

    if cut_short := [str(path) for path in dvc_files.damaged()]:
        was = "were" if len(cut_short) > 1 else "was"
        return problem(f"{' and '.join(cut_short)} {was} cut short, as by a kill of DVC", "tunesmith repro")
    return ok("none was cut short")


def identity() -> Finding:
    """Look for the name that git signs commits with, which DVC's experiments are."""
    if has_identity():
        return ok("there is one")
    return note("none, and `dvc exp run` fails once a file of git's has changed", SIGN)


def code() -> Finding:
    """Tell where this command comes from, which may be another copy than the one that the stages run."""
    here, ours = Path("pipeline").resolve(), Path(__file__).resolve().parents[1]
    if here.is_dir() and here != ours:
        return note(f"this command is {ours.parent}'s, and stages run what is here", "python -m pipeline runs this one")
    return ok(str(ours.parent))


def params() -> Finding:
    """Compare params.yaml with what conf/ composes to."""
    from pipeline.core.composition import CONF, compose
    from pipeline.core.config import load
    from pipeline.core.mappings import changed_keys, flatten, plain
    from pipeline.stages.compose import PARAMS, read_params

    composed = compose(CONF)
    load(composed)
    if not PARAMS.is_file():
        return note(f"no {PARAMS} yet", "dvc repro writes it")
    changed = changed_keys(flatten(plain(read_params(PARAMS))), flatten(plain(composed)))
    if changed:
        listed = ", ".join(changed[:5]) + (" …" if len(changed) > 5 else "")
        return note(f"{PARAMS} is not what conf/ composes to ({listed})", "dvc repro writes it anew")
    return ok(f"{PARAMS} is what conf/ composes to")


def inputs() -> Finding:
    """Look for what the configuration names, and for links that lead nowhere, at which DVC stops."""
    from pipeline.core.composition import CONF, compose
    from pipeline.core.config import load
    from pipeline.core.inputs import INPUTS, named

    links = named(load(compose(CONF)))
    lost = [str(path) for path in sorted(INPUTS.rglob("*")) if path.is_symlink() and not path.exists()]
    if lost:
        return problem(f"{', '.join(lost)} {'lead' if len(lost) > 1 else 'leads'} nowhere", "tunesmith compose")
    if absent := [str(INPUTS / name) for name in links if not (INPUTS / name).exists()]:
        return problem(f"no {', '.join(absent)}", "tunesmith compose")
    return ok("all that the configuration names is here")


# the machine


def gpu() -> Finding:
    """Look at the GPUs as PyTorch sees them."""
    import torch

    with warnings.catch_warnings(record=True) as cuda_warnings:
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    build = f"PyTorch {torch.__version__}"
    if count:
        cards = [torch.cuda.get_device_properties(number) for number in range(count)]
        listed = ", ".join(f"{card.name} ({card.total_memory / 1e9:.0f} GB)" for card in cards)
        return ok(f"{listed}; {build}, driver {driver_version()}")
    if not NVIDIA.exists():
        return ok(f"none ({build}); a CPU trains the starter, and small models")
    if torch.version.cuda is None:
        return note(f"{NVIDIA} is there, and {build} is a build for CPUs", "TUNESMITH_TORCH=cuda make clean setup")
    reason = f" ({' '.join(str(cuda_warnings[0].message).split())})" if cuda_warnings else ""
    return note(f"{NVIDIA} is there, and {build} does not see it{reason}", "nvidia-smi says what the driver is")


def driver_version() -> str:
    """Return the version of NVIDIA's driver, as far as nvidia-smi tells it."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return (done.stdout.split() or ["unknown"])[0]


def gpu_packages() -> Finding:
    """Look for what makes training on a GPU faster or smaller."""
    import torch

    if not torch.cuda.is_available():
        return ok("none needed without a GPU")
    if missing := missing_of(needs("gpu")):
        return note(f"without {', '.join(missing)}, training is slower or larger", "pip install -e .[gpu]")
    return ok(", ".join(needs("gpu")))


def disk() -> Finding:
    """Look at the room for checkpoints, GGUF files and DVC's cache."""
    free = shutil.disk_usage(Path.cwd()).free
    what = f"{free / 1e9:.1f} GB free in {Path.cwd()}"
    if free < NO_DISK:
        return problem(what, "make room; tunesmith checkpoints --prune 7d, dvc gc --workspace")
    if free < LITTLE_DISK:
        return note(what, "a 1B model takes 2.5 GB in each 16-bit copy; tunesmith checkpoints --prune 7d makes room")
    return ok(what)


def memory() -> Finding:
    """Look at the memory that is free, within this process's control group."""
    from llama.memory import free_bytes

    free = free_bytes()
    if free is None:
        return ok("the system does not tell how much is free")
    if free < LITTLE_MEMORY:
        return note(f"{free / 1e9:.1f} GB free", "end other programs, or take a smaller model (docs/models.md)")
    return ok(f"{free / 1e9:.1f} GB free")


def ports() -> Finding:
    """Look whether the ports of the chat and of MLflow are free."""
    if taken := [f"{port} ({whose})" for port, whose in PORTS.items() if not is_free(port)]:
        other = "SERVE_PORT is the chat's; MLflow takes another one by `tunesmith mlflow --port 5001`"
        return note(f"{' and '.join(taken)} {'are' if len(taken) > 1 else 'is'} taken", other)
    return ok(f"{' and '.join(map(str, PORTS))} are free")


def is_free(port: int) -> bool:
    """Return whether nobody listens on a port of this machine."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


# what is elsewhere


def hub() -> Finding:
    """Ask the Hugging Face Hub whether it is there."""
    from huggingface_hub import constants

    from pipeline.tracking.delivery import without_login

    if constants.HF_HUB_OFFLINE:
        return ok("not asked (HF_HUB_OFFLINE)")
    shown = without_login(constants.ENDPOINT)
    if reason := unreachable(constants.ENDPOINT):
        return note(f"{shown} does not answer ({reason})", "models and data of this machine need no hub")
    return ok(f"{shown} answers")


def hub_token() -> Finding:
    """Look for a token of the Hugging Face Hub, which is not shown."""
    from huggingface_hub import get_token

    if get_token():
        return ok("there is one (not shown)")
    return note("none; gated models and tunesmith publish want one", "export HF_TOKEN=…")


def mlflow() -> Finding:
    """Ask the MLflow that runs are recorded in, where it is a server."""
    from pipeline.core.composition import CONF, compose
    from pipeline.core.config import load
    from pipeline.tracking.delivery import tracking_uri, without_login

    settings = load(compose(CONF)).tracking
    uri = tracking_uri(settings)
    if not settings.enabled:
        return ok("off (tracking.enabled)")
    if not uri.startswith(("http://", "https://")):
        return ok(uri.partition("://")[0] + (f" ({uri.rpartition('/')[2]})" if uri.startswith("sqlite:") else ""))
    shown = without_login(uri)
    if reason := unreachable(f"{uri.rstrip('/')}/health"):
        kept = "training goes on without it; tunesmith deliver hands over what is kept"
        return note(f"{shown} does not answer ({reason})", kept)
    return ok(f"{shown} answers")


def unreachable(address: str) -> str:
    """Return why a server does not answer at all; empty where it does, be it with a refusal."""
    try:
        with urllib.request.urlopen(address, timeout=PATIENCE):  # noqa: S310 -- http or https
            return ""
    except urllib.error.HTTPError:
        return ""
    except (OSError, ValueError) as error:
        return " ".join(str(getattr(error, "reason", error)).split())


CHECKS: dict[str, Callable[[], Finding]] = {
    "Python": python_version,
    "packages": packages,
    "compiler": compiler,
    "converter": converter,
    "repository": repository,
    "DVC files": files_of_dvc,
    "git identity": identity,
    "code": code,
    "params.yaml": params,
    "inputs": inputs,
    "GPU": gpu,
    "GPU packages": gpu_packages,
    "disk": disk,
    "memory": memory,
    "ports": ports,
    **doctor_containers.CHECKS,
    "Hub": hub,
    "Hub token": hub_token,
    "MLflow": mlflow,
}
