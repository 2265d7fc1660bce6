"""A GPU of its own for each training of one process: claimed before CUDA is initialised, kept until the process ends.

CUDA gives every process the first card that it sees. So two trainings at once, of a sweep's workers or of `dvc queue`,
would share one beside others that idle. Who has been given a single card, by CUDA_VISIBLE_DEVICES, Slurm or Ray, keeps
it. NVML is asked for the cards: PyTorch may initialise CUDA, which reads that variable only then.
"""

import ctypes
import fcntl
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

from common.errors import MachineError
from common.words import counted
from pipeline.core.config import RuntimeSettings
from pipeline.workers.ranks import is_worker

VISIBLE = "CUDA_VISIBLE_DEVICES"
# What VISIBLE was where a sweep was started. submitit's local executor sets VISIBLE to the first cards for every job.
SEEN = "TUNESMITH_VISIBLE_GPUS"
UUID_LENGTH = 96  # NVML_DEVICE_UUID_V2_BUFFER_SIZE

_kept: list[IO[str]] = []  # the claim of this process


class Gpu(NamedTuple):
    """A card: as CUDA_VISIBLE_DEVICES names it, and by its own name, which is the same in every process."""

    entry: str
    uuid: str


def claim_gpu(runtime: RuntimeSettings) -> None:
    """Have this process see one GPU that no other training of this user has, where it is one of several.

    Raises:
        MachineError: all are taken.
    """
    restore_seen()
    if runtime.device == "cpu" or runtime.processes != 1 or is_worker():
        return
    gpus = visible_gpus(os.environ.get(VISIBLE), installed_gpus())
    if len(gpus) > 1:
        gpu, lock = claimed(gpus, runtime.jobs_per_gpu, claims_folder())
        _kept.append(lock)
        os.environ[VISIBLE] = gpu.entry


def restore_seen() -> None:
    """Undo what submitit's local executor makes of CUDA_VISIBLE_DEVICES."""
    if os.environ.get("SUBMITIT_EXECUTOR") != "local" or (seen := os.environ.pop(SEEN, None)) is None:
        return
    os.environ[VISIBLE] = seen
    if seen == "all":
        del os.environ[VISIBLE]


def note_seen() -> None:
    """Leave to jobs which GPUs this process sees."""
    os.environ[SEEN] = os.environ.get(VISIBLE, "all")


def visible_gpus(setting: str | None, installed: Sequence[str]) -> list[Gpu]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES lets a process see: as CUDA does, up to its first entry that is none.

    Args:
        setting: the variable; None where it is not set.
        installed: the names of the machine's GPUs.
    """
    entries = [str(index) for index in range(len(installed))] if setting is None else setting.split(",")
    gpus: list[Gpu] = []
    for entry in map(str.strip, entries):
        found = [uuid for uuid in installed if entry.startswith("GPU-") and uuid.startswith(entry)]
        if entry.isdecimal() and int(entry) < len(installed):
            found = [installed[int(entry)]]
        if len(found) != 1:
            break
        gpus.append(Gpu(entry, found[0]))
    return gpus


def claimed(gpus: Sequence[Gpu], jobs_per_gpu: int, folder: Path) -> tuple[Gpu, IO[str]]:
    """Return a GPU with fewer than `jobs_per_gpu` trainings, and the claim on it, which holds until it is closed.

    Raises:
        MachineError: there is none, or the folder cannot be written.
    """
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        for slot in range(jobs_per_gpu):
            for gpu in gpus:
                if (lock := free_lock(folder / f"{gpu.uuid}.{slot}")) is not None:
                    return gpu, lock
    except OSError as error:
        raise MachineError(
            f"cannot claim a GPU in {folder}: {error.strerror}; make it writable or set TMPDIR"
        ) from error
    raise MachineError(
        f"all {counted(len(gpus), 'GPU')} have their {counted(jobs_per_gpu, 'training')}; run at most "
        f"{len(gpus) * jobs_per_gpu} at once, or let more share one by runtime.jobs_per_gpu"
    )


def free_lock(path: Path) -> IO[str] | None:
    """Return a lock on a file, None where another process has it."""
    file = path.open("a", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def claims_folder() -> Path:
    """Return where this user's trainings leave their claims."""
    return Path(tempfile.gettempdir()) / f"tunesmith-gpus-{os.getuid()}"


def installed_gpus() -> list[str]:
    """Return the names of this machine's GPUs in their order; none without a driver, or where MIG splits them."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return []
    count, handle, uuid = ctypes.c_uint(), ctypes.c_void_p(), ctypes.create_string_buffer(UUID_LENGTH)
    split, later = ctypes.c_uint(), ctypes.c_uint()
    if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)):
        return []
    found: list[str] = []
    for index in range(count.value):
        if nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)):
            return []
        splits = nvml.nvmlDeviceGetMigMode(handle, ctypes.byref(split), ctypes.byref(later)) == 0 and split.value == 1
        if splits or nvml.nvmlDeviceGetUUID(handle, uuid, UUID_LENGTH):
            return []
        found.append(uuid.value.decode())
    nvml.nvmlShutdown()
    return found
