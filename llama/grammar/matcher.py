"""Which of a model's tokens an answer may go on with, so that its text is of a form.

llguidance knows it (https://github.com/guidance-ai/llguidance, by derivatives of regular expressions and Earley's
parser), in a process for each answer (follow.py), which dies of what is too much and takes nothing along.
"""

import json
import pickle
import socket
import struct
import subprocess
import sys
import weakref
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from llama.errors import EngineError, RequestError
from llama.grammar.follow import Kind, State, Task, Vocabulary, receive, send
from llama.grammar.lark import Grammar

# -P: not to take the files beside it for Python's own modules.
COMMAND = (sys.executable, "-P", str(Path(__file__).with_name("follow.py")))
SECONDS = 30.0  # that an answer of the process may take; its own limits, of the processor's time, come first
TOO_MUCH = "is too large or too ambiguous to be followed: simplify it"
NO_TOKEN = "The model has no token for what must come next."
# How llguidance says that one of its limits is reached.
BOUNDS = ("too big", "Too many", "too many", "too large", "Current row", "precomputation failed", "panic")


class Followers:
    """What starts a process for each answer of one model; started for the first. Close it."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        """For a model's tokens."""
        vocabulary = vocabulary._replace(pieces=[b"" if _never(piece) else piece for piece in vocabulary.pieces])
        self._content = pickle.dumps(tuple(map(list, vocabulary)))
        self.tokens = len(vocabulary.pieces)
        ends = frozenset(vocabulary.ends)
        silent = [token for token, piece in enumerate(vocabulary.pieces) if not piece and token not in ends]
        self.silent = np.array(silent, np.int64)  # those that write nothing, such as control tokens
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, task: Task) -> socket.socket:
        """Return what speaks with a new process, which is told its task. Raises EngineError if none can be started."""
        ours, its = socket.socketpair()
        ours.settimeout(SECONDS)
        with its:
            if not self._handed(its):  # ended by somebody else, or not begun
                self._restart()
                if not self._handed(its):
                    raise EngineError("no process can be started that follows grammars")
        with suppress(OSError), ours.makefile("wb") as connection:  # it has died, as is told when it is asked
            send(connection, Kind.BEGIN, json.dumps(task).encode())
        return ours

    def close(self) -> None:
        """End what starts them; those that are under way end with their answers. A second call does nothing."""
        if self._process:
            self._asked.close()
            self._process.kill()
            self._process.wait()
            self._process = None

    def _handed(self, its: socket.socket) -> bool:
        with suppress(OSError):
            return self._process is not None and socket.send_fds(self._asked, [b"."], [its.fileno()]) > 0
        return False

    def _restart(self) -> None:
        self.close()
        self._asked, its = socket.socketpair()
        with its:
            command = (*COMMAND, str(its.fileno()))
            try:  # in a session of its own: Ctrl-C is for the server, which lets its answers end first
                self._process = subprocess.Popen(command, pass_fds=[its.fileno()], start_new_session=True)
            except OSError as error:
                raise EngineError(f"no process can be started that follows grammars: {error.strerror}") from None
        with suppress(OSError), self._asked.makefile("wb") as connection:
            send(connection, Kind.BEGIN, self._content)
            self._asked.recv(1)  # it has read them


def _never(piece: bytes) -> bool:
    """Return whether a token is in no text; the library takes such for its mark of special ones."""
    return piece.startswith(b"\xff")


class Matcher:
    """Follows one answer through its form."""

    def __init__(self, grammar: Grammar, followers: Followers, begun: str = "", free: bool = False) -> None:
        """Begin.

        Args:
            grammar: what the answer must be.
            followers: of the model that answers.
            begun: what it has said already.
            free: tokens that write nothing may stand where it may end.

        Raises RequestError for a grammar that cannot be followed, and for a beginning that is none of it.
        """
        self._followers, self._free = followers, free
        process = followers.start(Task(grammar.text(), begun.encode(errors="replace").decode()))
        weakref.finalize(self, process.close)
        self._connection = process.makefile("rwb")
        self._mask: np.ndarray | None = None  # None while it is on its way
        self._error: RequestError | None = None
        self._read_state()
        self.allowed()  # for what is wrong with the grammar, and may show with its first token

    @property
    def ended(self) -> bool:
        """Whether the answer is whole, and nothing may follow."""
        return self._state == State.ENDED

    def allowed(self) -> np.ndarray:
        """Return which tokens may come next, bool [vocabulary]. Raises RequestError where none can."""
        if self._mask is None:
            bits = np.frombuffer(self._received(Kind.MASK), np.uint8)
            self._mask = np.unpackbits(bits, count=self._followers.tokens, bitorder="little").view(bool)
            self._mask[self._followers.silent] = self._free and self._state != State.OPEN
        if not self._mask.any():
            raise RequestError(NO_TOKEN)
        return self._mask

    def take(self, token: int) -> None:
        """Go on with a token that is allowed; what goes wrong is raised when it is asked what may follow."""
        if token in self._followers.silent:
            return
        with suppress(RequestError):
            self.allowed()
            self._send(Kind.TAKE, [token])
            self._mask = None
            self._read_state()

    def fitting(self, tokens: Sequence[int]) -> int:
        """Return how many of these tokens may come next, one after the other. Raises RequestError."""
        self.allowed()
        self._send(Kind.FIT, tokens)
        return int(struct.unpack("<I", self._received(Kind.COUNT))[0])

    def _read_state(self) -> None:
        self._state = State.OPEN
        with suppress(RequestError):
            self._state = State(self._received(Kind.STATE)[0])

    def _send(self, kind: Kind, tokens: Sequence[int]) -> None:
        with suppress(OSError):  # it has died, as is told when it is asked
            send(self._connection, kind, struct.pack(f"<{len(tokens)}I", *tokens))

    def _received(self, wanted: Kind) -> bytes:
        """Return what the process sends next. Raises RequestError where it says why there is none, or has died."""
        if self._error:
            raise self._error
        try:
            kind, content = receive(self._connection)
        except (EOFError, OSError):
            kind, content = Kind.WRONG, TOO_MUCH.encode()
        if kind != wanted:
            self._error = RequestError(_told(content.decode(errors="replace")))
            raise self._error
        return content


def _told(why: str) -> str:
    """Return what is wrong with a grammar as a client is told it."""
    if "NoExtension" in why:
        return NO_TOKEN
    if not why:
        return "The assistant's turn that is to be gone on with is no beginning of such an answer."
    if why == TOO_MUCH or any(words in why for words in BOUNDS):
        return f"The form {TOO_MUCH}."
    return f"The form cannot be followed: {why}."
