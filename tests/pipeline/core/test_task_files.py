"""What a task of one's own for lm-evaluation-harness is made of."""

from pathlib import Path

import pytest

from common.errors import UserError
from pipeline.core.task_files import task_files

FILES = {
    "tasks/sense.yaml": """
        include: [shared/base.yaml, prompts.yml]
        task: sense
        dataset_path: json
        dataset_kwargs: {data_files: {test: [data/rows.jsonl, "data/more-*.jsonl", "https://example.org/a.jsonl"]}}
        process_docs: !function shared.utils.keep
        metric_list: [{metric: !function measures.sense}, {metric: !function json.dumps}]
        use_prompt: tasks/wordings.txt:first
        """,
    "tasks/shared/base.yaml": "include: deep/root.yaml\ndoc_to_text: '{{begin}}'",
    "tasks/shared/deep/root.yaml": "output_type: multiple_choice\nclass: !function lm_eval.api.task.Own",
    "tasks/prompts.yml": "task: [{include: leaf.yaml}, arc_easy]",
    "tasks/leaf.yaml": "dataset_path: folder",
    "tasks/shared/utils.py": "import helper\nfrom tasks import tables\nSHOTS = 'shots.json'",
    "tasks/shared/shots.json": "[]",
    "helper.py": "def broken(:",
    "tasks/tables.py": "",
    "measures/__init__.py": "from .depth import sense",
    "measures/depth.py": "",
    "data/rows.jsonl": "{}",
    "data/more-1.jsonl": "{}",
    "tasks/wordings.txt": "first",
    "folder/a/rows.parquet": "",
}
BESIDE = {"data/less-1.jsonl": "", "tasks/other.yaml": "task: other", "tasks/shared/unused.py": ""}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a task, and with files that are none of its."""
    monkeypatch.chdir(tmp_path)
    for name, text in (FILES | BESIDE).items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def refused(task: str) -> str:
    with pytest.raises(UserError) as raised:
        task_files([task])
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_task_is_made_of_all_that_its_files_name_and_of_nothing_else(project: Path) -> None:
    found = task_files(["arc_easy", "tasks/sense.yaml", "tasks/leaf.yaml"])
    assert found[0] == Path("tasks/sense.yaml")
    assert sorted(map(str, found)) == sorted(FILES)


def test_names_that_the_harness_knows_are_no_files(project: Path) -> None:
    assert task_files(["arc_easy", "mmlu"]) == []


def test_files_that_include_each_other_are_found_once(project: Path) -> None:
    (project / "tasks/shared/deep/root.yaml").write_text("include: ../../sense.yaml")
    assert len(task_files(["tasks/sense.yaml"])) == len(FILES)


def test_data_in_a_folder_of_its_own_is_found(project: Path) -> None:
    text = "{dataset_path: json, dataset_kwargs: {data_dir: data, data_files: rows.jsonl}}"
    (project / "tasks/sense.yaml").write_text(text)
    assert {"data/rows.jsonl", "data/more-1.jsonl", "data/less-1.jsonl"} < set(
        map(str, task_files(["tasks/sense.yaml"]))
    )


def test_files_of_the_hub_need_not_be_here(project: Path) -> None:
    (project / "tasks/sense.yaml").write_text("{dataset_path: owner/name, dataset_kwargs: {data_files: a.jsonl}}")
    assert task_files(["tasks/sense.yaml"]) == [Path("tasks/sense.yaml")]


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("tasks/sense.yaml", "evaluate.tasks names tasks/sense.yaml, which is no file here"),
        ("tasks/shared/base.yaml", "tasks/sense.yaml names include: tasks/shared/base.yaml, which is no file here"),
        (
            "tasks/shared/deep/root.yaml",
            "tasks/shared/base.yaml names include: tasks/shared/deep/root.yaml, which is no file here",
        ),
        ("tasks/leaf.yaml", "tasks/prompts.yml names include: tasks/leaf.yaml, which is no file here"),
        (
            "measures/__init__.py",
            "tasks/sense.yaml names !function measures.sense, and there is no module measures beside it",
        ),
        ("data/rows.jsonl", "tasks/sense.yaml names data_files: data/rows.jsonl, which is no file here"),
        ("data/more-1.jsonl", "tasks/sense.yaml names data_files: data/more-*.jsonl, and no file here fits that"),
    ],
)
def test_what_is_missing_is_named_with_the_file_that_names_it(project: Path, missing: str, said: str) -> None:
    (project / missing).unlink()
    (project / "measures/depth.py").unlink()
    if missing.startswith("measures"):
        (project / "measures").rmdir()
    assert refused("tasks/sense.yaml") == said


@pytest.mark.parametrize("text", ["a: [", "a: !other b", "a: \x00", "process_docs: !function [a]"])
def test_what_is_no_yaml_is_refused_in_one_line(project: Path, text: str) -> None:
    (project / "tasks/shared/base.yaml").write_text(text)
    assert refused("tasks/sense.yaml").startswith("tasks/shared/base.yaml is no task's YAML: ")


@pytest.mark.parametrize("function", ["keep", ".utils.keep", "no_such_module.keep"])
def test_a_function_of_no_module_is_refused(project: Path, function: str) -> None:
    (project / "tasks/sense.yaml").write_text(f"process_docs: !function {function}")
    assert refused("tasks/sense.yaml").startswith(
        f"tasks/sense.yaml names !function {function}, and there is no module"
    )
