"""Prepared chats become an adapter: LoRA through TRL's trainer, loss on what the assistant says, resumable.

dvc repro train                                         # as a stage
tunesmith train -m train.lr=1e-4,2e-4,5e-4              # a sweep, each job in its own folder
torchrun --nproc-per-node 8 -m pipeline.stages.train    # processes started from outside
"""

from pipeline.workers.process import prepare_process

if __name__ == "__main__":  # before libraries are loaded
    prepare_process()

from pathlib import Path

from common.imports import importing
from pipeline.core.config import Config
from pipeline.core.paths import ADAPTER, LOSS_CURVE, TRAIN_REPORT
from pipeline.core.records import TrainReport
from pipeline.data.prepared import require_prepared
from pipeline.gguf.preflight import preflight
from pipeline.stages.run import stage
from pipeline.workers.gpus import claim_gpu
from pipeline.workers.launcher import launch, workers_wanted
from pipeline.workers.ranks import rank


def run(config: Config, out: Path) -> float | None:
    """Train, write models/adapter and its reports below `out`, return the validation loss."""
    if rank() == 0:
        require_prepared(config.data)
    processes = workers_wanted(config.runtime)
    if processes > 1:
        launch(config, out, processes)
        return TrainReport.read(out / TRAIN_REPORT).validation_loss
    claim_gpu(config.runtime)
    with preflight(config.model, config.train.check_export) as require_exportable:
        # What trains takes seconds to import, and none of it is needed to start the processes that do.
        with importing():
            from pipeline.training.worker import run_worker

        return run_worker(config, require_exportable, out / ADAPTER, out / TRAIN_REPORT, out / LOSS_CURVE)


main = stage(run)

if __name__ == "__main__":
    main()
