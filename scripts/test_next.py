"""Runs the tests with the next versions of what the project is built on, before they are what pip installs.

    make test-next                                     the whole suite
    make test-next PYTEST_ARGS="-k compose"            a part of it

In a virtual environment of its own, .cache/next-venv: everything as locked, then the newest of NEXT over it,
unresolved, since they often do not admit one another yet; what they ask for besides follows. Ends with the versions
taken, what does not fit together, and the tests that broke by the error that they broke with. The status is 0 where
nothing broke.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

import setup

# What is tried, and whether before its release: a release candidate of Hydra's has been the next one for long.
NEXT = {"hydra-core": True, "huggingface-hub": False, "transformers": False, "peft": False, "trl": False}
FOLDER = setup.ROOT / ".cache" / "next-venv"
ROUNDS = 3  # of what the next ones ask for, and these in turn
UNMET = re.compile(r"(?P<by>\S+) \S+ (?:has requirement|requires) (?P<need>.+?), (?:but you have|which is not)")
ERROR = re.compile(r"\b((?:\w+\.)*\w*(?:Error|Exception|Warning): .+)")


def main() -> int:
    """Make the environment, brings it forward, run the tests, tell."""
    venv = setup.Venv(FOLDER)
    try:
        make(venv)
    except setup.SetupError as error:
        print(f"test-next: {error}", file=sys.stderr)
        return 2
    failed = bring_forward(venv)
    status, broken = run_tests(venv, sys.argv[1:])
    print("\n".join(told(versions(venv), failed, check(venv), broken)))
    return status or bool(failed)


def make(venv: setup.Venv) -> None:
    """Install everything as locked, once: what was brought forward over an older lock goes back first."""
    digest = setup.lock_digest("next")
    if venv.is_ready(digest):
        return
    setup.step(1, f"virtual environment in {venv.folder}")
    venv.make()
    setup.install_torch(venv)
    setup.install_llama_cpp(venv)
    setup.install_packages(venv, ["pipeline", "dev"], deps_only=True)
    venv.stamp.write_text(digest)


def bring_forward(venv: setup.Venv) -> dict[str, str]:
    """Install the newest of NEXT, then what these need and have not.

    Returns:
        What cannot be installed, and pip's reason.
    """
    requests = [[*(["--pre"] if early else []), "--upgrade", name] for name, early in NEXT.items()]
    failed = {request[-1]: reason for request in requests if (reason := install(venv, request))}
    brought = set(NEXT)
    for _ in range(ROUNDS):
        unmet = [match for line in check(venv) if (match := UNMET.match(line)) and match["by"].lower() in brought]
        needs = {name(match["need"]): match["need"] for match in unmet if name(match["need"]) not in brought}
        if not needs:
            break
        failed |= {need: reason for need in needs.values() if (reason := install(venv, [need]))}
        brought |= set(needs)
    return failed


def install(venv: setup.Venv, request: list[str]) -> str:
    """Have pip install a package alone, whatever others think of it; its reason where it cannot, else nothing."""
    print(f"installing {request[-1]}", flush=True)
    options = ["--quiet", "--no-input", "--disable-pip-version-check", "--no-deps", *setup.find_links()]
    done = run(venv, "pip", "install", *options, *request)
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
    return (errors or [f"ERROR: pip ended with {done.returncode}"])[0] if done.returncode else ""


def check(venv: setup.Venv) -> list[str]:
    """Return what pip sees in the environment that does not fit together, a line each."""
    return run(venv, "pip", "check").stdout.splitlines()


def versions(venv: setup.Venv) -> list[tuple[str, str, str]]:
    """Return the packages that are here in another version than the lock's: name, that one, this one."""
    locked = dict(re.findall(r"^(\S+?)==(\S+)", setup.CONSTRAINTS.read_text(), re.MULTILINE))
    here = [line.split("==") for line in run(venv, "pip", "freeze").stdout.splitlines() if "==" in line]
    held = {name(package): version for package, version in locked.items()}
    return [
        (name(package), held.get(name(package), "none"), version)
        for package, version in here
        if name(package) in NEXT or held.get(name(package)) != version.partition("+")[0]
    ]


def name(requirement: str) -> str:
    """Return a package's name as NEXT has it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement, maxsplit=1)[0]).lower()


def run(venv: setup.Venv, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Return one of the environment's modules, its output caught."""
    return subprocess.run([venv.python, "-m", module, *arguments], capture_output=True, text=True, check=False)


def run_tests(venv: setup.Venv, arguments: list[str]) -> tuple[int, dict[str, list[str]]]:
    """Run pytest with the checkout's code, which is not installed there.

    Returns:
        Its status, and the tests that broke by error.
    """
    paths = {"PATH": f"{venv.folder / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(setup.ROOT)}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [str(venv.python), "-m", "pytest", f"--junitxml={report}", *arguments]
        status = subprocess.run(command, cwd=setup.ROOT, env=os.environ | paths, check=False).returncode
        return status, broken_tests(report) if report.exists() else {}


def broken_tests(report: Path) -> dict[str, list[str]]:
    """Return the tests of a JUnit report that failed, by the line that says why."""
    broken = defaultdict(list)
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314 -- pytest has just written it
        for failure in (*case.iter("failure"), *case.iter("error")):
            test = f"{case.get('classname', '').replace('.', '/')}::{case.get('name')}"
            broken[reason(failure.get("message", ""), failure.text or "")].append(test)
    return broken


def reason(message: str, text: str) -> str:
    """Return the error behind a failure.

    The last that its text names, where the message only says that two things differ.
    """
    first = (message.splitlines() or ["no message"])[0]
    named = [error for error in ERROR.findall(text) if not error.startswith("AssertionError")]
    return (named[-1] if named and first.startswith(("AssertionError", "assert")) else first)[:200]


def told(
    taken: list[tuple[str, str, str]], failed: dict[str, str], conflicts: list[str], broken: dict[str, list[str]]
) -> list[str]:
    """Return the table at the end."""
    lines = ["", f"{'package':<24}{'locked':<14}next"]
    lines += [f"{package:<24}{locked:<14}{'the same' if here == locked else here}" for package, locked, here in taken]
    lines += [f"not installed: {package}: {why}" for package, why in failed.items()]
    lines += [f"does not fit: {line}" for line in conflicts if UNMET.match(line)]
    for error, tests in sorted(broken.items(), key=lambda item: -len(item[1])):
        lines += [f"{len(tests)} broke: {error}", *(f"    {test}" for test in tests)]
    return lines if broken else [*lines, "nothing broke"]


if __name__ == "__main__":
    sys.exit(main())
