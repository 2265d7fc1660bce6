"""Chat serving on a CPU: ours beside llama.cpp's server, xllamacpp and llama-cpp-python, in the same run.

    python -m benchmarks.serve                               all of it on the 1B shape
    python -m benchmarks.serve --quick                       one short round of each, to see that it works
    python -m benchmarks.serve --model starter --only load   the starter instead, or any GGUF; one scenario

Scenarios: `one-user` asks with a short and with a long prompt; `later-turns` goes on with conversations, alone and four
in turn; `four-users` ask at once; `load` has many clients ask the starter for minutes.

The model is made once: Llama 3.2 1B's shape with random weights and Llama 3's own vocabulary, in Q4_K_M. The peers are
made once, too: llama.cpp's programs are compiled, xllamacpp gets an environment of its own. Then each peer is a process
of its own, one after the other, round after round, so that what else the machine does hits all of them. What was
measured is kept in FOLDER/runs and not measured again; another CPU, version or code of serve/ begins all anew.
benchmarks/results/serve.md has the table of all so far, serve.json all that was measured; of another model than 1b,
serve-MODEL has. A quick run's stay in FOLDER/runs.
"""

import argparse
import hashlib
import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import gguf
import numpy as np
import psutil
from llama_cpp import Llama

from benchmarks.serve_peers import LLAMA_SERVER, PEERS, XLLAMACPP_PYTHON
from benchmarks.serve_table import merged, table, verdict
from benchmarks.train import execute, read, reason
from common.errors import UserError
from common.files import atomic_path, write_json, write_text
from common.package_index import exclusive
from llama import source
from llama.cpus import usable_cpus
from pipeline.gguf.convert import convert
from pipeline.gguf.quantize import quantize

REPOSITORY = Path(__file__).parents[1]
STARTER = REPOSITORY / "starter/models/starter-m"
CHATS = REPOSITORY / "starter/chats.jsonl"
SEED = 0
RUN_SECONDS = 900  # that one run may take, beside the minutes of load; then it has failed

# Which peers a scenario asks, in the order of a round: ours stands next to the one that its goals name.
SCENARIOS = {
    "one-user": ("llama-bench", "ours", "llama-server", "xllamacpp", "plain-all", "plain"),
    "later-turns": ("ours", "llama-server", "xllamacpp", "plain-all"),
    "four-users": ("ours", "llama-server", "xllamacpp", "plain-all", "plain"),
    "load": ("ours", "llama-server"),
}

