"""What a process says of its work: a line each on standard output, without a stamp; warnings begin with `warning:`.

Modules log by `logging.getLogger(__name__)`. What a command was asked for is printed, and no matter for a log.
"""

import logging
import sys

PACKAGES = ("common", "llama", "pipeline")


class Lines(logging.Handler):
    """Writes each record to standard output as it is at that moment: tests put another in its place."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, at once."""
        print(self.format(record), flush=True)


class Plain(logging.Formatter):
    """The message alone; with its level from warnings on, and with the rank where several processes train together."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank = f"[rank {rank}] " if rank else ""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        return f"{self.rank}{level}{super().format(record)}"


def configure_logs(rank: int = 0) -> None:
    """Let our modules' loggers speak; of several processes the first says all, the others warn alone.

    Args:
        rank: of this process among those that train together.
    """
    handler: logging.Handler = logging.StreamHandler(sys.stderr) if rank else Lines()
    handler.setFormatter(Plain(rank))
    logging.getLogger("httpx").setLevel(logging.WARNING)  # which else tells of each request to the Hub
    for package in PACKAGES:
        logger = logging.getLogger(package)
        logger.handlers = [handler]
        logger.setLevel(logging.WARNING if rank else logging.INFO)
        logger.propagate = False  # Hydra's handler would say it again
