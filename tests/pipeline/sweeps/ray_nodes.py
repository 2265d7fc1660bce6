"""A sweep on a Ray cluster of two machines, of which one is lost in the middle of a rung; as root, with Ray installed.

    make ray-sweep

The machines are network namespaces, each with a raylet, and share this disk. The ranking must be the one of the same
sweep in one process.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[3]
NODES = {"tunesmith-a": "10.77.13.1", "tunesmith-b": "10.77.13.2"}
HEAD, OTHER = NODES
PORT = 6399
RAY = (sys.executable, "-c", "import sys; from ray.scripts.scripts import main; sys.exit(main())")
SWEEP = (
    *(sys.executable, "-m", "pipeline.stages.train", "-m", "hydra/sweeper=halving", "model=starter-s"),
    *("train.lr=1e-3,2e-3,4e-3,8e-3", "train.save_steps=4", "tracking=none"),
    *("hydra.sweeper.min_steps=20", "hydra.sweeper.max_steps=40"),
)
ON_RAY = (
    *("runtime=ray", "hydra.launcher.remote.num_gpus=0", f"hydra.launcher.init.address={NODES[HEAD]}:{PORT}"),
    f"+hydra.launcher.init._node_ip_address={NODES[HEAD]}",
)
ENVIRONMENT = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
LONG = 600  # seconds after which something hangs


def main() -> None:
    """Run both sweeps and compare them."""
    with tempfile.TemporaryDirectory(prefix="tunesmith-ray-") as name, nodes():
        folder = Path(name)
        project(folder)
        run(sys.executable, "-m", "pipeline.stages.prepare", "model=starter-s", cwd=folder)
        run(*SWEEP, "hydra.sweeper.name=alone", cwd=folder)
        with cluster():
            lose_a_node(folder)
        alone, on_ray = ranking(folder / "sweeps/alone"), ranking(folder / "sweeps/on-ray")
        again = [log.parent.parent.name for log in folder.glob("sweeps/on-ray/*/*/log.txt") if resumed(log)]
    print(f"alone:  {alone}\non Ray: {on_ray}\nwent on from a checkpoint within a rung: trials {', '.join(again)}")
    assert alone == on_ray
    assert again
    print("the same ranking")


def resumed(log: Path) -> bool:
    """Return whether a job was cut off in its rung and went on: it has said twice where it begins."""
    said = log.read_text(encoding="utf-8")
    return "resuming from" in said and said.count("before training") + said.count("resuming from") > 1


def project(folder: Path) -> None:
    """Make a working folder: the project's code, and data of its own."""
    for name in ("common", "conf", "hydra_plugins", "llama", "pipeline", "starter"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "data/raw").mkdir(parents=True)


def run(*command: str, cwd: Path) -> None:
    """Run a command that must end well."""
    done = subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=LONG, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def lose_a_node(folder: Path) -> None:
    """Run the sweep on the cluster, and kill all of the second machine once both train."""
    command = ("ip", "netns", "exec", HEAD, *SWEEP, *ON_RAY, "hydra.sweeper.name=on-ray")
    with subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as sweep:
        checkpoints = folder / ".checkpoints/sweeps/on-ray"
        until(lambda: sweep.poll() is not None or len({each.parent for each in checkpoints.glob("*/checkpoint-*")}) > 1)
        assert sweep.poll() is None, sweep.communicate()[0]
        lost = processes(OTHER)
        print(f"both machines train; killing the {len(lost)} processes of one", flush=True)
        for process in lost:
            os.kill(process, signal.SIGKILL)
        out, _ = sweep.communicate(timeout=LONG)
        print(out)
        assert sweep.returncode == 0


def until(happened: "object") -> None:
    """Wait for something."""
    assert callable(happened)
    end = time.monotonic() + LONG
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.1)


def ranking(sweep: Path) -> list[tuple[float, str]]:
    """Return the losses of all jobs, best first."""
    outcomes = {path.parent.relative_to(sweep): json.loads(path.read_text()) for path in sweep.glob("*/*/outcome.json")}
    return sorted((outcome["validation_loss"], str(job)) for job, outcome in outcomes.items())


@contextmanager
def cluster() -> Iterator[None]:
    """Start Ray's head on the first machine and a worker's node on the second, each with room for one job."""
    inside = ("--num-cpus=1", "--num-gpus=0", "--disable-usage-stats", "--object-store-memory=80000000")
    start = ("--head", f"--port={PORT}", "--include-dashboard=false"), (f"--address={NODES[HEAD]}:{PORT}",)
    try:
        for (name, address), how in zip(NODES.items(), start, strict=True):
            command = ("ip", "netns", "exec", name, *RAY, "start", *how, f"--node-ip-address={address}", *inside)
            run(*command, cwd=Path.cwd())
        yield
    finally:
        for name in NODES:
            for process in processes(name):
                os.kill(process, signal.SIGKILL)


def processes(name: str) -> list[int]:
    """Return the processes of a machine."""
    listed = subprocess.run(("ip", "netns", "pids", name), capture_output=True, text=True, check=True).stdout
    return [int(process) for process in listed.split()]


@contextmanager
def nodes() -> Iterator[None]:
    """Make two network namespaces with a cable between them."""
    head, other = NODES
    cable = (
        *(("ip", "netns", "add", name) for name in NODES),
        ("ip", "link", "add", "end-a", "netns", head, "type", "veth", "peer", "name", "end-b", "netns", other),
    )
    try:
        for command in cable:
            run(*command, cwd=Path.cwd())
        for (name, address), end in zip(NODES.items(), ("end-a", "end-b"), strict=True):
            run("ip", "-n", name, "address", "add", f"{address}/24", "dev", end, cwd=Path.cwd())
            for device in ("lo", end):
                run("ip", "-n", name, "link", "set", device, "up", cwd=Path.cwd())
        yield
    finally:
        for name in NODES:
            subprocess.run(("ip", "netns", "delete", name), check=False)


if __name__ == "__main__":
    main()