# Llama 3.2 1B's.
LAYERS, WIDTH, FEED_FORWARD, HEADS, KV_HEADS, HEAD = 16, 2048, 8192, 32, 8, 64
CONTEXT, ROPE_THETA, EPSILON = 131072, 500000.0, 1e-5
SCALE = 0.02  # of its random weights
BLOCK = 4096  # rows of weights drawn at a time
# A word behind a space, of one token: all that the model ever says, see `weights`.
WORD = re.compile("Ġ[a-z]{3,}")
# Llama 3's without dates and tools. Texts are not trimmed, so that an answer, which here begins with a space, is the
# same tokens when it comes back as history.
CHAT_TEMPLATE = (
    "{{- bos_token }}{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] + '<|eot_id|>' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)

XLLAMACPP = "2026.10.11549"
# Beside those of the wheel (llama/source.py): no more than the two programs, and nothing from the network.
PROGRAMS = ("llama-bench", "llama-server")
LEAN_FLAGS = (
    "-DCMAKE_BUILD_TYPE=Release -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF"
    " -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF"
)


@dataclass(frozen=True)
class Sizes:
    """How much is asked."""

    rounds: int = 3  # processes of each peer
    repeats: int = 2  # questions of a kind in each of them
    prompt: int = 500  # tokens of the long prompt
    decode: int = 128  # tokens of the answer to a short one
    system: int = 64  # tokens of the system prompt that conversations share
    lone: int = 2  # conversations before those of four users in turn
    turns: int = 6
    turn: int = 96  # tokens of a question in a conversation
    turn_answer: int = 24
    together: int = 160  # tokens of a question that comes with three others
    together_answer: int = 96
    clients: int = 64
    minutes: float = 1.0
    chats: int = 128  # that the clients of the load choose from
    load_answer: int = 64


QUICK = Sizes(1, 1, 500, 48, 64, 1, 3, 64, 8, 64, 32, 64, 0.25, 32, 32)


@dataclass(frozen=True)
class Run:
    """One process of one peer."""

    scenario: str
    peer: str
    round: int


@dataclass(frozen=True)
class Bench:
    """Where one comparison keeps what it needs and what it has measured."""

    folder: Path
    model: str  # its name
    setup: dict[str, Any]
    sizes: Sizes

    @property
    def runs(self) -> Path:
        """What was measured, a JSON file a run; another folder for another machine, code or size.

        How many the load's clients are and how long they ask stands in the names of its files.
        """
        key = json.dumps([self.setup, vars(replace(self.sizes, clients=0, minutes=0))], sort_keys=True).encode()
        return self.folder / "runs" / f"{self.model}-{hashlib.sha256(key).hexdigest()[:12]}"

    def name(self, scenario: str) -> str:
        """Return the folder of a scenario's files."""
        return f"load-{self.sizes.clients}-{self.sizes.minutes:g}min" if scenario == "load" else scenario

    def inputs(self, scenario: str) -> Path:
        """Return what a scenario asks."""
        return self.runs / f"{self.name(scenario)}.inputs.json"

    def file(self, run: Run, kind: str = "json") -> Path:
        """Return one of a run's files."""
        return self.runs / f"{self.name(run.scenario)}.{run.peer}.{run.round}.{kind}"

    def all_runs(self, scenario: str) -> Iterator[Run]:
        """Round by round, in a round peer by peer."""
        rounds = 1 if scenario == "load" else self.sizes.rounds
        return (Run(scenario, peer, number) for number in range(rounds) for peer in SCENARIOS[scenario])

    def result(self, run: Run) -> dict[str, Any] | None:
        """Return a finished run's figures, or why it failed."""
        return read(self.file(run))


def main() -> None:
    """Make model and peers, run what is missing while there is time, write the table."""
    arguments = parse()
    deadline = time.monotonic() + arguments.seconds
    folder = arguments.folder.absolute()
    model = make_model(arguments.model, folder)
    models = {scenario: make_model("starter", folder) if scenario == "load" else model for scenario in arguments.only}
    bench = Bench(folder, model.stem, facts(model), sizes(arguments))
    broken = make_peers(folder, {peer for scenario in arguments.only for peer in SCENARIOS[scenario]})
    write_json(bench.runs / "setup.json", bench.setup | {"sizes": vars(bench.sizes)})
    write_inputs(bench, models)
    run_missing(bench, [run for scenario in arguments.only for run in bench.all_runs(scenario)], broken, deadline)
    report = collect(bench)
    results = arguments.results or (bench.runs if arguments.quick else REPOSITORY / "benchmarks/results")
    name = "serve" if arguments.model == "1b" else f"serve-{bench.model}"
    write_json(results / f"{name}.json", report)
    write_text(results / f"{name}.md", table(report))
    print(table(report))


def parse() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="1b", help="1b, starter, or the path of a GGUF")
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=list(SCENARIOS), metavar="SCENARIO")
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it works")
    parser.add_argument("--clients", type=int, help=f"of the load ({Sizes.clients})")
    parser.add_argument("--load-minutes", type=float, help=f"that it lasts ({Sizes.minutes:g}; quick {QUICK.minutes})")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="in which runs are begun; then it ends")
    parser.add_argument("--folder", type=Path, default=REPOSITORY / ".cache/bench-serve")
    parser.add_argument("--results", type=Path, help="benchmarks/results; of a quick run, with what it measured")
    return parser.parse_args()


