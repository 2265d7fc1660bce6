"""A task of one's own through lm-evaluation-harness, as far as that is installed."""

import copy
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from common.errors import UserError
from llama.model import Weights
from pipeline.core.config import Config
from pipeline.evaluation.harness import check_installed, model_task_scores, read_scores, task_scores

STARTER = Path(__file__).parents[3] / "starter/models/starter-s"
INSTALLED = find_spec("lm_eval") is not None
Settings = Callable[..., Config]
needs_harness = pytest.mark.skipif(not INSTALLED, reason="lm-evaluation-harness is not installed")
ROWS = [
    {"begin": "The capital of France is", "options": [" Paris.", " zq xv jj kkq."], "right": 0},
    {"begin": "Two plus two", "options": [" vvx jq zz.", " is four."], "right": 1},
    {"begin": "The plural of mouse is", "options": [" mice.", " zq.", " qq qq."], "right": 0},
]
CHOICE = {
    "output_type": "multiple_choice",
    "doc_to_text": "{{begin}}",
    "doc_to_choice": "{{options}}",
    "doc_to_target": "{{right}}",
    "target_delimiter": "",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}
SAYING = {
    "output_type": "generate_until",
    "doc_to_text": "{{begin}}",
    "doc_to_target": "{{options[right]}}",
    "generation_kwargs": {"until": ["\n", " is"], "max_gen_toks": 12},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}


@pytest.fixture
def make_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write a task's YAML; by default a choice between what was pretrained on and noise."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))

    def make(name: str = "sense", form: dict[str, Any] = CHOICE, **changed: Any) -> Path:
        data = {"data_files": {"test": str(tmp_path / "rows.jsonl")}}
        settings = {"task": name, "dataset_path": "json", "dataset_kwargs": data, "test_split": "test"}
        path = tmp_path / f"{name}.yaml"
        path.write_text(json.dumps({**settings, **form, **changed}))  # which is YAML too
        return path

    return make


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(STARTER, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def weights(ggufs: dict[str, Path]) -> Iterator[Weights]:
    with Weights(ggufs["F16"]) as weights:
        yield weights


@pytest.fixture
def both(weights: Weights, model: Any) -> tuple[Any, Any]:
    """The harness's class for Transformers, and ours for the file of the same weights."""
    from lm_eval.models.huggingface import HFLM

    from llama.harness import GGUF

    return HFLM(model, tokenizer=AutoTokenizer.from_pretrained(STARTER)), GGUF(weights)


def asked(kind: str, *arguments: object) -> Any:
    from lm_eval.api.instance import Instance

    return Instance(kind, {}, arguments, 0)  # type: ignore[arg-type]


@pytest.mark.skipif(INSTALLED, reason="lm-evaluation-harness is installed")
def test_without_the_harness_there_is_one_line_that_says_so() -> None:
    with pytest.raises(UserError, match=r"lm-evaluation-harness is not installed; run `pip install -e \.\[harness\]`"):
        check_installed(["arc_easy"])
    check_installed([])


@needs_harness
def test_a_task_of_ones_own_is_scored_question_by_question(
    make_task: Callable[..., Path], weights: Weights, tuned_config: Settings
) -> None:
    task = make_task()
    check_installed([str(task)])
    found = task_scores(weights, tuned_config(f"evaluate.tasks=[{task}]").evaluate)
    assert found == ({"sense": 1.0}, {"sense": (1.0, 1.0, 1.0)})
    limited = task_scores(weights, tuned_config(f"evaluate.tasks=[{task}]", "evaluate.tasks_limit=2").evaluate)
    assert limited == ({"sense": 1.0}, {"sense": (1.0, 1.0)})


@needs_harness
def test_the_file_is_graded_as_transformers_grades_its_model(
    make_task: Callable[..., Path], weights: Weights, model: Any, tuned_config: Settings
) -> None:
    wrong = make_task("wrong", doc_to_target="{{1 - right % 2}}")
    settings = tuned_config(f"evaluate.tasks=[{make_task()},{wrong},{make_task('say', SAYING)}]").evaluate
    found = task_scores(weights, settings)
    assert found == model_task_scores(model, AutoTokenizer.from_pretrained(STARTER), settings)
    assert found.scores["wrong"] < found.scores["sense"]


@needs_harness
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": None}, "the model tunesmith takes the path of a GGUF file"),
        ({"path": "none.gguf"}, "path is none.gguf, which is no file here"),
        ({"path": ".", "depth": 1}, "the model tunesmith takes no depth: path=FILE.gguf"),
        ({"max_length": 0}, "max_length is 0; it may be a whole number, at least 1"),
        ({"max_length": "long"}, "max_length is 'long'; it may be"),
        ({"prefix_token_id": 10**8}, "prefix_token_id is 100000000; it may be a whole number, from 0 to 2,047"),
    ],
)
def test_arguments_that_the_model_cannot_take_end_in_one_line(
    weights: Weights, arguments: dict[str, Any], message: str
) -> None:
    from llama.harness import GGUF

    with pytest.raises(UserError) as raised:
        GGUF(**{"path": weights} | arguments)
    assert str(raised.value).startswith(message)


@needs_harness
def test_a_group_has_the_questions_of_its_tasks(
    make_task: Callable[..., Path], weights: Weights, tmp_path: Path
) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    from llama.harness import GGUF

    group = {"group": "both", "task": [make_task(name).stem for name in ("first", "second")]}
    metrics = [{"metric": "acc", "aggregation": "mean", "weight_by_size": True}]
    (tmp_path / "both.yaml").write_text(json.dumps({**group, "aggregate_metric_list": metrics}))
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    found = simple_evaluate(GGUF(weights), tasks=["both"], task_manager=manager, bootstrap_iters=0)
    assert read_scores("both", found) == ({"both": 1.0}, {"both": (1.0,) * 6})


