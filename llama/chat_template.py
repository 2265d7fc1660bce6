"""A model's chat template, rendered by a process of its own (render.py) that dies of one that takes too long."""

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, cast

from common.errors import UserError
from llama.errors import ModelError, RequestError
from llama.render import SECONDS, Rendering, Setup

# -P: not to take the files beside it for Python's own modules.
COMMAND = (sys.executable, "-P", str(Path(__file__).with_name("render.py")))


class ChatTemplate:
    """What writes conversations. Not for two threads at once; close it."""

    def __init__(self, setup: Setup) -> None:
        """Start the process; it reads the template while other things are done. Raises UserError if none can be."""
        self._setup = setup
        self._start()

    def render(self, variables: Mapping[str, object]) -> str:
        """Return a conversation as the template writes it.

        Args:
            variables: what templates look up, such as `messages` and `add_generation_prompt`.

        Raises RequestError where the template refuses the conversation, and ModelError, which is one, where it fails.
        """
        if self._process.poll() is not None:  # ended by somebody else, since the last one
            self._restart()
        rendering = self._ask(variables)
        if "refused" in rendering:
            text = f"The model's chat template refuses this conversation: {rendering['refused']}"
            raise RequestError(text, param="messages")
        if "failed" in rendering:
            raise ModelError(f"The model's chat template fails: {rendering['failed']}")
        return rendering["text"]

    def close(self) -> None:
        """End the process; a second call does nothing."""
        self._process.kill()
        with suppress(BrokenPipeError), self._process:  # closes the pipes and waits
            pass

    def _ask(self, variables: Mapping[str, object]) -> Rendering:
        """Return what the process answers; start another one where it dies of it."""
        with suppress(BrokenPipeError):
            self._send(variables)
            if (answer := self._answers.readline()).endswith(b"\n"):
                return json.loads(answer)
        ended = self._process.wait()
        self._restart()
        if ended == -signal.SIGALRM:
            return {"failed": f"it takes longer than {SECONDS:g} s"}
        return {"failed": f"its process ended ({ended})"}

    def _start(self) -> None:
        # In a session of its own: Ctrl-C is for the server, which lets its answers end first.
        pipe = subprocess.PIPE
        try:
            self._process = subprocess.Popen(COMMAND, stdin=pipe, stdout=pipe, start_new_session=True)
        except OSError as error:
            raise UserError(f"no process can be started for the chat template: {error.strerror}") from None
        self._requests, self._answers = cast(IO[bytes], self._process.stdin), cast(IO[bytes], self._process.stdout)
        with suppress(BrokenPipeError):  # it has ended again, as is found when it is asked
            self._send(self._setup)

    def _restart(self) -> None:
        self.close()
        self._start()

    def _send(self, line: Mapping[str, object]) -> None:
        self._requests.write(json.dumps(line).encode() + b"\n")
        self._requests.flush()
