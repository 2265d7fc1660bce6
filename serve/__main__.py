"""Starts the chat server: `python -m serve`.

In this order: the settings, the port, the models, the engine, the API, the page; each that fails ends in one line and
exit code 1. SIGTERM and Ctrl-C stop it when the answers under way have ended, after SERVE_DRAIN seconds at the latest;
a second one stops it at once.
"""

import argparse
import errno
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence

from common.errors import UserError
from common.telemetry import send_nothing
from serve.settings import Settings, describe


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server until a signal ends it; the exit code is 0 then, and 1 when it could not start."""
    parser = argparse.ArgumentParser(
        prog="python -m serve",
        description="A chat with GGUF models on a CPU.",
        epilog=f"environment variables, with their defaults:\n{describe()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args(arguments)
    send_nothing()
    # uvicorn hands SIGTERM on when it is done: this makes that, and one that comes earlier, an orderly exit.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        settings = Settings.from_env(os.environ)
        with listen(settings) as listener:
            from serve.run import run  # llama.cpp and FastAPI: a wrong setting is answered before

            run(settings, listener)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, SystemExit):
        pass
    return 0


def listen(settings: Settings) -> socket.socket:
    """Take the port, before anything slow is done. Raises UserError if that cannot be."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        place = f"{settings.host}, port {settings.port}"
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"{place} is taken: end what listens there, or set SERVE_PORT to another port") from None
        raise UserError(f"cannot listen on {place} ({error}): set SERVE_HOST or SERVE_PORT otherwise") from None
    return listener


if __name__ == "__main__":
    code = main()
    if any(thread.daemon for thread in threading.enumerate()):  # within llama.cpp or a download, and deaf to our end
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
