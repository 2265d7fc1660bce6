import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from dataset_hub import HubHandler

import pipeline

REPOSITORY = Path(pipeline.__file__).parents[1]

LOAD = """
import json, sys
from pathlib import Path
from pipeline.core.data_settings import DataSettings
from pipeline.data.sources import load
from common.errors import UserError
try:
    sources = load(DataSettings("hub", "hub", **json.loads(sys.argv[1])), Path())
    splits = [(one.name, one.split, one.revision, [row.value for row in one.rows]) for one in sources]
except UserError as error:
    sys.exit(f"UserError: {error}")
print(json.dumps([dict(zip(("name", "split", "revision", "rows"), split)) for split in splits]))
"""


@pytest.fixture
def hub() -> Iterator[str]:
    """The address of a hub on this machine that has the datasets owner/chats and owner/splits at one commit."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), HubHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def closed_port() -> str:
    """An address where nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def load_from_hub(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Loads a hub dataset in a fresh process, since the hub's client reads its environment once, at import."""

    def load(endpoint: str, offline: bool = False, **settings: Any) -> subprocess.CompletedProcess[str]:
        environment = {
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(tmp_path / "huggingface"),
            "HF_HUB_OFFLINE": str(int(offline)),
            "PYTHONPATH": str(REPOSITORY),
            "HOME": str(tmp_path),
        }
        return subprocess.run(
            [sys.executable, "-c", LOAD, json.dumps({"path": "owner/chats"} | settings)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return load
