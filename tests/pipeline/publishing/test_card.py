"""The README.md of a published model, and the chat's card: what they take from a run, and what they leave out."""

import re
from pathlib import Path
from typing import Any

import pytest
import recorded_run
import yaml
from huggingface_hub import ModelCard
from recorded_run import BASE, REVISION
from records import record

from pipeline.core.records import Lineage, Manifest
from pipeline.publishing.card import model_card, model_readme
from pipeline.publishing.licences import terms_of_base
from pipeline.report.formats import NOTHING

REPO = Path(__file__).parents[3]


def readme(parts: Any = None, **changes: Any) -> ModelCard:
    """Read as the Hub reads it."""
    evaluation = record(recorded_run.evaluation() | changes.pop("evaluation", {}))
    manifest = Manifest.parse(recorded_run.manifest() | changes.pop("manifest", {}), "the sample")
    lineage = recorded_run.lineage()
    lineage["base"] |= changes
    return ModelCard(model_readme(evaluation, manifest, Lineage.parse(lineage, "the sample"), "owner/tiny", parts))


def test_the_head_says_what_the_hub_files_it_under() -> None:
    head = readme().data
    assert (head.base_model, head.base_model_relation, head.license) == (BASE, "finetune", "apache-2.0")
    assert (head.datasets, head.language, head.pipeline_tag) == (["mlabonne/FineTome-100k"], "en", "text-generation")
    assert head.library_name == "llama-cpp-python"
    assert {"lora", "gguf", "adapter", "conversational"} <= set(head.tags)
    results = {result.metric_type: result.metric_value for result in head.eval_results}
    assert results == {"loss": 0.5, "perplexity": 2.0, "accuracy": 0.95}


@pytest.mark.parametrize(
    ("parts", "relation", "library"),
    [(["adapter"], "adapter", "peft"), (["merged", "adapter"], "finetune", "transformers")],
)
def test_the_head_follows_what_is_published(parts: list[str], relation: str, library: str) -> None:
    head = readme(parts).data
    assert (head.base_model_relation, head.library_name) == (relation, library)


def test_the_text_says_where_the_model_comes_from_and_what_was_measured() -> None:
    text = readme().text
    assert f"[{BASE}](https://huggingface.co/{BASE}) at revision `{REVISION}`" in text
    assert "at revision `c2343c1372ff31f51aa21248db18bffa3193efdb`" in text
    assert "| train | sharegpt | 1,000 | 990 | 10 empty reply |" in text
    assert "| duplicates dropped | 40 |" in text
    assert re.search(
        r"\| loss, nats a token \| 1\.7900 \(1\.7400 .* 1\.8400\) \| 0\.5000 \(0\.4500 .* 0\.5500\) \|", text
    )
    assert "| LoRA r | 16 |" in text
    assert "| lr | 0.0002 |" in text
    assert "Qwen" in text.split("## Licences")[0]
    assert "- base: Apache License 2.0\n- data: MIT License\n" in text


def test_every_file_that_is_published_is_listed_with_its_figures_and_no_other() -> None:
    digest = "ab" * 32
    text = readme().text
    figures = r"0\.0012 \| 99\.10% \| 2\.0048 \(1\.8048 .* 2\.2048\) \| 94\.3% \(93\.3% .* 95\.3%\)"
    assert re.search(rf"\| tiny-Q8\\_0\.gguf \| 0\.0 \| {figures} \| {digest} \|", text)
    assert f"| adapter/tiny-adapter-F16.gguf | 0.0 | {NOTHING} | {NOTHING} | {NOTHING} | {NOTHING} | {digest} |" in text
    assert "tiny-base" not in text
    assert "tiny-F16.gguf" not in readme(["adapter"]).text


def test_each_part_says_how_it_is_loaded() -> None:
    text = readme(["gguf", "adapter", "merged"]).text
    for line in (
        "llama-server -hf owner/tiny:Q8_0",
        'Llama.from_pretrained("owner/tiny", filename="tiny-Q8_0.gguf", n_ctx=0)',
        "SERVE_MODELS=hf://owner/tiny@COMMIT/tiny-Q8_0.gguf tunesmith serve",
        f'AutoModelForCausalLM.from_pretrained("{BASE}", revision="{REVISION}")',
        'PeftModel.from_pretrained(base, "owner/tiny", subfolder="adapter")',
        "--lora adapter/tiny-adapter-F16.gguf",
        'AutoModelForCausalLM.from_pretrained("owner/tiny", dtype="auto")',
    ):
        assert line in text
    assert "peft" not in readme(["gguf"]).text
    assert "llama" not in readme(["merged"]).text.split("## How to load it")[1]


