"""What all rounds of one harness share: prepared data, and the training that nothing is done to."""

import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import yaml
from chaos_process import POLL, ChaosError, Start, environment, run, step_of, tail

REPO = Path(__file__).parents[2]
# What the stage needs of this project; no result of an earlier run is among it.
NEEDED = (
    ".dvc", ".dvcignore", ".gitignore", "common", "conf", "data", "dvc.yaml", "hydra_plugins", "llama", "models",
    "params.yaml", "pipeline", "starter",
)  # fmt: skip
# A second or five of training, of which every update is told from another: dropout draws random numbers, two backward
# passes make one update, the last one of an epoch is smaller, checkpoints come at no epoch's end, and an
# update too many would count: the rate does not fall to nothing.
SETTINGS = (
    "model=starter-s",
    "tracking=none",
    "runtime.device=cpu",
    "data.max_rows=76",
    "data.validation=8",
    "data.test=8",
    "train.lora.r=8",
    "train.lora.dropout=0.1",
    "train.batch_size=4",
    "train.effective_batch=16",
    "train.gradient_accumulation_steps=2",
    "train.max_steps=36",
    "train.save_steps=5",
    "train.eval_steps=12",
    "train.logging_steps=1",
    "train.scheduler=constant_with_warmup",
)
ADAPTER = Path("models/adapter/adapter_model.safetensors")
CURVE = Path("reports/loss.csv")


@dataclass(frozen=True)
class Undisturbed:
    """What the training gives when nothing is done to it, and how long what follows each moment takes."""

    adapter: bytes
    curve: str
    checkpoint_bytes: int
    seconds: dict[str, float]


class Bench:
    """What all rounds share: a repository with prepared data, how it is run, and its undisturbed training."""

    def __init__(self, folder: Path, interpreter: str, engine: str, settings: list[str]) -> None:
        """Prepares the data and trains once.

        Raises:
            ChaosError: that does not end well.
        """
        self.folder = folder
        self.interpreter = interpreter
        self.settings = [*SETTINGS, f"train.engine={engine}", *settings]
        self.template = self.prepare(folder / "template")
        train = yaml.safe_load((self.template / "params.yaml").read_text(encoding="utf-8"))["train"]
        self.steps, self.save_steps = train["max_steps"], train["save_steps"]
        if train["logging_steps"] != 1:
            raise ChaosError("train.logging_steps is not 1; a round has to see every update")
        self.usual = self.measure(folder / "undisturbed")

    def environment(self, mark: Path) -> dict[str, str]:
        """That of all processes of one round."""
        return environment(mark, self.interpreter)

    def prepare(self, template: Path) -> Path:
        """A repository of this project's files, as they are now, with prepared data and nothing trained."""
        copied(template)
        run(template, self.environment(self.folder), "pipeline", "adopt", *self.settings)
        run(template, self.environment(self.folder), "dvc", "repro", "prepare")
        return template

    def measure(self, folder: Path) -> Undisturbed:
        """Trains with nothing done to it."""
        repository, log = folder / "repository", folder / "start-1.log"
        shutil.copytree(self.template, repository, symlinks=True)
        with Start(repository, repository / ".checkpoints", log, self.environment(folder)) as start:
            seen = watch(start)
            if start.end() or start.steps() != [*range(1, self.steps + 1)]:
                raise ChaosError(
                    f"the undisturbed training does not end well, or not every update has its line:\n{tail(log)}"
                )
        update = (seen[f"step {self.steps}"] - seen["step 1"]) / (self.steps - 1)
        saves = [seen[f"saved {step}"] - seen[f"save {step}"] for step in range(self.steps) if f"save {step}" in seen]
        newest = max(repository.glob(".checkpoints/*/checkpoint-*"), key=step_of)
        return Undisturbed(
            adapter=(repository / ADAPTER).read_bytes(),
            curve=(repository / CURVE).read_text(encoding="utf-8"),
            checkpoint_bytes=sum(path.stat().st_size for path in newest.iterdir()),
            seconds={
                "start": seen["trainer"],
                "imports": seen["step 1"] - seen["trainer"],
                "step": update,
                "save": mean(saves) if saves else update,
                "saved": update,
                "finish": (seen["end"] - seen[f"step {self.steps}"]) / 2,  # what comes later comes too late too often
            },
        )


def copied(template: Path) -> Path:
    """A repository of this project's files, as they are now."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *NEEDED],
        cwd=REPO, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (REPO / name).is_file():
            (template / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPO / name, template / name)
    subprocess.run(["git", "init", "-q", "-b", "main"], cwd=template, check=True)
    return template


def watch(start: Start) -> dict[str, float]:
    """Seconds until the trainer, each update, each checkpoint and its completion were first seen; until DVC ends."""
    began = time.monotonic()
    seen: dict[str, float] = {}
    while start.alive():
        events = [f"step {step}" for step in start.steps()]
        if "trainer" not in seen and start.trainer() is not None:
            events.append("trainer")
        if newest := start.newest_checkpoint():
            events.append(f"{'saved' if newest[1] else 'save'} {newest[0]}")
        for event in events:
            seen.setdefault(event, time.monotonic() - began)
        time.sleep(POLL)
    return seen | {"end": time.monotonic() - began}
