"""`python -m pipeline`, which is the command `tunesmith`."""

import sys

from common.imports import end_of_imports
from common.logs import configure_logs
from pipeline.workers.process import prepare_process


def main() -> None:
    """Run the command line, and end with its status."""
    prepare_process()  # before libraries are loaded
    configure_logs()
    from pipeline.cli import run

    end_of_imports()
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