def sizes(arguments: argparse.Namespace) -> Sizes:
    """Return those of the command line."""
    chosen = QUICK if arguments.quick else Sizes()
    return replace(
        chosen,
        clients=arguments.clients or chosen.clients,
        minutes=arguments.load_minutes or chosen.minutes,
    )


def facts(model: Path) -> dict[str, Any]:
    """Return what the runs of a comparison share.

    The processor, the packages, the model and the code that serves and asks.
    """
    return {
        "processor": processor(),
        "cpus": usable_cpus(),
        "threads": usable_cpus(),
        "packages": {"llama-cpp-python": version("llama-cpp-python"), "xllamacpp": XLLAMACPP},
        "model": {"file": model.name, "bytes": model.stat().st_size},
        "code": code(),
    }


def processor() -> str:
    """Return the processor's name."""
    names = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return names[0] if names else "a CPU"


def code() -> str:
    """Return the digest of what serves and of what asks."""
    digest = hashlib.sha256()
    for path in [*sorted((REPOSITORY / "serve").rglob("*.py")), REPOSITORY / "benchmarks/serve_peers.py"]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def run_missing(bench: Bench, runs: list[Run], broken: dict[str, str], deadline: float) -> None:
    """Make those runs that have no result yet, in turn, as far as the time reaches.

    Args:
        bench: where the results are.
        runs: in their order.
        broken: peers that could not be made, and why.
        deadline: of the monotonic clock. A run is begun if the longest of its scenario so far would still fit.
    """
    for index, run in enumerate(runs):
        results = [result for other in bench.all_runs(run.scenario) if (result := bench.result(other))]
        if bench.result(run) is not None or failed_before(bench, run):
            continue
        if bench.setup["code"] != code():
            print("the code has changed since this command began; the same command begins anew")
            return
        if deadline - time.monotonic() < max((result["wall_seconds"] for result in results), default=0):
            print(f"not begun, for lack of time: {len(runs) - index} runs; the same command goes on from here")
            return
        print(f"{time.strftime('%H:%M:%S')} {run.scenario}, {run.peer} ({index + 1} of {len(runs)})", flush=True)
        why = broken.get(run.peer)
        outcome = {"failed": why, "wall_seconds": 0.0} if why else measure(bench, run)
        write_json(bench.file(run), outcome)


def failed_before(bench: Bench, run: Run) -> bool:
    """Return whether the peer has failed in an earlier round; once is enough."""
    earlier = (bench.result(replace(run, round=number)) for number in range(run.round))
    return any("failed" in result for result in earlier if result)


def measure(bench: Bench, run: Run) -> dict[str, Any]:
    """Return one run's figures, or why it failed."""
    log, output = bench.file(run, "log"), bench.file(run, "measured")
    output.unlink(missing_ok=True)
    limit = RUN_SECONDS + (60 * bench.sizes.minutes if run.scenario == "load" else 0)
    start, before = time.monotonic(), busy_elsewhere()
    module = ["benchmarks.serve_peers", run.peer, run.scenario, str(bench.inputs(run.scenario)), str(output)]
    status = execute(module, bench.runs, log, start + limit)
    taken = time.monotonic() - start
    others = (busy_elsewhere() - before) / taken / (os.cpu_count() or 1)
    figures = read(output)
    if status is None:
        figures = {"failed": f"not done after {limit:.0f} s"}
    elif status != 0 or figures is None:
        figures = {"failed": f"status {status}: {reason(log)}"}
    output.unlink(missing_ok=True)
    return {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "wall_seconds": round(taken, 1),
        "others_share": round(max(others, 0), 3),
        **figures,
    }


def busy_elsewhere() -> float:
    """Return CPU seconds that the machine has spent on anything but our own children, those that have ended."""
    times, own = psutil.cpu_times(), resource.getrusage(resource.RUSAGE_CHILDREN)
    return sum(times) - times.idle - times.iowait - times.guest - times.guest_nice - own.ru_utime - own.ru_stime


