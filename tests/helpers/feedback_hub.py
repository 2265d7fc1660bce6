"""A hub on this machine with one private dataset, which takes commits: files added, and files deleted."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from dataset_hub import COMMIT, HubHandler

DATASET = "owner/feedback"


class FeedbackHandler(HubHandler):
    """The dataset's files, and what a commit changes of them."""

    commits: list[list[str]]

    def do_GET(self) -> None:  # noqa: N802
        self.path = self.path.replace("/revision/main", f"/revision/{COMMIT}").replace(self.commit, COMMIT)
        super().do_GET()

    do_HEAD = do_GET  # noqa: N815

    @property
    def commit(self) -> str:
        """The latest one: clients keep what they are told of each."""
        return f"{len(self.commits) + 1:040x}"

    def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        told = {name: value.replace(COMMIT, self.commit) for name, value in headers.items()}
        super().send(status, body.replace(f'"{COMMIT}"'.encode(), f'"{self.commit}"'.encode()), told)

    def do_POST(self) -> None:  # noqa: N802
        if not self.path.startswith((f"/api/datasets/{DATASET}/preupload/", f"/api/datasets/{DATASET}/commit/")):
            super().do_POST()
            return
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if "/preupload/" in self.path:
            files = [{"path": file["path"], "uploadMode": "regular"} for file in json.loads(body)["files"]]
            self.answer({"files": [{**file, "shouldIgnore": False} for file in files]})
            return
        changed = []
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                self.files[DATASET][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "deletedFile":
                del self.files[DATASET][line["value"]["path"]]
            changed += [line["value"]["path"]] if line["key"] != "header" else []
        self.commits.append(changed)
        address = "http://{}:{}".format(*self.server.server_address)
        self.answer({"commitUrl": f"{address}/datasets/{DATASET}/commit/{self.commit}", "commitOid": self.commit})


@contextmanager
def feedback_hub(patch: pytest.MonkeyPatch, folder: Path, files: dict[str, bytes]) -> Iterator[Any]:
    """Yield the hub's handler, whose `files` and `commits` say what it has; clients of this process ask it."""
    patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "hub"))
    patch.setattr("datasets.config.HF_DATASETS_CACHE", folder / "datasets")
    handler: Any = type("Handler", (FeedbackHandler,), {"files": {DATASET: dict(files)}, "commits": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    address = f"http://127.0.0.1:{server.server_port}"
    patch.setattr("huggingface_hub.constants.ENDPOINT", address)
    files_at = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"  # else read once, at import
    patch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", files_at)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield handler
    finally:
        server.shutdown()
        server.server_close()
