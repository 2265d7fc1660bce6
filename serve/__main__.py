"""Starts the chat server: `python -m serve`.

In this order: the settings, the port, the models, the page; each that fails ends in one line and exit code 1. SIGTERM
and Ctrl-C stop it within a few seconds, a generation under way included.
"""

import argparse
import errno
import os
import signal
import socket
import sys
from collections.abc import Sequence

from serve.errors import UserError
from serve.settings import Settings, describe


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server until a signal ends it; the exit code is 0 then, and 1 when it could not start."""
    parser = argparse.ArgumentParser(
        prog="python -m serve",
        description="A chat with the GGUF models in a folder.",
        epilog=f"environment variables, with their defaults:\n{describe()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args(arguments)
    # uvicorn hands SIGTERM on when it is done: this makes that, and one that comes earlier, an orderly exit.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        settings = Settings.from_env(os.environ)
        with listen(settings) as listener:
            run(settings, listener)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
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


def run(settings: Settings, listener: socket.socket) -> None:
    """Load a model and serve until a signal comes. Raises UserError if there is no model to serve."""
    # Imported here because they are slow (llama.cpp, then Gradio): a wrong setting is answered at once.
    from serve.engine import Engine
    from serve.metrics import Metrics
    from serve.models import find_models

    models = find_models(settings.models)
    metrics = Metrics(models)
    with Engine(models, settings, metrics.observe) as engine:
        from serve.app import build_app, web_server

        server = web_server(build_app(engine, settings, metrics))
        host = "localhost" if settings.host in ("0.0.0.0", "::") else settings.host  # noqa: S104 - compared, not bound
        print(f"Tunesmith is on http://{host}:{settings.port} (Ctrl-C stops it)", flush=True)
        server.run(sockets=[listener])


if __name__ == "__main__":
    sys.exit(main())