def collect(bench: Bench) -> dict[str, Any]:
    """Return all that was measured so far, with what it says about the goals."""
    scenarios: dict[str, Any] = {}
    kernels: dict[str, str] = {}
    others: list[float] = []
    for scenario, peers in SCENARIOS.items():
        results = {run: result for run in bench.all_runs(scenario) if (result := bench.result(run))}
        others += [result["others_share"] for result in results.values() if "others_share" in result]
        kernels |= {run.peer: result["kernels"] for run, result in results.items() if result.get("kernels")}
        scenarios[scenario] = {
            peer: merged([result for run, result in results.items() if run.peer == peer]) for peer in peers
        }
    return {
        "date": time.strftime("%Y-%m-%d"),
        "model": bench.model,
        "starter": STARTER.name,
        "quick": bench.sizes.rounds == QUICK.rounds,
        "setup": bench.setup,
        "sizes": vars(bench.sizes),
        "others_share": {"median": median(others), "most": max(others)} if others else None,
        "kernels": kernels,
        "peers": PEERS,
        "scenarios": scenarios,
        "verdicts": {
            scenario: {figure: verdict(scenario, figure, runs) for figure in runs["ours"].get("figures", {})}
            for scenario, runs in scenarios.items()
        },
    }


# what is asked


def write_inputs(bench: Bench, models: dict[str, Path]) -> None:
    """Write the questions of each scenario, the same for all peers and rounds.

    Args:
        bench: where they go.
        models: the model that each scenario asks.
    """
    words = sorted(set(re.findall(r"\b[a-z]{3,}\b", CHATS.read_text(encoding="utf-8"))))
    for scenario, model in models.items():
        count, draw = token_counter(model), random.Random(f"{SEED} {scenario}")

        def text(tokens: int, count: Callable[[str], int] = count, draw: random.Random = draw) -> str:
            return text_of(tokens, count, words, draw)

        common = {"folder": str(bench.folder), "threads": bench.setup["threads"], "model": str(model)}
        common["slots"] = 1 if scenario == "one-user" else 4
        write_json(bench.inputs(scenario), common | questions(scenario, bench.sizes, text))


def questions(scenario: str, sizes: Sizes, text: Callable[[int], str]) -> dict[str, Any]:
    """Return what a scenario asks, and how long the answers are to be, in tokens.

    Args:
        scenario: one of SCENARIOS.
        sizes: how much.
        text: makes a new text of so many tokens.
    """
    if scenario == "one-user":  # no text is asked twice, or its beginning would be known
        short = [[said("user", text(16))] for _ in range(sizes.repeats)]
        long = [[said("user", text(sizes.prompt))] for _ in range(sizes.repeats)]
        return {"short": short, "long": long, "prompt": sizes.prompt, "answer": sizes.decode}
    if scenario == "later-turns":
        users = [[text(sizes.turn) for _ in range(sizes.turns)] for _ in range(sizes.lone + 4)]
        return {
            "system": text(sizes.system),
            "alone": users[: sizes.lone],
            "in turn": users[sizes.lone :],
            "answer": sizes.turn_answer,
        }
    if scenario == "four-users":
        system = said("system", text(sizes.system))
        waves = [[[system, said("user", text(sizes.together))] for _ in range(4)] for _ in range(sizes.repeats)]
        return {"waves": waves, "answer": sizes.together_answer}
    seconds = 60 * sizes.minutes
    return {"chats": chats(sizes.chats), "clients": sizes.clients, "seconds": seconds, "answer": sizes.load_answer}


def said(role: str, content: str) -> dict[str, str]:
    """Return a message."""
    return {"role": role, "content": content}


def text_of(tokens: int, count: Callable[[str], int], words: list[str], draw: random.Random) -> str:
    """Return words drawn at random that make as many tokens, or a part of a word fewer.

    Args:
        tokens: wanted.
        count: of a text's tokens.
        words: to draw from.
        draw: the source of chance.
    """
    drawn = draw.choices(words, k=tokens)  # none takes less than a token
    kept = bisect_right(range(tokens + 1), tokens, key=lambda length: count(" ".join(drawn[:length]))) - 1
    return " ".join(drawn[: max(kept, 1)])


