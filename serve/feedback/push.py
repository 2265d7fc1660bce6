"""Brings a folder of records to a private dataset on the Hub."""

import fcntl
import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import UserError
from serve.feedback.files import record_files, replace
from serve.feedback.records import to_json

FILES_PER_COMMIT = 8
HUB_SECONDS = 60.0  # without a sign of life from the Hub; huggingface_hub would wait for ever
LONGEST_PAUSE = 3600.0  # seconds between two attempts, however long the Hub is away
THREAD = "feedback push"
PUSHED, LOCK = "pushed.json", "pushing.lock"

logger = logging.getLogger(__name__)  # never given a word of a record


class Pusher:
    """A thread that brings the folder's files to a private dataset, again and again until `close`.

    huggingface_hub's CommitScheduler would be less code, but it asks the Hub in its constructor, so that a server does
    not start without it; remembers only in memory what it pushed; looks at no repository's privacy; and has no bound
    on its last attempt.
    """

    def __init__(self, folder: Path, repository: str, every_minutes: float, lock: threading.Lock) -> None:
        """Push to a repository; `lock` is held by whoever writes a record.

        Raises UserError for a name that no repository can have.
        """
        _check_repository(repository)
        if not every_minutes > 0:
            raise UserError(f"feedback cannot be pushed every {every_minutes:g} minutes: it must be more than 0")
        self._folder, self._repository, self._lock = folder, repository, lock
        self._pause = 60 * every_minutes
        self._trouble = ""  # why the Hub does not have everything
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name=THREAD, daemon=True)
        self._thread.start()

    def close(self, patience: float) -> None:
        """Try a last time, for `patience` seconds at most."""
        self._closing.set()
        self._thread.join(patience)
        trouble = "no answer yet" if self._thread.is_alive() else self._trouble
        if trouble:
            kept = f"{self._folder} keeps it for the next start"
            logger.warning("not all feedback is on %s (%s): %s", self._repository, trouble, kept)

    def _work(self) -> None:
        _prepare_hub_client()
        failures, last = 0, False
        while not last:
            last = self._closing.is_set()
            trouble = self._attempt()
            failures = failures + 1 if trouble else 0
            if not self._closing.is_set():
                self._tell(trouble)
            self._trouble = trouble
            self._closing.wait(min(self._pause * 2 ** min(failures, 20), max(self._pause, LONGEST_PAUSE)))

    def _attempt(self) -> str:
        """Push; why it failed, or nothing."""
        try:
            with alone(self._folder / LOCK):
                self._push()
        except Exception as error:  # whatever it is, the thread must be there for the next attempt
            return _brief(error)
        return ""

    def _tell(self, trouble: str) -> None:
        """Say once that the Hub is away, and once that it is back."""
        if trouble and not self._trouble:
            kept = f"{self._folder} keeps it, and it is tried again"
            logger.warning("feedback does not reach %s (%s): %s", self._repository, trouble, kept)
        elif self._trouble and not trouble:
            logger.warning("feedback reaches %s again", self._repository)

    def _push(self) -> None:
        """Commit the files that have changed since they were last pushed."""
        pushed = self._pushed()
        with self._lock:  # so that no line is half written, or taken back after it was seen
            states = {path.name: _state(path) for path in record_files(self._folder)}
        changed = [name for name, state in states.items() if state != pushed.get(name, [0, state[1]])]
        if changed:
            self._require_private()
        for start in range(0, len(changed), FILES_PER_COMMIT):
            some = {name: states[name] for name in changed[start : start + FILES_PER_COMMIT]}
            self._commit(some)
            pushed |= some
            replace(self._folder / PUSHED, to_json({"repository": self._repository, "files": pushed}))

    def _pushed(self) -> dict[str, list[int]]:
        """Return which files the repository has, and how many bytes of each.

        Without that memory all is sent again, which is harmless.
        """
        try:
            state = json.loads((self._folder / PUSHED).read_bytes())
            return dict(state["files"]) if state["repository"] == self._repository else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def _require_private(self) -> None:
        """Make the repository if it is not there. Raises UserError for one that everybody can read."""
        from huggingface_hub import HfApi
        from huggingface_hub.errors import RepositoryNotFoundError

        api = HfApi()
        try:
            found = api.dataset_info(self._repository)
        except RepositoryNotFoundError:
            api.create_repo(self._repository, repo_type="dataset", private=True, exist_ok=True)
            found = api.dataset_info(self._repository)
        if not found.private:
            raise UserError("it is public; make it private on the Hub, or name another")

    def _commit(self, states: dict[str, list[int]]) -> None:
        """Send the whole lines within each file's first `size` bytes; of one that all was deleted of, delete it."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

        operations: list[CommitOperationAdd | CommitOperationDelete] = []
        for name, (size, _) in states.items():
            with (self._folder / name).open("rb") as file:
                content = file.read(size)
            whole = content[: content.rfind(b"\n") + 1]
            operations.append(CommitOperationAdd(name, whole) if size else CommitOperationDelete(name))
        HfApi().create_commit(self._repository, operations, commit_message="Feedback", repo_type="dataset")


def _state(path: Path) -> list[int]:
    """Return a file's size and inode: one that was written anew has another inode, of whatever size it is."""
    status = path.stat()
    return [status.st_size, status.st_ino]


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait until no other process pushes: an older copy of a file must not come after a newer one."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _check_repository(name: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        name = ""
    if name.count("/") != 1:
        raise UserError("the repository for feedback must be named owner/name, of letters, digits, '-', '_' and '.'")


def _prepare_hub_client() -> None:
    """Give huggingface_hub's requests an end, and keep what it says of each of them from the log."""
    import httpx
    from huggingface_hub import get_session, set_client_factory

    def limit(request: httpx.Request) -> None:
        """Set a timeout on each request: some calls of the client pass one of None, which goes before its own."""
        timeouts = request.extensions.get("timeout", {})
        phases = ("connect", "read", "write", "pool")
        request.extensions["timeout"] = {phase: timeouts.get(phase) or HUB_SECONDS for phase in phases}

    hooks = get_session().event_hooks  # they heed HF_HUB_OFFLINE
    hooks = hooks | {"request": [*hooks["request"], limit]}
    set_client_factory(lambda: httpx.Client(event_hooks=hooks, follow_redirects=True, timeout=HUB_SECONDS))
    for name in ("hf_api", "utils._http"):  # they speak of each retry, and under HF_DEBUG show what is sent
        logging.getLogger(f"huggingface_hub.{name}").addFilter(lambda record: record.threadName != THREAD)


def _brief(error: Exception) -> str:
    """Return an error in a few words; not in the Hub's, which might repeat what was sent."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        return f"HTTP {status}" + (": does HF_TOKEN allow to write there?" if status in (401, 403) else "")
    if isinstance(error, UserError | OSError | httpx.HTTPError):
        return " ".join(str(error).split())[:200] or type(error).__name__
    return type(error).__name__
