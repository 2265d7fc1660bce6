"""Prepared chats become an adapter: LoRA through TRL's trainer, loss on what the assistant says, resumable.

dvc repro train                                            # as a stage
python -m pipeline.train -m train.lr=1e-4,2e-4,5e-4        # a sweep, each job in its own folder
torchrun --nproc-per-node 8 -m pipeline.train              # processes started from outside
"""

import json
from pathlib import Path

import hydra

from pipeline.config import Config
from pipeline.data.prepared import require_prepared
from pipeline.gguf.preflight import preflight
from pipeline.launch import launch, rank, workers_wanted
from pipeline.stage import stage

ADAPTER = Path("models/adapter")
REPORT = Path("reports/train.json")
CURVE = Path("reports/loss.csv")


@hydra.main(version_base="1.3", config_path="../conf", config_name="config")
@stage
def main(config: Config, out: Path) -> float:
    """Trains, writes models/adapter and its reports below `out`, returns the validation loss."""
    if rank() == 0:
        require_prepared(config.data)
    processes = workers_wanted(config.runtime)
    if processes > 1:
        launch(config, out, processes)
        return json.loads((out / REPORT).read_text(encoding="utf-8"))["validation_loss"]
    with preflight(config.model, config.train.check_export) as require_exportable:
        # What trains takes seconds to import, and none of it is needed to start the processes that do.
        from pipeline.training.part import take_part

        return take_part(config, require_exportable, out / ADAPTER, out / REPORT, out / CURVE)


if __name__ == "__main__":
    main()
