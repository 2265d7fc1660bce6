"""GPUs that containers are given: chosen as CUDA would, and looked at before anything starts."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from common.errors import MachineError
from pipeline.workers.gpus import VISIBLE, visible_gpus

NVIDIA = Path("/dev/nvidia0")
FIELDS = ("uuid", "name", "driver_version", "memory.used", "memory.total")
MEBIBYTE = 2**20
LEAST_FREE = 2 * 2**30  # bytes of a card, of which CUDA takes half a gigabyte before the first tensor
# The driver's major version from which each of CUDA's runs, by NVIDIA's table of minor-version compatibility.
NEEDED_DRIVERS = {11: 450, 12: 525, 13: 580}


class Card(NamedTuple):
    """A GPU as nvidia-smi tells of it; memory in bytes."""

    uuid: str
    name: str
    driver: str
    used: int
    total: int


def cards() -> list[Card]:
    """Return this machine's GPUs in their order; none where it has no driver.

    Raises:
        MachineError: there is one, which does not answer.
    """
    command = ["nvidia-smi", f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        if NVIDIA.exists():
            raise MachineError(f"{NVIDIA} is there and nvidia-smi is not; install the driver's tools") from None
        return []
    except subprocess.TimeoutExpired:
        raise MachineError("nvidia-smi does not answer within 60 s; the driver hangs, restart the machine") from None
    return read_cards(done.stdout, done.returncode)


def read_cards(said: str, status: int) -> list[Card]:
    """Return the GPUs that nvidia-smi lists.

    Args:
        said: its output, a line a card, of FIELDS.
        status: how it ended.

    Raises:
        MachineError: it has failed, with its own words.
    """
    if status:
        if "No devices were found" in said:
            return []
        raise MachineError(f"nvidia-smi fails: {' '.join(said.split())}; mend the driver, or set runtime.device=cpu")
    found = []
    for line in said.splitlines():
        uuid, name, driver, used, total = (value.strip() for value in line.split(","))
        found.append(Card(uuid, name, driver, _bytes(used), _bytes(total)))
    return found


def _bytes(mebibytes: str) -> int:
    """Return a size of nvidia-smi's; cards that share the machine's memory have none."""
    return int(mebibytes) * MEBIBYTE if mebibytes.isdecimal() else 0


def chosen(installed: Sequence[Card]) -> list[str]:
    """Return the names of the GPUs that a process sees here, in their order; also of parts of one (MIG)."""
    setting = os.environ.get(VISIBLE)
    if setting and setting.startswith("MIG-"):
        return setting.split(",")
    return [gpu.uuid for gpu in visible_gpus(setting, [card.uuid for card in installed])]


def require_driver(installed: Sequence[Card], cuda: str | None, image: str) -> None:
    """Refuse a driver that is older than the image's CUDA wants.

    Args:
        installed: the machine's GPUs.
        cuda: the version of CUDA in the image, as its base says; None where it has none.
        image: its name.

    Raises:
        MachineError: it is older.
    """
    needed = NEEDED_DRIVERS.get(_major(cuda), 0) if cuda else 0
    for card in installed:
        if _major(card.driver) < needed:
            raise MachineError(
                f"driver {card.driver} is too old for CUDA {cuda} in {image}, which needs {needed} or newer; update "
                "it, or build the image on an older BASE"
            )


def _major(version: str) -> int:
    number = version.partition(".")[0]
    return int(number) if number.isdecimal() else 0


def require_free(cards: Sequence[Card]) -> None:
    """Refuse a card that others have filled.

    Raises:
        MachineError: one has less than LEAST_FREE.
    """
    for card in cards:
        if card.total and card.total - card.used < LEAST_FREE:
            raise MachineError(
                f"{card.name} ({card.uuid}) is full: {card.used / 1e9:.1f} of {card.total / 1e9:.1f} GB are used; end "
                f"what nvidia-smi lists there, or name other cards in {VISIBLE}"
            )
