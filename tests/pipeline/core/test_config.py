"""Everything under conf/ composes and validates; what is wrong is named in one line."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from common.errors import UserError
from pipeline.core.composition import CONF, DEFAULTS, compose
from pipeline.core.config import OPTIMIZERS, Config, load
from pipeline.core.data_settings import named_sources
from pipeline.core.mappings import plain
from pipeline.models.packaged import is_packaged

REPO = Path(__file__).parents[3]
PRESETS = [
    (path.parent.name, path.stem)
    for path in sorted((REPO / CONF).glob("*/*.yaml"))
    if path.parent.name != "recipe"  # chosen by the model's name
]
FOUR_BIT = ["model=llama-3.2-1b-bnb-4bit", "train=qlora"]


def config(*overrides: str) -> Config:
    return load(compose(REPO / CONF, list(overrides)))


def changed(key: str, value: Any) -> Any:
    """The default configuration with the value at a dotted key replaced."""
    composed = OmegaConf.create(plain(compose(REPO / CONF)))
    OmegaConf.update(composed, key, value, merge=False, force_add=True)
    return composed


def test_there_are_presets_in_every_group() -> None:
    groups = {group for group, _ in PRESETS}
    chosen = {"model", "learn", "data", "train", "export", "evaluate", "compare", "canary", "tracking", "runtime"}
    assert groups == chosen | {"experiment", "sweep"}


@pytest.mark.parametrize(("group", "name"), PRESETS)
def test_every_preset_composes_and_validates(group: str, name: str) -> None:
    needs_4_bit = (group, name) in {("train", "qlora"), ("model", "llama-3.2-1b-bnb-4bit")}
    overrides = FOUR_BIT if needs_4_bit else [f"{group}={name}"]
    settings = config(*overrides)
    if group in ("model", "data"):
        assert getattr(settings, group).name == name


@pytest.mark.parametrize("name", [name for group, name in PRESETS if group == "model"])
def test_every_model_names_files_that_exist_and_fits_its_method(name: str) -> None:
    model = config(*(FOUR_BIT if "4bit" in name else [f"model={name}"])).model
    if model.chat_template:
        assert (REPO / model.chat_template).is_file()
    if model.path.startswith("starter/"):
        assert (REPO / model.path / "model.safetensors").is_file()
    elif not is_packaged(model.path):
        assert model.path.count("/") == 1  # a name on the hub
    assert (model.merge_path is not None) == model.load_in_4bit


@pytest.mark.parametrize("name", [path.stem for path in sorted((REPO / CONF / "recipe").glob("*.yaml"))])
def test_a_model_with_a_recipe_gets_its_settings(name: str) -> None:
    assert config(f"model={name}").train.lora.r == 32
    assert config("model=llama-3.2-1b").train.lora.r == 16


@pytest.mark.parametrize("loss", ["dpo", "kto", "orpo"])
def test_a_recipe_has_another_rate_for_preferences_and_the_command_line_stands_above(loss: str) -> None:
    plain, starter = config("model=starter-s"), config("model=starter-s", f"train={loss}")
    assert starter.train.preference.loss == loss
    assert starter.train.lr == config("model=starter-m", f"train={loss}").train.lr < plain.train.lr / 2
    assert starter.train.lora == plain.train.lora
    assert config("model=starter-s", f"train={loss}", "train.lr=7e-3").train.lr == 7e-3
    assert config("model=llama-3.2-1b", f"train={loss}").train.lr < starter.train.lr / 5


def test_the_grid_sweeps_over_rate_and_rank() -> None:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    with initialize_config_dir(str(REPO / CONF), **DEFAULTS):
        composed = hydra_compose("config", ["sweep=grid"], return_hydra_config=True)
    assert dict(composed.hydra.sweeper.params) == {"train.lr": "1e-4,2e-4,5e-4", "train.lora.r": "16,32"}


def test_the_committed_params_are_what_conf_composes_to() -> None:
    committed = yaml.safe_load((REPO / "params.yaml").read_text(encoding="utf-8"))
    composed = plain(compose(REPO / CONF))
    assert committed == composed, "params.yaml is not what conf/ composes to: run `dvc repro compose` and commit it"


@pytest.mark.parametrize(
    "group", ["", "model.", "learn.", "data.", "train.", "train.lora.", "export.", "evaluate.", "runtime."]
)
def test_an_unknown_key_is_named_with_those_there_are(group: str) -> None:
    with pytest.raises(UserError, match=rf"^{group}lerning_rate is not a key of the configuration; .* has \w+"):
        load(changed(f"{group}lerning_rate", 1))


@pytest.mark.parametrize(
    ("key", "home"), [("model", "model"), ("train.lr", "train"), ("train.lora.r", "train"), ("data.seed", "data")]
)
def test_a_missing_key_is_named_with_the_folder_where_it_is_set(key: str, home: str) -> None:
    composed = plain(compose(REPO / CONF))
    *above, last = key.split(".")
    group = composed
    for part in above:
        group = group[part]
    del group[last]
    with pytest.raises(UserError, match=rf"^{key} is missing; set it in conf/{home}/$"):
        load(OmegaConf.create(composed))


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        # wrong type
        ("model", 5, "it must be a mapping of keys to values"),
        ("train.lora", None, "it must be a mapping of keys to values"),
        ("model.path", None, "it must be a text"),
        ("model.name", 1, "it must be a text"),
        ("model.load_in_4bit", "false", "it must be true or false"),
        ("train.lr", "fast", "it must be a finite number"),
        ("train.lr", True, "it must be a finite number"),
        ("train.batch_size", True, "it must be a whole number"),
        ("train.batch_size", 1.5, "it must be a whole number"),
        ("train.batch_size", "8", "it must be a whole number"),
        ("train.lora.target_modules", "q_proj", "it must be a list of texts or all-linear"),
        ("evaluate.prompts", "Hello?", "it must be a list"),
        ("tracking.enabled", 1, "it must be true or false"),
        # not finite
        ("train.lr", float("nan"), "it must be a finite number"),
        ("train.lr", float("inf"), "it must be a finite number"),
        ("train.max_grad_norm", "inf", "it must be a finite number"),
        ("train.lr", 10**400, "it must be a finite number"),
        ("data.validation", float("nan"), "it must be a finite number"),
        # out of range
        ("train.lr", 0, "it may be above 0"),
        ("train.lr", -1e-4, "it may be above 0"),
        ("train.warmup_ratio", 1.0, "it may be at least 0 and below 1"),
        ("train.lora.r", 0, "it may be at least 1 and at most 1024"),
        ("train.lora.dropout", 1.0, "it may be at least 0 and at most 0.9"),
        ("train.max_steps", 0, "it may be at least 1"),
        ("train.max_length", 7, "it may be at least 8"),
        ("train.seed", -1, "it may be at least 0"),
        ("train.seed", 2**32, "it may be at least 0 and at most 4294967295"),
        ("train.scheduler", "cosin", "it may be linear, cosine, "),
        ("train.optimizer", "nonsense_adam", "it may be adamw_torch_fused, adamw_torch, "),
        ("train.lr", 1.5, "it may be above 0 and at most 1"),
        ("train.min_lr_ratio", 1.0, "it may be at least 0 and below 1"),
        ("train.decay_ratio", 0, "it may be above 0 and at most 1"),
        ("train.neftune_alpha", 0, "it may be above 0"),
        ("train.engine", "jax", "it may be auto, trl, unsloth"),
        ("runtime.device", "tpu", "it may be auto, cpu, cuda"),
        ("export.quantizations", ["F16", "Q4_KM"], "it may be F32, F16, "),
        ("export.base", ["F16", "Q9_0"], "it may be F32, F16, "),
        ("evaluate.max_rows", 0, "it may be at least 1"),
        ("evaluate.gate.max_task_drop", 1.5, "it may be at least 0 and at most 1"),
        ("evaluate.gate.max_quantization_loss", -0.1, "it may be at least 0"),
        ("compare.quality", "speed", "it may be accuracy, loss"),
        ("compare.max_answer_seconds", 0, "it may be above 0"),
        ("data.validation", -0.1, "it may be a share above 0 and below 1"),
        ("data.max_rows", 2, "it may be null or at least 3"),
        # empty lists
        ("export.quantizations", [], "it must be a list with at least one entry"),
        ("train.lora.target_modules", [], "it must be a list with at least one entry"),
        ("data.files", [], "it may be a list of at least one path or glob"),
    ],
)
def test_a_wrong_value_is_named_with_what_it_may_be(key: str, value: Any, allowed: str) -> None:
    with pytest.raises(UserError) as raised:
        load(changed(key, value))
    said = str(raised.value)
    assert said.startswith((f"{key} is ", f"{key}[1] is "))
    assert allowed in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("key", "value", "read"), [("train.lr", "2e-4", 2e-4), ("train.lr", 1, 1.0), ("train.epochs", 3, 3.0)]
)
def test_numbers_are_read_as_people_write_them(key: str, value: Any, read: float) -> None:
    settings = load(changed(key, value))
    got = getattr(settings.train, key.partition(".")[2])
    assert got == read
    assert type(got) is float


def test_every_optimizer_is_one_of_transformers() -> None:
    from transformers.training_args import OptimizerNames

    assert set(OPTIMIZERS) <= {name.value for name in OptimizerNames}


def test_target_modules_are_all_or_a_list() -> None:
    assert load(changed("train.lora.target_modules", "all-linear")).train.lora.target_modules == "all-linear"
    assert load(changed("train.lora.target_modules", ["q_proj"])).train.lora.target_modules == ["q_proj"]


def test_null_is_allowed_only_where_the_type_says_so() -> None:
    assert load(changed("train.max_steps", None)).train.max_steps is None
    with pytest.raises(UserError, match=r"^train\.batch_size is None; it must be a whole number$"):
        load(changed("train.batch_size", None))


@pytest.mark.parametrize("override", ["train=qlora", "model=llama-3.2-1b-bnb-4bit"])
def test_qlora_and_a_4_bit_model_need_each_other(override: str) -> None:
    with pytest.raises(UserError, match=r"^train\.method is \w+ and model\.load_in_4bit is \w+; .*needs both"):
        config(override)


def test_an_interpolation_to_nowhere_ends_in_one_line() -> None:
    with pytest.raises(UserError, match=r"^the configuration does not resolve: .*'nowhere'.* full_key: train\.lr") as e:
        load(changed("train.lr", "${nowhere}"))
    assert "\n" not in str(e.value)


def test_an_adapter_of_a_4_bit_model_is_merged_onto_its_16_bit_weights() -> None:
    four_bit = config("experiment=r2-1b").model
    assert four_bit.merge_base == (four_bit.merge_path, None) != (four_bit.path, None)
    whole = config("model.revision=v1").model
    assert whole.merge_base == (whole.path, "v1")


def test_sources_have_types_and_what_they_do_not_say_may_be_left_out() -> None:
    sources = config("data=mix", "data.sources.own.weight=3", "+data.sources.general.split=[train,test]").data.sources
    assert sources is not None
    own, general = sources["own"], sources["general"]
    assert own is not None
    assert (own.weight, own.split, own.ignore) == (3.0, "train", None)
    assert general is not None
    assert (general.split, general.files) == (["train", "test"], [])
    assert list(named_sources(config("data=mix", "data.sources.general=null").data)) == ["own"]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data.sources.own.wieght=3"], r"data\.sources\.own\.wieght is not a key .*; data\.sources\.own has files, "),
        (
            ["+data.sources.own.wieght=3"],
            r"^data\.sources\.own\.wieght is not a key .*; data\.sources\.own has files, ",
        ),
        (["data.sources.own.weight=many"], r"^data\.sources\.own\.weight is 'many'; it must be a finite number$"),
        (["data.sources.own.files=a"], r"^data\.sources\.own\.files is 'a'; it must be a list, as in \[a, b\]$"),
        (["data.sources.own=5"], r"^data\.sources\.own is 5; it must be a mapping of keys to values$"),
        (["data.files=[a]"], r"^data\.files is \['a'\]; it may be empty where data\.sources names what is read"),
    ],
)
def test_what_is_wrong_with_a_source_is_named(overrides: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        config("data=mix", *overrides)
