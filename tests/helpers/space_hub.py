"""A Hub with one account, whose Spaces are made, told secrets, built and run: as far as `deploy space` asks."""

import json
import threading
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote, urlsplit

from hub_server import Handler, Hub

OWNER, SPACE = "owner", "owner/tiny"
MODEL, MODEL_COMMIT = "owner/model", "6" * 40
PLAIN = 10_000_000  # bytes that git takes here without LFS


class SpaceHub(Hub):
    """A Hub whose one repository is the Space `owner/tiny`, made on demand."""

    def __init__(self) -> None:
        super().__init__(SpaceHandler)
        self.user: dict[str, Any] = {"name": OWNER, "isPro": True, "auth": {"accessToken": {"role": "write"}}}
        self.others: list[dict[str, Any]] = []  # Spaces of the account
        self.datasets: dict[str, bool] = {}  # whether they are private
        self.made: dict[str, Any] = {}  # what the Space was asked for with
        self.secrets: dict[str, str] = {}
        self.stages: list[str] = ["BUILDING", "APP_STARTING", "RUNNING"]  # one after another, the last for good
        self.host = ""  # where the Space answers
        self.log = ["one", "two", "error: no space left on device"]
        self.refusals: dict[str, tuple[int, str]] = {}  # by the path's end


class SpaceHandler(Handler):
    server: SpaceHub

    def do_GET(self) -> None:  # noqa: N802
        if self.path.startswith("/api/spaces/owner/tiny/logs/"):
            lines = "".join(f"data: {json.dumps({'data': line, 'timestamp': ''})}\n\n" for line in self.server.log)
            self.send_content(200, lines.encode(), {"Content-Type": "text/event-stream"})
        else:
            super().do_GET()

    def answer(self, body: bytes) -> None:
        hub, path = self.server, unquote(urlsplit(self.path).path)
        refused = next((answer for end, answer in hub.refusals.items() if path.endswith(end)), None)
        if refused:
            hub.requests.append(path)
            return self.send(refused[0], {"error": refused[1]})
        told = self.told(path, body)
        if told is not None:
            hub.requests.append(path)
            return self.send(200 if told else 404, told or {"error": "Repository not found"}, missing(told))
        self.path = self.path.replace("/api/spaces/", "/api/models/")
        return super().answer(body)

    def told(self, path: str, body: bytes) -> Any:
        """What the Hub says of accounts, models, data sets and a Space's state; nothing of what is not there."""
        hub = self.server
        if path == "/api/whoami-v2":
            return hub.user
        if path.startswith("/api/organizations/"):
            return {"name": path.split("/")[3], "plan": "team"}
        if path == "/api/spaces":
            return hub.others or [{"id": "owner/still", "runtime": None}]
        if path == f"/api/models/{MODEL}/revision/v1":
            siblings = [{"rfilename": "a-Q8_0.gguf", "size": 5_000_000}, {"rfilename": "README.md", "size": 100}]
            return {"id": MODEL, "sha": MODEL_COMMIT, "private": False, "siblings": siblings}
        if path.startswith("/api/datasets/"):
            name = path.removeprefix("/api/datasets/")
            return {"id": name, "private": hub.datasets[name]} if name in hub.datasets else {}
        if path == "/api/repos/create":
            hub.made = json.loads(body)
            return None
        if path == f"/api/spaces/{SPACE}" and hub.private is not None:
            siblings = [{"rfilename": name} for name in hub.contents]
            state = {"id": SPACE, "sha": hub.head, "private": hub.private, "siblings": siblings}
            return {**state, "sdk": hub.made.get("sdk"), "host": hub.host}
        if path == f"/api/spaces/{SPACE}/secrets":
            hub.secrets[json.loads(body)["key"]] = json.loads(body)["value"]
            return [1]
        if path == f"/api/spaces/{SPACE}/runtime":
            stage = hub.stages.pop(0) if len(hub.stages) > 1 else hub.stages[0]
            return {"stage": stage, "sha": hub.head, "hardware": {"current": None, "requested": "cpu-basic"}}
        return None

    def commit(self, lines: Iterable[dict[str, Any]]) -> None:
        listed = list(lines)
        for line in listed:
            if line["key"] == "file" and len(line["value"]["content"]) * 3 // 4 > PLAIN:
                return self.send(400, {"error": f"{line['value']['path']} is larger than 10 MB"})
        return super().commit(listed)


def missing(told: Any) -> dict[str, str]:
    """The header by which the client knows that there is no such repository."""
    return {} if told else {"X-Error-Code": "RepoNotFound"}


def started_space_hub() -> SpaceHub:
    """A Hub that answers; `shutdown` ends it."""
    hub = SpaceHub()
    threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    return hub
