"""What all rounds of turns share: a repository with a champion and feedback, and the turn that nothing is done to."""

import json
import shutil
import sqlite3
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaos_bench import copied
from chaos_process import ChaosError, Watched, environment, run, tail
from said import keep
from taste import votes

VISITORS = 80
SETTINGS = (
    "model=starter-s",
    "runtime.device=cpu",
    "tracking.system_metrics=false",
    "train.max_steps=6",
    "train.save_steps=2",
    "train.eval_steps=6",
    "train.effective_batch=8",
    "export.quantizations=[Q8_0]",
    "export.base=[]",
    "data.questions=null",
    "evaluate.general={statements: null, transcripts: null}",
    "evaluate.max_rows=40",
    "evaluate.gate.min_rows=20",
    "evaluate.max_new_tokens=8",
    "evaluate.prompts=[What is 5 + 6?]",
)
# Few updates move much here, and nothing is asked but whether what visitors like became likelier.
TURN = (
    "train.max_steps=12",
    "train.lr=1e-3",
    "train.effective_batch=8",
    "train.preference={replay: 0.1, nll_weight: 0.0}",
    "evaluate.gate.min_gain=-100",
    "evaluate.gate.max_quantization_loss=100",
    "compare.margin={loss: 100, accuracy: 1}",
    "compare.level=0.3",
)


class TurnStart(Watched):
    """One `tunesmith turn` with all that it starts."""

    name, whole = "the turn", "all"

    def __init__(self, repository: Path, log: Path, environment: dict[str, str]) -> None:
        """Starts it; it writes to `log`."""
        super().__init__(["-m", "pipeline", "turn", *TURN], repository, log, environment)

    def struck(self, target: str) -> int | None:
        """The command's process, which leads its session."""
        return self.process.pid


@dataclass(frozen=True)
class Outcome:
    """What a turn has left: nothing of the clock, and no number that a registry counts up."""

    champion: str  # SHA-256 of its GGUF
    start: str  # of the adapter that it went on from
    rows: str
    records: frozenset[str]
    kept: dict[str, str]  # what the server's folder has
    promoted: bool


class TurnBench:
    """A repository with a champion and feedback, and how its turn goes when nothing is done to it."""

    def __init__(self, folder: Path) -> None:
        """Trains and promotes a first model, lets visitors say something, takes a turn.

        Raises:
            ChaosError: that does not end well, or promotes nothing.
        """
        self.folder = folder
        self.template, self.repository = folder / "template", folder / "repository"  # the registry knows its place
        self.environment = environment(folder, sys.executable)
        copied(self.repository)
        for arguments in (("adopt", *SETTINGS), ("repro",), ("promote", "--force")):
            run(self.repository, self.environment, "pipeline", *arguments)
        keep(self.repository / "feedback", *votes(VISITORS))
        self.repository.rename(self.template)
        self.first = champion_of(self.template)
        self.seconds = self.take_turn()
        self.usual = self.outcome()
        if not self.usual.promoted or self.usual.champion == self.first:
            raise ChaosError(f"the undisturbed turn promotes nothing:\n{tail(folder / 'undisturbed.log')}")

    def restore(self) -> Path:
        """The repository as it was before the turn."""
        shutil.rmtree(self.repository, ignore_errors=True)
        shutil.copytree(self.template, self.repository, symlinks=True)
        return self.repository

    def take_turn(self) -> float:
        """Takes a turn with nothing done to it; how long it took."""
        log, began = self.folder / "undisturbed.log", time.monotonic()
        with TurnStart(self.restore(), log, self.environment) as start:
            if status := start.end():
                raise ChaosError(f"the undisturbed turn ends with {status}:\n{tail(log)}")
        return time.monotonic() - began

    def outcome(self) -> Outcome:
        """What the turn in the repository has left."""
        turn = self.record()
        learnt = json.loads((self.repository / f"data/learnt/{turn['rows']}.json").read_text(encoding="utf-8"))
        return Outcome(
            champion=champion_of(self.repository),
            start=turn["start_digest"],
            rows=turn["rows"],
            records=frozenset(learnt["records"]),
            kept={path.name: path.read_text(encoding="utf-8") for path in self.repository.glob("feedback/*.jsonl")},
            promoted=turn["promoted"],
        )

    def record(self) -> dict[str, Any]:
        """reports/turn.json."""
        found: dict[str, Any] = json.loads((self.repository / "reports/turn.json").read_text(encoding="utf-8"))
        return found


def champion_of(repository: Path) -> str:
    """The SHA-256 that the champion's version is tagged with: MLflow takes seconds to import."""
    query = """
        select tags.value from registered_model_aliases as aliases join model_version_tags as tags
        on tags.name = aliases.name and tags.version = aliases.version where alias = 'champion' and key = 'sha256'
    """
    with closing(sqlite3.connect(repository / "mlflow.db")) as database:
        ((digest,),) = database.execute(query).fetchall()
    return str(digest)
