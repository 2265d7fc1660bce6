"""Which build of llama.cpp's kernels computes: its variants for kinds of processors stand side by side (source.py).

The best that this machine can run is loaded, or the one that the environment's TUNESMITH_CPU names. Elsewhere than on
x86-64 there is one build, and no choice.
"""

import ctypes
import os
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from common.errors import UserError

CHOICE = "TUNESMITH_CPU"
_NAMES = "libggml-cpu-*.so"


def installed() -> dict[str, Path]:
    """Return the file of each variant by its name; none where llama.cpp was built for one kind of processor.

    Nothing is loaded for it.
    """
    return {path.stem.rpartition("-")[2]: path for path in sorted(_folder().glob(_NAMES))}


def runnable() -> list[str]:
    """Return the names of those that this machine can run, as ggml scores them, the best first."""
    scores = {name: int(ctypes.CDLL(str(path)).ggml_backend_score()) for name, path in installed().items()}
    return sorted(filter(scores.get, scores), key=lambda name: -scores[name])


@cache
def load_kernels() -> None:
    """Load the best variant that this machine can run, or the one that TUNESMITH_CPU names; once.

    Raises:
        UserError: it names none that can be loaded here.
    """
    import llama_cpp

    library = llama_cpp.llama_cpp._lib
    chosen = os.environ.get(CHOICE)
    if not chosen:  # llama.cpp itself would look beside Python and in the working folder
        library.ggml_backend_load_all_from_path(os.fsencode(_folder()))
        return
    library.ggml_backend_load.restype = ctypes.c_void_p
    path = installed().get(chosen)
    if not (path and library.ggml_backend_load(os.fsencode(path))):
        offered = f"it may be {', '.join(runnable())}" if installed() else "it was built in one"
        raise UserError(f"{CHOICE}={chosen} is no variant of llama.cpp that runs here: {offered}; or unset it")


def _folder() -> Path:
    """Return where llama.cpp's libraries are, by llama-cpp-python's own rule."""
    package = find_spec("llama_cpp")
    beside = Path(package.origin).parent / "lib" if package and package.origin else Path()
    return Path(os.environ.get("LLAMA_CPP_LIB_PATH") or beside)
