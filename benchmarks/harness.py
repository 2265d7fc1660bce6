"""How lm-evaluation-harness's tasks come out of a GGUF by our model class, beside Transformers and the harness's way.

    python -m benchmarks.harness --gsm8k FOLDER     writes benchmarks/results/harness.json and .md
    python -m benchmarks.harness --models starter-m     of one model alone, and keeps what they have of the other

Asked are eight tasks in the harness's formats (harness_tasks.py), of SmolLM2 (135 M parameters, out of its Python
package) and of the starter. Transformers computes in float32 on the CPU, the harness's `hf`; ours reads the F16 file
that the pipeline's converter makes of the same weights. They agree on an item where each metric and filter gives it the
same.

The harness's own way, `gguf`, asks llama-cpp-python's server, which is started as it comes with as many threads as
there are CPUs. It is given the first few items of each task, and so are we once more, in turn, for the seconds and the
CPU seconds of both. It has no rolling log-likelihood, and lets the server end what is written after 16 tokens.

Needs `pip install -e .[harness]`, and for the server `pip install llama-cpp-python[server]`.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import TypedDict, cast

import psutil

from benchmarks.harness_tasks import write_tasks
from benchmarks.inputs import REPOSITORY
from benchmarks.pipeline import facts
from common.files import write_json, write_text
from llama.cpus import usable_cpus
from pipeline.core.composition import compose
from pipeline.core.config import load
from pipeline.gguf.convert import convert
from pipeline.models.packaged import located

RESULT = REPOSITORY / "benchmarks/results/harness.json"
PEER_CANNOT = ("wikitext",)
CONTEXT = 1024  # tokens that the server has room for, as many as the starter
MODELS = ("smollm2-135m-pypi", "starter-m")
GRADES = ("acc", "acc_norm", "exact_match")
STARTED = 600  # seconds in which the server is there


class Found(TypedDict):
    """What a way found of a model."""

    seconds: float
    cpu_seconds: float
    grades: dict[str, list[list[int | float | str]]]  # of a task: item, filter, and its grades
    results: dict[str, dict[str, float]]


class Agreement(TypedDict):
    """How far two ways agree on a task, and the first figure of each way."""

    items: int
    agree: int
    figure: str
    hf: float
    ours: float
    gguf_few: float | None  # of few items


class Compared(TypedDict):
    """What was found of a model: how far ways agree, and seconds."""

    tasks: dict[str, Agreement]
    all_items: dict[str, dict[str, float]]
    few_items: dict[str, dict[str, float]]


def main() -> None:
    """Compare, and write the result; or be the process that asks one model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gsm8k", type=Path, help="a folder with its train.jsonl and test.jsonl")
    parser.add_argument("--items", type=int, default=100, help="of a task")
    parser.add_argument("--generations", type=int, default=30, help="of a task in which the model writes")
    parser.add_argument("--peer-items", type=int, default=5, help="of a task, for the harness's own way")
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--ask", nargs=4, help=argparse.SUPPRESS)  # a way, its model, a limit, the result
    parser.add_argument("tasks", nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ask:
        way, model, limit, result = arguments.ask
        ask(way, model, limit, result, arguments.tasks)
        return
    with tempfile.TemporaryDirectory() as folder:
        tasks = write_tasks(Path(folder), arguments.items, arguments.generations, arguments.gsm8k)
        measured = {name: compared(name, tasks, arguments.peer_items, Path(folder)) for name in arguments.models}
    before = json.loads(RESULT.read_text())["models"] if RESULT.is_file() else {}
    here, models = facts(), {**before, **measured}
    write_json(RESULT, {**here, "models": models})
    write_text(RESULT.with_suffix(".md"), page(models, here["date"], here["machine"]))
    sys.stdout.write(RESULT.with_suffix(".md").read_text())


def compared(name: str, tasks: Sequence[Path], few: int, folder: Path) -> Compared:
    """Return how a model's grades agree, and how long the ways take."""
    source, file = files(name, folder)
    reference, ours = (asked(way, str(of), None, tasks, folder) for way, of in (("hf", source), ("ours", file)))
    possible = [task for task in tasks if task.stem not in PEER_CANNOT]
    with server(file) as (url, process):
        times = process.cpu_times()
        loaded = times.user + times.system
        peer = asked("gguf", url, few, possible, folder)
        times = process.cpu_times()
    peer["cpu_seconds"] += times.user + times.system - loaded
    again = asked("ours", str(file), few, possible, folder)
    return {
        "tasks": {task.stem: agreement(reference, ours, peer, f"local_{task.stem}") for task in tasks},
        "all_items": {"hf": seconds(reference), "ours": seconds(ours)},
        "few_items": {"gguf": seconds(peer), "ours": seconds(again)},
    }


def files(name: str, folder: Path) -> tuple[Path, Path]:
    """Return a model's folder, and its F16 file, made of it in `folder`."""
    settings = load(compose(REPOSITORY / "conf", [f"model={name}"])).model
    source = Path(
        located(str(REPOSITORY / settings.path) if name.startswith("starter") else settings.path, settings.revision)[0]
    )
    convert(source, folder / f"{name}.gguf", "F16")
    return source, folder / f"{name}.gguf"


def asked(way: str, model: str, limit: int | None, tasks: Sequence[Path], folder: Path) -> Found:
    """Return what a process of its own finds of a model."""
    result = folder / "result.json"
    command = [sys.executable, "-m", "benchmarks.harness", "--ask", way, model, str(limit or 0), str(result)]
    subprocess.run([*command, *map(str, tasks)], check=True, cwd=REPOSITORY)
    return cast(Found, json.loads(result.read_text()))


def ask(way: str, model: str, limit: str, result: str, tasks: Sequence[str]) -> None:
    """Ask a model the tasks, and write what came of it; the seconds are of its answers alone."""
    os.environ["HF_DATASETS_CACHE"] = str(Path(result).parent / "datasets")
    from lm_eval import simple_evaluate

    language_model = LOADERS[way](model)
    spent = {"seconds": 0.0, "cpu_seconds": 0.0}
    for kind in ("loglikelihood", "loglikelihood_rolling", "generate_until"):
        setattr(language_model, kind, timed(getattr(language_model, kind), spent))
    found = simple_evaluate(language_model, tasks=list(tasks), limit=int(limit) or None, bootstrap_iters=0)
    grades = {task: [_grades(sample) for sample in samples] for task, samples in found["samples"].items()}
    write_json(Path(result), {**spent, "grades": grades, "results": _figures(found["results"])})


def timed(answer: Callable[..., object], spent: dict[str, float]) -> Callable[..., object]:
    """Return the same, which adds the seconds that it takes."""

    def answer_timed(*arguments: object, **options: object) -> object:
        begun, cpu = time.perf_counter(), time.process_time()
        answered = answer(*arguments, **options)
        spent["seconds"] += time.perf_counter() - begun
        spent["cpu_seconds"] += time.process_time() - cpu
        return answered

    return answer_timed


def _transformers(model: str) -> object:
    from lm_eval.models.huggingface import HFLM

    # Without its cache of logits, which gives some of the requests that begin alike another one's (0.4.13).
    return HFLM(model, dtype="float32", device="cpu", batch_size=8, logits_cache=False)


def _ours(model: str) -> object:
    from llama.harness import GGUF

    return GGUF(model)


def _gguf(url: str) -> object:
    from lm_eval.models.gguf import GGUFLM

    return GGUFLM(url)


LOADERS = {"hf": _transformers, "ours": _ours, "gguf": _gguf}


def _grades(sample: dict[str, int | float | str]) -> list[int | float | str]:
    """Return which item it is, by which filter, and its grades."""
    return [sample["doc_id"], sample["filter"], *(float(sample[grade]) for grade in GRADES if grade in sample)]


def _figures(results: dict[str, dict[str, object]]) -> dict[str, dict[str, float]]:
    return {
        task: {key: float(value) for key, value in of_task.items() if "," in key and isinstance(value, int | float)}
        for task, of_task in results.items()
    }


def agreement(reference: Found, ours: Found, peer: Found, task: str) -> Agreement:
    """Return on how many items each grade is the same, and the first figure of each way."""
    one, other = ({tuple(grade) for grade in found["grades"][task]} for found in (reference, ours))
    graded = {grade[0] for grade in one if len(grade) > 2}
    figures = list(reference["results"][task])
    figure = next((figure for figure in figures if figure.partition(",")[0] in GRADES), figures[0])
    return Agreement(
        items=len(graded),
        agree=len(graded - {grade[0] for grade in one ^ other}),
        figure=figure.removesuffix(",none"),
        hf=reference["results"][task][figure],
        ours=ours["results"][task][figure],
        gguf_few=peer["results"].get(task, {}).get(figure),
    )


def seconds(found: Found) -> dict[str, float]:
    """Return the seconds that asking took."""
    return {"seconds": round(found["seconds"], 2), "cpu_seconds": round(found["cpu_seconds"], 2)}


@contextmanager
def server(file: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Start llama-cpp-python's server for a file, as the harness's documentation says; yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {"model": file, "port": port, "n_threads": usable_cpus(), "logits_all": "true", "n_ctx": CONTEXT}
    command = [sys.executable, "-m", "llama_cpp.server", *(f"--{key}={value}" for key, value in options.items())]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(f"{url}/v1/models", process)
        yield url, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    """Return when a server answers."""
    for _ in range(STARTED):
        if process.poll() is not None:
            raise SystemExit("llama_cpp.server does not start: is llama-cpp-python[server] installed?")
        with suppress(OSError), urllib.request.urlopen(url):  # noqa: S310 -- our own
            return
        time.sleep(1)
    raise SystemExit(f"llama_cpp.server does not answer within {STARTED} seconds")


def page(models: dict[str, Compared], date: str, machine: dict[str, object]) -> str:
    """Return the result as Markdown."""
    lines = [
        f"# lm-evaluation-harness's tasks of an F16 file, on {machine['cpus']} CPUs ({machine['processor']})",
        "",
        f"{date}; lm-eval {version('lm_eval')}, llama-cpp-python {version('llama-cpp-python')}, transformers"
        f" {version('transformers')}. `benchmarks/harness.py` says what is measured.",
        "",
        "| model | task | items | agree with Transformers | figure | Transformers, float32 | ours |",
        "|---|---|--:|--:|---|--:|--:|",
    ]
    for name, model in models.items():
        for task, one in model["tasks"].items():
            agree = f"{one['agree'] / one['items']:.1%}" if one["items"] else ""
            figures = f"{one['figure']} | {one['hf']:.4f} | {one['ours']:.4f}"
            lines.append(f"| {name} | {task} | {one['items'] or ''} | {agree} | {figures} |")
        items, same = (sum(one[key] for one in model["tasks"].values()) for key in ("items", "agree"))
        lines.append(f"| {name} | all | {items} | {same / items:.2%} | | | |")
    lines += ["", "| model | items | way | seconds | CPU seconds | seconds / ours |", "|---|---|---|--:|--:|--:|"]
    for name, model in models.items():
        for which, ways in (("all", model["all_items"]), ("few", model["few_items"])):
            for way, spent in ways.items():
                ratio = spent["seconds"] / ways["ours"]["seconds"]
                figures = f"{spent['seconds']} | {spent['cpu_seconds']} | {ratio:.1f}"
                lines.append(f"| {name} | {which} | {way} | {figures} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
