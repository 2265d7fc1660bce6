"""The chat in a Gradio Space, which runs `python app.py` where its repository is.

It becomes the server that the images run, `python -m serve`. What pip cannot bring is llama.cpp as this project
compiles it. It comes as a wheel from the machine that deployed; where that does not load, it is compiled here, in 3 to
4 minutes on 2 cores, at each start. settings.json has settings of the server; the Space's variables stand above them.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from common.errors import UserError
from common.package_index import last_error, pip
from llama.source import llama_cpp_wheel

HERE = Path(__file__).resolve().parent
PACKAGES = Path(tempfile.gettempdir(), "tunesmith-packages")
ZERO_GPU = "SPACES_ZERO_GPU"  # the Space's own variable


def main() -> None:
    """Make llama.cpp loadable, say that the app has started where that is asked for, and become the server."""
    try:
        bring_llama_cpp()
    except UserError as error:
        sys.exit(f"error: {error}")
    if os.environ.get(ZERO_GPU):
        report_to_zero_gpu()
    settings: dict[str, str] = json.loads((HERE / "settings.json").read_text(encoding="utf-8"))
    environment = settings | own_packages()
    environment.pop(ZERO_GPU, None)  # which would have Gradio prepare the server for a GPU
    sys.stdout.flush()
    os.chdir(HERE)
    os.execve(sys.executable, [sys.executable, "-m", "serve"], environment)  # noqa: S606


def own_packages() -> dict[str, str]:
    """Return this process's environment, with what `bring_llama_cpp` has installed and the server's code."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (PACKAGES, HERE)))}


def bring_llama_cpp() -> None:
    """Install the wheel that came along, or one that is compiled here.

    Raises:
        UserError: neither loads.
    """
    if any(loads(wheel) for wheel in sorted(HERE.glob("wheels/*.whl"))):
        return
    print("compiling llama.cpp for this machine", flush=True)
    wheel = llama_cpp_wheel(HERE / "constraints.txt")
    if not loads(wheel):
        raise UserError(f"{wheel.name} was compiled here and does not load")


def loads(wheel: Path) -> bool:
    """Install a wheel, and return whether its libraries load on this machine; another kind's do not."""
    done = pip(["install", "--no-deps", "--upgrade", "--target", str(PACKAGES), str(wheel)])
    if done.returncode:
        print(f"{wheel.name} is not for this machine: {last_error(done)}", flush=True)
        return False
    return subprocess.run([sys.executable, "-c", "import llama_cpp"], env=own_packages()).returncode == 0


def report_to_zero_gpu() -> None:
    """Report the start to ZeroGPU, which waits for it, and for a function that may ask for a GPU.

    llama.cpp computes on the machine's processors: nothing ever asks for one, and no visitor's quota is used.
    """
    import spaces  # the Space has it
    from spaces import zero

    spaces.GPU(no_gpu)
    zero.startup()


def no_gpu() -> None:
    """Do nothing: see `report_to_zero_gpu`."""


if __name__ == "__main__":
    main()
