"""Follows answers by their grammars, each in a process of its own: `python -P llama/grammar/follow.py`.

Grammars and schemas come with requests, and llguidance compiles some without a bound on time, memory or its stack,
which would end the server; its limits hold once they are compiled. Here such a process dies alone.

The program is told a model's vocabulary, and from then on forks for each answer, whose two ends of a socket it is sent
one of: what is in memory by then is shared. Both speak in frames, whose kinds stand in `Kind`.
"""

import json
import os
import pickle
import resource
import signal
import socket
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from enum import IntEnum
from io import BufferedIOBase
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

FIRST_SECONDS = 1.0  # of a processor, for a grammar to be compiled, and the first token
MORE_SECONDS = 0.03  # for each token after it, beside what is left
MEMORY = 256 << 20  # bytes, more than the process that it is forked from has
SHOWN = 300  # characters of what is wrong with a grammar
HEADER = struct.Struct("<BI")  # a frame's kind, and how many bytes follow
# By itself the library would take 250,000 states of a lexer, of 1 to 2 KB; 50,000 items for a token, as a text of any
# letters takes in a grammar with recursion where there are 128,000 tokens; and 2,000 items in a row, which are 500 keys
# that may be left out.
LIMITS = LLParserLimits(max_items_in_row=10_000, max_lexer_states=50_000, step_max_items=200_000, verbose_errors=False)


class Kind(IntEnum):
    """What a frame is."""

    BEGIN = 0  # a Vocabulary or a Task
    TAKE = 1  # tokens: what the answer goes on with
    FIT = 2  # tokens: how many of them would it go on with?
    STATE = 3  # one of State
    MASK = 4  # a bit for each token: which may come next
    COUNT = 5  # of tokens that fit
    WRONG = 6  # a text: why the answer cannot go on; empty where it has begun otherwise


class State(IntEnum):
    """Whether an answer may end."""

    OPEN = 0  # not yet
    WHOLE = 1
    ENDED = 2  # nothing may follow


class Vocabulary(NamedTuple):
    """A model's tokens."""

    pieces: Sequence[bytes]  # by token; empty for those that write nothing
    ends: Sequence[int]  # those that end an answer


class Task(NamedTuple):
    """An answer to be followed."""

    grammar: str
    begun: str  # what the answer has said already


class _Tokens:
    """A vocabulary as the library asks for one; how a text is cut into tokens it need not know."""

    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.tokens = vocabulary.pieces
        self.eos_token_id = vocabulary.ends[0] if vocabulary.ends else None
        silent = (token for token, piece in enumerate(vocabulary.pieces) if not piece)
        self.special_token_ids = list(chain(silent, vocabulary.ends))


def make_tokenizer(vocabulary: Vocabulary) -> LLTokenizer:
    """Return a vocabulary as the library has it, worked out in a second where there are 128,000 tokens."""
    return LLTokenizer(TokenizerWrapper(_Tokens(vocabulary)), eos_token=list(vocabulary.ends) or None)


def send(to: BufferedIOBase, kind: Kind, content: bytes = b"") -> None:
    """Write a frame."""
    to.write(HEADER.pack(kind, len(content)) + content)
    to.flush()


def receive(source: BufferedIOBase) -> tuple[Kind, bytes]:
    """Return the next frame. Raises EOFError where none comes."""
    header = source.read(HEADER.size)
    if len(header) < HEADER.size:
        raise EOFError
    kind, length = HEADER.unpack(header)
    content = source.read(length)
    if len(content) < length:
        raise EOFError
    return Kind(kind), content


def follow(connection: BufferedIOBase, tokenizer: LLTokenizer, task: Task) -> None:
    """Answer what is asked of one answer, until nothing more is."""
    matcher = LLMatcher(tokenizer, task.grammar, log_level=0, limits=LIMITS)
    if task.begun and not matcher.is_error() and not _say(matcher, tokenizer, task.begun):
        send(connection, Kind.WRONG)
        return
    _tell(connection, matcher)
    while True:
        kind, content = receive(connection)
        tokens = struct.unpack(f"<{len(content) // 4}I", content)
        _allow()
        if kind == Kind.FIT:
            send(connection, Kind.COUNT, struct.pack("<I", matcher.validate_tokens(list(tokens))))
        else:
            matcher.consume_tokens(list(tokens))
            _tell(connection, matcher)


def _say(matcher: LLMatcher, tokenizer: LLTokenizer, text: str) -> bool:
    """Go on with a text; return whether it may."""
    tokens = tokenizer.greedy_tokenize(text)
    return matcher.try_consume_tokens(tokens) == len(tokens)


def _tell(connection: BufferedIOBase, matcher: LLMatcher) -> None:
    """Say how the answer stands, and then which tokens may come next: that is worked out while others are busy."""
    if not matcher.is_error():
        ended = State.ENDED if matcher.is_stopped() else State.WHOLE if matcher.is_accepting() else State.OPEN
        send(connection, Kind.STATE, bytes([ended]))
        mask = matcher.compute_bitmask()
        if not matcher.is_error():
            send(connection, Kind.MASK, mask)
            return
    send(connection, Kind.WRONG, _reason(matcher.get_error()).encode())


def _reason(error: str) -> str:
    """Return what is wrong in one line, less where: that is of rules made of what was asked for."""
    lines = [line.removeprefix("error: ") for line in error.splitlines() if line.startswith("error: ")]
    first = lines[0] if lines else (error.splitlines() or [""])[0]
    place, colon, rest = first.partition("): ")
    first = rest if colon and place.startswith("at ") else first
    return first.removesuffix("<non-verbose/>").strip()[:SHOWN]


def _allow() -> None:
    """Let it work on for one more token; without an allowance left it dies."""
    left, _ = signal.getitimer(signal.ITIMER_PROF)
    signal.setitimer(signal.ITIMER_PROF, min(left + MORE_SECONDS, FIRST_SECONDS))


def bound() -> None:
    """Let this process die of what takes too long, or too much."""
    signal.setitimer(signal.ITIMER_PROF, FIRST_SECONDS)
    with suppress(OSError, ValueError):  # another system than Linux; less is allowed already
        most = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Fork for each answer that is sent, until none can come."""
    asked = socket.socket(fileno=int(sys.argv[1]))
    with asked.makefile("rb") as source:
        tokenizer = make_tokenizer(Vocabulary(*pickle.loads(receive(source)[1])))  # noqa: S301 -- of the server's own
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    asked.send(b".")
    while True:
        message, descriptors, _, _ = socket.recv_fds(asked, 1, 1)
        if not message:
            return
        with socket.socket(fileno=descriptors[0]) as answer, suppress(OSError):
            if os.fork() == 0:
                asked.close()
                _serve(answer, tokenizer)


def _serve(answer: socket.socket, tokenizer: LLTokenizer) -> None:
    bound()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what Rust says of its death has words of a request
    with suppress(EOFError, OSError), answer.makefile("rwb") as connection:
        follow(connection, tokenizer, Task(*json.loads(receive(connection)[1])))
    os._exit(0)


if __name__ == "__main__":
    main()
