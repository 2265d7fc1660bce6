"""CPU, memory, disk, network and GPUs while a stage runs: MLflow's figures, by way of the journal as all others.

MLflow's own monitor tells them to a server, and ends for good where that does not answer once.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from pipeline.tracking.delivery import brief, warn

if TYPE_CHECKING:  # two seconds of import
    from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor

THREAD = "system metrics"
PREFIX = "system/"  # by which MLflow's page knows them
LAST_WORDS = 5.0  # seconds that the end of a stage waits for the last reading


@contextmanager
def sampled(record: Callable[[dict[str, float]], None], seconds: float) -> Iterator[None]:
    """Record figures every so many seconds while the block runs; where they cannot be read, it is said once."""
    try:
        sources = monitors()
        read(sources)  # what comes next is counted from here
    except Exception as error:  # a container may hide any of them, and no stage fails for it
        sources = []
        warn(f"MLflow gets no system metrics ({brief(error)})")
    ending = threading.Event()
    thread = threading.Thread(target=_sample, args=(sources, record, seconds, ending), name=THREAD, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join(LAST_WORDS)


def _sample(
    sources: list["BaseMetricsMonitor"],
    record: Callable[[dict[str, float]], None],
    seconds: float,
    ending: threading.Event,
) -> None:
    while sources and not ending.wait(seconds):
        try:
            record(read(sources))
        except Exception as error:  # of a full disk, too, which the stage's own next line will say
            warn(f"MLflow gets no more system metrics of this stage ({brief(error)})")
            return


def monitors() -> list["BaseMetricsMonitor"]:
    """Return MLflow's readers of this machine's figures; of GPUs where there are any and nvidia-ml-py is installed."""
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    found: list[BaseMetricsMonitor] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    with suppress(ImportError, RuntimeError):
        found.append(GPUMonitor())
    return found


def read(sources: list["BaseMetricsMonitor"]) -> dict[str, float]:
    """Return figures as they are now, or in the mean since they were read last, under MLflow's names."""
    figures: dict[str, float] = {}
    for source in sources:
        source.collect_metrics()
        figures |= {f"{PREFIX}{name}": value for name, value in source.aggregate_metrics().items()}
        source.clear_metrics()
    return figures