@needs_harness
@pytest.mark.parametrize(
    "text",
    ["The capital", " The capital ", "", "<|begin_of_text|>The", "été 12\n\n", "<|eot_id|>Yes"],
)
def test_a_text_becomes_the_tokens_that_transformers_gives_the_harness(both: tuple[Any, Any], text: str) -> None:
    theirs, ours = both
    for special in (None, True, False):
        assert ours.tok_encode(text, add_special_tokens=special) == theirs.tok_encode(text, add_special_tokens=special)
    assert (ours.prefix_token_id, ours.eot_token_id) == (theirs.prefix_token_id, theirs.eot_token_id)
    assert ours.max_length == theirs.max_length


@needs_harness
def test_log_likelihoods_are_those_of_transformers(both: tuple[Any, Any]) -> None:
    theirs, ours = both
    long = "The capital of France is Paris. " * 300  # more than the context, so that it is cut from the left
    pairs = [("The capital of France is ", "Paris."), ("", "Two plus two"), ("The sum:", " 4"), (long, "The capital")]
    requests = [asked("loglikelihood", *pair) for pair in pairs]
    found, expected = ours.loglikelihood(requests), theirs.loglikelihood(requests)
    assert [one[0] for one in found] == pytest.approx([one[0] for one in expected], rel=5e-3)
    assert [one[1] for one in found] == [one[1] for one in expected]
    rolled = [asked("loglikelihood_rolling", text) for text in (long, "Two plus two is four.")]
    assert ours.loglikelihood_rolling(rolled) == pytest.approx(theirs.loglikelihood_rolling(rolled), rel=5e-3)


@needs_harness
def test_what_is_written_ends_before_the_texts_that_end_it(both: tuple[Any, Any]) -> None:
    theirs, ours = both
    begins = ["The capital of France is", "Two plus two is", "The plural of mouse", "The capital of France is"]
    ends = [{"until": ["."], "max_gen_toks": 20}, {"until": [], "max_gen_toks": 5}, {"until": "e"}, {"until": ["\n"]}]
    requests = [asked("generate_until", *pair) for pair in zip(begins, ends, strict=True)]
    assert ours.generate_until(requests) == theirs.generate_until(requests)


@needs_harness
@pytest.mark.parametrize("goes_on", [False, True])
def test_a_conversation_is_written_as_transformers_writes_it(both: tuple[Any, Any], goes_on: bool) -> None:
    theirs, ours = both
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi!"}]
    chat += [{"role": "assistant", "content": "The answer"}] * goes_on
    written = ours.apply_chat_template(chat, add_generation_prompt=not goes_on)
    assert written == theirs.apply_chat_template(chat, add_generation_prompt=not goes_on)
    assert ours.chat_template(True) == theirs.chat_template(True)


@needs_harness
@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"output_type": "guess"}, "cannot be loaded"),
        ({"doc_to_text": "{{nothing.at.all}}"}, "cannot be loaded"),
        ({"doc_to_text": "{{begin if right == 0 else nothing.at.all}}"}, "cannot be asked"),
        ({"dataset_kwargs": {"data_files": {"test": "/nowhere/rows.jsonl"}}}, "cannot be"),
        ({"metric_list": [{"metric": "acc", "higher_is_better": False}]}, "has no metric of which more is better"),
        ({**SAYING, "generation_kwargs": {"num_beams": 4}}, "a task asks for num_beams in its generation_kwargs"),
    ],
)
def test_a_task_of_the_wrong_form_or_without_data_is_one_line(
    make_task: Callable[..., Path], weights: Weights, tuned_config: Settings, changed: dict[str, Any], why: str
) -> None:
    with pytest.raises(UserError, match=why) as raised:
        task_scores(weights, tuned_config(f"evaluate.tasks=[{make_task(**changed)}]").evaluate)
    assert "\n" not in str(raised.value)


@needs_harness
def test_an_unknown_task_is_named_in_one_line(weights: Weights, tuned_config: Settings) -> None:
    with pytest.raises(UserError, match=r"^evaluate\.tasks no_such_task cannot be loaded: ") as raised:
        task_scores(weights, tuned_config("evaluate.tasks=[no_such_task]").evaluate)
    assert "\n" not in str(raised.value)


@needs_harness
def test_a_likelihood_that_is_no_number_is_named_by_its_question(
    make_task: Callable[..., Path], model: Any, tuned_config: Settings
) -> None:
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.lm_head.weight.fill_(float("nan"))
    settings = tuned_config(f"evaluate.tasks=[{make_task()}]").evaluate
    with pytest.raises(UserError, match=r"question 1 of sense has a log-likelihood that is no finite number"):
        model_task_scores(broken, AutoTokenizer.from_pretrained(STARTER), settings)


@needs_harness
def test_the_harness_takes_a_file_by_its_path(
    make_task: Callable[..., Path], ggufs: dict[str, Path], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "llama.harness", "--model", "tunesmith", "--model_args", f"path={ggufs['Q8_0']}"]
    options = ["--tasks", str(make_task()), "--output_path", str(tmp_path / "out")]
    subprocess.run([*command, *options], check=True, cwd=STARTER.parents[2])
    (result,) = (tmp_path / "out").rglob("results_*.json")
    assert json.loads(result.read_text())["results"]["sense"]["acc,none"] == 1.0