def test_a_model_that_failed_says_so_first_and_names_what_failed() -> None:
    text = readme(evaluation=recorded_run.evaluation(passed=False)).text
    assert text.index("**This model failed its evaluation.**") < text.index("## ")
    assert "| quantization Q8\\_0 | FAILED | Q8\\_0 keeps its quality |" in text


def test_a_model_of_too_few_conversations_says_so_first() -> None:
    text = readme(evaluation=recorded_run.evaluation(passed=None, rows=1, questions=1)).text
    assert text.index("**This model was evaluated on too little to tell.**") < text.index("## ")
    assert "Measured on 1 conversation (1,234 tokens of the assistant) and 1 question with known answers" in text
    assert "| quantization Q8\\_0 | too few |" in text


def test_tasks_that_passed_are_counted_and_those_that_failed_are_named() -> None:
    checks = [
        {"name": f"task {name}", "what": "it is as good", "figure": 0.0, "limit": 0.1, "passed": name != "b"}
        for name in "abc"
    ]
    text = readme(evaluation={"verdict": {"passed": False, "checks": checks}}).text
    assert "| task b | FAILED |" in text
    assert "| task a |" not in text
    assert "Passed as well: 2 checks of single tasks." in text


def test_a_base_in_a_folder_is_no_name_on_the_hub_and_its_folder_is_nobody_s_business() -> None:
    card = readme(path="/home/me/secret/model", revision=None)
    assert card.data.base_model is card.data.get("base_model_relation") is card.data.license is None
    assert "from `model`, on " in card.text
    assert "secret" not in card.content
    assert "- base: not recorded; see the base's own page" in card.text


def test_a_4_bit_base_is_named_beside_the_one_that_was_merged_onto() -> None:
    four_bit = "unsloth/Llama-3.2-1B-Instruct-bnb-4bit"
    sixteen = "unsloth/Llama-3.2-1B-Instruct"
    card = readme(manifest={"method": "qlora"}, path=four_bit, revision=None, merge_path=sixteen, merge_revision="v1")
    assert (card.data.base_model, card.data.license) == (sixteen, "llama3.2")
    assert f"[{four_bit}](https://huggingface.co/{four_bit}) at its main branch, merged onto [{sixteen}]" in card.text
    assert "Built with Llama." in card.text


def test_a_full_fine_tune_is_published_as_a_whole() -> None:
    card = readme(manifest={"method": "full"})
    assert {"gguf", "merged", "full"} <= set(card.data.tags)
    assert "LoRA" not in card.text


def test_data_of_ones_own_and_a_run_without_reports_leave_out_what_nobody_knows() -> None:
    own = recorded_run.evaluation()["settings"] | {"data": {"name": "local", "source": "files", "path": None}}
    card = readme(evaluation={"settings": own, "prepared": None, "training": None})
    assert card.data.datasets is card.data.language is None
    assert ", on the files of `local`." in card.text
    assert "- data: not recorded; see the data set's own page" in card.text


def test_figures_that_came_out_as_no_number_are_dashes() -> None:
    recorded = recorded_run.evaluation(questions=0)
    nothing = {key: None for key in recorded["tuned_model"] if key.startswith(("loss", "perplexity"))}
    diverged = recorded["tuned_model"] | nothing
    card = readme(evaluation=recorded | {"tuned_model": diverged, "gain": dict.fromkeys(recorded["gain"])})
    assert re.search(rf"\| perplexity \| 7\.1600 .* \| {NOTHING} \|\n", card.text)
    assert card.data.eval_results is None


def test_every_base_that_conf_has_is_known_with_its_terms() -> None:
    models = [yaml.safe_load(path.read_text()) for path in (REPO / "conf/model").glob("*.yaml")]
    assert len(models) > 5
    assert not [model["name"] for model in models if terms_of_base(model["merge_path"] or model["path"]) is None]


def test_the_chat_s_card_has_a_row_for_each_file_that_it_can_load() -> None:
    manifest = Manifest.parse(recorded_run.manifest(), "the sample")
    card = model_card(record(recorded_run.evaluation()), manifest, Lineage.parse(recorded_run.lineage(), "the sample"))
    assert card["base"] == {"name": BASE, "revision": REVISION}
    assert card["data"]["rows"] == 850
    assert card["evaluation"]["base"] == {"loss": 1.79, "perplexity": 7.16, "accuracy": 0.02}
    assert [file["file"] for file in card["files"]] == ["tiny-F16.gguf", "tiny-Q8_0.gguf", "tiny-base-Q8_0.gguf"]
    assert card["files"][2]["loss"] == 1.8
    assert card["prompts"] == ["What is 5 + 6?"]