def chats(number: int) -> list[list[dict[str, str]]]:
    """Return distinct conversations of the starter's, each up to its last question."""
    lines = CHATS.read_text(encoding="utf-8").splitlines()
    conversations = dict.fromkeys(json.dumps(json.loads(line)["messages"][:-1]) for line in lines)
    return [json.loads(chat) for chat in random.Random(SEED).sample(list(conversations), number)]


def token_counter(model: Path) -> Callable[[str], int]:
    """Count a text's tokens as a GGUF's tokenizer makes them, without the one that begins all."""
    tokenizer = Llama(str(model), vocab_only=True, verbose=False)
    return lambda text: len(tokenizer.tokenize(text.encode(), add_bos=False))


# what is measured


def make_model(choice: str, folder: Path, kind: str | None = None) -> Path:
    """Return the GGUF that `--model` names; made where it is missing, in two minutes on two cores.

    Args:
        choice: 1b, starter or a path.
        folder: where it is made.
        kind: its type; by itself Q4_K_M, of the starter Q8_0.
    """
    if choice not in ("1b", "starter"):
        path = Path(choice).absolute()
        if not path.is_file():
            sys.exit(f"--model {choice}: there is no such file; it may be 1b, starter or the path of a GGUF")
        return path
    kind = kind or ("Q4_K_M" if choice == "1b" else "Q8_0")
    file = folder / "models" / f"{'llama-3.2-1b-random' if choice == '1b' else STARTER.name}-{kind}.gguf"
    if not file.is_file():
        print(f"making {file.name}", flush=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as folder_of_one, atomic_path(file) as temporary:
            unquantized = Path(folder_of_one) / "f16.gguf"
            write_random(unquantized) if choice == "1b" else convert(STARTER, unquantized, "F16")
            quantize(unquantized, temporary, kind)
    return file


def write_random(path: Path) -> None:
    """Write Llama 3.2 1B's shape with random 16-bit weights, one in memory at a time, and Llama 3's vocabulary."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("Llama 3.2 1B, random")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD)
    writer.add_value_length(HEAD)
    writer.add_rope_dimension_count(HEAD)
    writer.add_rope_freq_base(ROPE_THETA)
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_chat_template(CHAT_TEMPLATE)
    tokens = add_vocabulary(writer)
    shapes = tensor_shapes(len(tokens))
    for name, shape in shapes.items():
        kind = np.dtype(np.float16 if len(shape) == 2 else np.float32)
        writer.add_tensor_info(name, shape, kind, int(np.prod(shape)) * kind.itemsize)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    draw = np.random.default_rng(SEED)
    for name, shape in shapes.items():
        writer.write_tensor_data(weights(name, shape, tokens, draw))
    writer.close()


def add_vocabulary(writer: gguf.GGUFWriter) -> list[str]:
    """Copy Llama 3's from llama.cpp's sources; return its tokens."""
    fields = gguf.GGUFReader(source.llama_cpp_tree() / "models/ggml-vocab-llama-bpe.gguf").fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types(fields["tokenizer.ggml.token_type"].contents())
    writer.add_token_merges(fields["tokenizer.ggml.merges"].contents())
    writer.add_bos_token_id(tokens.index("<|begin_of_text|>"))
    writer.add_eos_token_id(tokens.index("<|eot_id|>"))
    return tokens


def tensor_shapes(vocabulary: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all tensors, rows first; head and embedding are one."""
    keys = KV_HEADS * HEAD
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (vocabulary, WIDTH), "output_norm.weight": (WIDTH,)}
    for layer in range(LAYERS):
        parts = {
            "attn_norm": (WIDTH,),
            "attn_q": (WIDTH, WIDTH),
            "attn_k": (keys, WIDTH),
            "attn_v": (keys, WIDTH),
            "attn_output": (WIDTH, WIDTH),
            "ffn_norm": (WIDTH,),
            "ffn_gate": (FEED_FORWARD, WIDTH),
            "ffn_up": (FEED_FORWARD, WIDTH),
            "ffn_down": (WIDTH, FEED_FORWARD),
        }
        shapes |= {f"blk.{layer}.{part}.weight": shape for part, shape in parts.items()}
    return shapes


