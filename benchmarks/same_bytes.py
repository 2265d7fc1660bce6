"""Whether the starter's files come out the same to the byte under each limit that a processor's libraries can be set.

    make verify-cpus        writes benchmarks/results/same-bytes.{json,md}; status 1 where a file comes out otherwise

A limit stands for a processor that has no more. Each is set for a training as it is, and for one without
`pipeline/workers/arithmetic.py`, which shows what that is for; the first and the last also for an export, which
quantizes by an importance matrix: llama.cpp computes that.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from benchmarks.pipeline import facts
from common.files import sha256, write_json, write_text
from llama import variants
from pipeline.core.code import ROOT
from pipeline.core.paths import ADAPTER, GGUF
from pipeline.gguf.merge import ADAPTER_WEIGHTS
from pipeline.workers.arithmetic import FIXED

RESULT = Path("benchmarks/results/same-bytes.json")
STEPS = 6
SETTINGS = ("tracking=none", "runtime.device=cpu", "train.check_export=false", "export.importance_matrix=true")
SHOWN = 8  # digits of a digest
LIMITS = {
    "1 thread": {"OMP_NUM_THREADS": "1"},
    "2 threads": {"OMP_NUM_THREADS": "2"},
    "PyTorch: SSE2": {"ATEN_CPU_CAPABILITY": "default"},
    "PyTorch: AVX2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "oneDNN: SSE4.1": {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    "MKL: SSE4.2": {"MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
    "MKL: what all processors have": {"MKL_CBWR": "COMPATIBLE"},
    "all the least, 2 threads": {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "MKL_CBWR": "COMPATIBLE",
        "OMP_NUM_THREADS": "2",
        **({variants.CHOICE: "x64"} if variants.installed() else {}),
    },
}
# `python -m pipeline.stages.train` with the arithmetic that the libraries choose.
NOT_FIXED = """
import runpy
from pipeline.workers import process
process.fix_arithmetic = lambda: None
runpy.run_module("pipeline.stages.train", run_name="__main__")
"""


class Row(NamedTuple):
    """The digests that a limit leads to."""

    limit: str
    adapter: str
    adapter_not_fixed: str
    files: dict[str, str]  # where they were exported


def main() -> int:
    """Measure, write the table, and return the status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.same_bytes", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--model", default="starter-s")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--only", nargs="*", help="limits of these names alone, which writes no table")
    arguments = parser.parse_args()
    limits = {name: limit for name, limit in LIMITS.items() if not arguments.only or name in arguments.only}
    with tempfile.TemporaryDirectory() as name:
        folder, settings = Path(name), (f"model={arguments.model}", f"train.max_steps={arguments.steps}")
        (folder / "starter").symlink_to(ROOT / "starter")
        run_stage(folder, ("-m", "pipeline.stages.prepare"), {}, settings)
        exported = (next(iter(limits)), list(limits)[-1])
        rows = [measured(folder, name, limit, settings, name in exported) for name, limit in limits.items()]
    same = are_same(rows)
    if not arguments.only:
        write_json(RESULT, {**facts(), **vars(arguments), "same": same, "rows": [row._asdict() for row in rows]})
        write_text(RESULT.with_suffix(".md"), table(rows, arguments.model, arguments.steps))
    print(table(rows, arguments.model, arguments.steps))
    return 0 if same else 1


def measured(folder: Path, name: str, limit: dict[str, str], settings: tuple[str, ...], exports: bool) -> Row:
    """Train under a limit in both ways, and export."""
    run_stage(folder, ("-c", NOT_FIXED), limit, settings)
    not_fixed = sha256(folder / ADAPTER / ADAPTER_WEIGHTS)
    run_stage(folder, ("-m", "pipeline.stages.train"), limit, settings)
    if exports:
        run_stage(folder, ("-m", "pipeline.stages.export"), limit, settings)
    files = {path.name: sha256(path) for path in sorted((folder / GGUF).glob("*.gguf"))} if exports else {}
    row = Row(name, sha256(folder / ADAPTER / ADAPTER_WEIGHTS), not_fixed, files)
    print(row, flush=True)
    return row


def are_same(rows: list[Row]) -> bool:
    """Return whether all adapters are the same, and all files that were exported."""
    exported = [row.files for row in rows if row.files]
    return all(row.adapter == rows[0].adapter for row in rows) and all(files == exported[0] for files in exported)


def run_stage(folder: Path, program: tuple[str, str], limit: dict[str, str], settings: tuple[str, ...]) -> None:
    """Run a stage in a folder under a limit, from its beginning, without the fixed arithmetic of this process."""
    shutil.rmtree(folder / ".checkpoints", ignore_errors=True)
    inherited = {key: value for key, value in os.environ.items() if key not in (*FIXED, variants.CHOICE)}
    command = [sys.executable, *program, *settings, *SETTINGS]
    environment = inherited | {"PYTHONPATH": str(ROOT)} | limit
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)


def table(rows: list[Row], model: str, steps: int) -> str:
    """Return the rows as Markdown."""
    names, said = list(rows[0].files), "the same" if are_same(rows) else "NOT the same"
    lines = [
        f"# {model} after {steps} updates on a CPU: {said} under every limit",
        "",
        f"SHA-256, the first {SHOWN} digits; `benchmarks/same_bytes.py` says what is measured.",
        "",
        f"| limit | adapter, arithmetic not fixed | adapter | {' | '.join(names)} |",
        f"|---|---|---|{'---|' * len(names)}",
    ]
    for row in rows:
        digests = (row.adapter_not_fixed, row.adapter, *(row.files.get(name, "") for name in names))
        lines.append(f"| {row.limit} | {' | '.join(digest[:SHOWN] for digest in digests)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