def weights(name: str, shape: tuple[int, ...], tokens: list[str], draw: np.random.Generator) -> np.ndarray:
    """Return a tensor's values.

    The embedding, which is the head, is zero but for whole words. So the model says these alone: no answer ends early,
    and each token is a text that can be shown at once, with every peer.
    """
    if len(shape) == 1:
        return np.ones(shape, np.float32)
    values = np.empty(shape, np.float16)
    for start in range(0, shape[0], BLOCK):
        rows = values[start : start + BLOCK]
        rows[:] = draw.standard_normal(rows.shape, np.float32) * SCALE
    if name == "token_embd.weight":
        values[[not WORD.fullmatch(token) for token in tokens]] = 0
    return values


def make_peers(folder: Path, peers: set[str]) -> dict[str, str]:
    """Make what peers need where it is missing; return those that cannot be made, with the reason."""
    makers: dict[Callable[[Path], None], set[str]] = {
        build_llama_cpp: {"llama-bench", "llama-server"},
        install_xllamacpp: {"xllamacpp"},
    }
    broken: dict[str, str] = {}
    for make, made in makers.items():
        try:
            if made & peers:
                make(folder)
        except (UserError, OSError) as error:
            broken |= dict.fromkeys(made, str(error))
    return broken


def call(command: list[str], log: Path) -> None:
    """Run a command, its output added to `log`. Raises UserError with the reason if it fails."""
    with log.open("a") as output:
        status = subprocess.run(command, stdout=output, stderr=output, check=False).returncode
    if status:
        raise UserError(f"{reason(log)}; {log} has it all")


def build_llama_cpp(folder: Path) -> None:
    """Build llama.cpp's programs from the sources of the installed llama-cpp-python, with the flags of its wheel.

    Takes seven minutes on two cores.
    """
    flags = f"{source.cmake_flags()} {LEAN_FLAGS}"
    version = f"{source.VERSION}-{source.kind()}"  # and what is patched
    tree, build = folder / "llama.cpp-src" / version, folder / "llama.cpp-build"
    stamp, recipe = build / "made-by", f"{version} {flags}"
    if stamp.is_file() and stamp.read_text() == recipe and (folder / LLAMA_SERVER).is_file():
        return
    print("building llama-bench and llama-server", flush=True)
    shutil.rmtree(build, ignore_errors=True)
    if not tree.is_dir():
        with (
            exclusive(source.cache_folder()),
            source._unpacked_sdist() as unpacked,
            atomic_path(tree) as temporary,
        ):
            source._patch(unpacked)
            shutil.move(unpacked / "vendor/llama.cpp", temporary)
    build.mkdir(parents=True)
    call(["cmake", "-S", str(tree), "-B", str(build), *flags.split()], build / "log")
    compiler = ["cmake", "--build", str(build), "--parallel", str(usable_cpus()), "--target", *PROGRAMS]
    call(compiler, build / "log")
    stamp.write_text(recipe)


def install_xllamacpp(folder: Path) -> None:
    """Install xllamacpp's wheel in an environment of its own."""
    python = folder / XLLAMACPP_PYTHON
    installed = list(python.parents[1].glob(f"lib/*/site-packages/xllamacpp-{XLLAMACPP}.dist-info"))
    if installed:
        return
    call([sys.executable, "-m", "venv", str(python.parents[1])], folder / "xllamacpp.log")
    pip = [str(python), "-m", "pip", "install", "--only-binary", ":all:", f"xllamacpp=={XLLAMACPP}"]
    call(pip, folder / "xllamacpp.log")


if __name__ == "__main__":
    main()
