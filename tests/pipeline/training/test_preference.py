"""Losses of preferences and their gradients: TRL's trainers on the same answers, however an update is laid out."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from chats import STARTER_S
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer
from trl.experimental.orpo import ORPOTrainer
from working import working_in

from pipeline.core.composition import compose
from pipeline.core.config import Config, load
from pipeline.models.chat import load_tokenizer
from pipeline.models.loading import head_size, load_base
from pipeline.stages.prepare import prepare
from pipeline.training.comparisons import Comparisons
from pipeline.training.loss import learn_as_made
from pipeline.training.plan import choose
from pipeline.training.preference import figures
from pipeline.training.preference_trainer import PreferenceTrainer
from pipeline.training.rows import compared
from pipeline.training.session import Session
from pipeline.training.updates import IGNORED

REPO = Path(__file__).parents[3]
SETTINGS = [
    *STARTER_S,
    "data=preferences",
    "data.files=[rows.jsonl]",
    "train.lora.r=4",
    "train.effective_batch=8",
    "train.max_length=128",
    "train.preference.beta=0.3",
]
UPDATE = list(range(6))  # comparisons
# (micro-batch, packed): all at once, one by one, end to end.
LAYOUTS = [(8, False), (1, False), (8, True)]
CLOSE = 1e-4  # of a gradient's largest number: sums are in another order, over hundreds of terms
Gradients = dict[str, torch.Tensor]


def config(*overrides: str) -> Config:
    return load(compose(REPO / "conf", [*SETTINGS, *overrides]))


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder, entered, with pairs and conversations: each answer is better than another's."""
    folder = tmp_path_factory.mktemp("preferences")
    chats = [json.loads(line)["messages"] for line in (REPO / "starter/chats.jsonl").read_text().splitlines()[:60]]
    answers = [messages[-1]["content"] for messages in chats]
    pairs = [
        {"prompt": messages[:-1], "chosen": answers[n], "rejected": answers[n - 1]}
        for n, messages in enumerate(chats[:40])
    ]
    rows = [*(row for row in pairs if row["chosen"] != row["rejected"]), *({"messages": chat} for chat in chats[40:])]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare(config().data, folder, folder)
    with working_in(folder):
        yield folder


def ours(loss: str, rows: int = 8, packed: bool = False, *overrides: str) -> PreferenceTrainer:
    """The trainer of a training that begins, with such micro-batches."""
    settings = config(f"train.preference.loss={loss}", f"train.packing={str(packed).lower()}", *overrides)
    plan = choose(settings.train, settings.model, None, head_size(settings.model))
    trainer = Session(settings, load_tokenizer(settings.model), plan, "cpu", Path("checkpoints")).trainer()
    assert isinstance(trainer, PreferenceTrainer)
    assert trainer.learns_from_supervised
    trainer.use(rows, checkpointing=False, compiled=False)
    return trainer


def moved(model: Any, seed: int) -> None:
    """Give an adapter what it may have learnt."""
    draw = torch.Generator().manual_seed(seed)
    for name, weight in sorted(model.named_parameters()):
        if "lora_B.default" in name:
            weight.data = torch.randn(weight.shape, generator=draw) * 0.1


def learnt(trainer: PreferenceTrainer, rows: list[int] = UPDATE) -> tuple[float, Gradients, dict[str, float]]:
    """The loss of one update, its gradients, and the figures that are told of it."""
    learnt_from = trainer.conversations["train"]
    trainer.trained_model.zero_grad()
    trainer.sums = trainer.nothing(len(trainer.sums))
    update = [learnt_from[part] for part in learnt_from.split(rows)]
    loss = trainer.training_step(trainer.trained_model, update).item()
    return loss, gradients_of(trainer.trained_model), dict(figures(trainer.sums))


def gradients_of(model: Any) -> Gradients:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad and p.grad is not None}


def same(found: Gradients, wanted: Gradients) -> None:
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert (found[name] - gradient).abs().max() <= CLOSE * gradient.abs().max(), name
    assert sum(gradient.abs().sum() for gradient in wanted.values()) > 0


def theirs(kind: Any, arguments: Any, columns: dict[str, Any], tmp_path: Path) -> Any:
    """TRL's trainer of the same model, held against what it began with; the rows are given later, as tokens."""
    settings = config()
    lora = settings.train.lora
    base = load_base(settings.model.path, None, "cpu", torch.float32)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    model = get_peft_model(
        base, LoraConfig(r=lora.r, lora_alpha=lora.alpha, target_modules=targets, task_type="CAUSAL_LM")
    )
    moved(model, 1)
    ours_begin = ours("dpo").trained_model.state_dict()
    model.load_state_dict({name: value for name, value in ours_begin.items() if "lora_A" in name}, strict=False)
    options = arguments(
        output_dir=str(tmp_path), beta=0.3, use_cpu=True, bf16=False, report_to="none", gradient_checkpointing=False,
        per_device_train_batch_size=len(UPDATE), max_length=128,
    )  # fmt: skip
    trainer = kind(
        model=model,
        args=options,
        train_dataset=Dataset.from_list([columns] * 8),
        processing_class=load_tokenizer(settings.model),
    )
    moved(trainer.model, 2)
    return trainer


def parts(trainer: PreferenceTrainer) -> list[list[tuple[list[int], list[int]]]]:
    """The prompt and the answer, as tokens, of each answer of the update's comparisons."""
    data = trainer.conversations["train"]
    assert isinstance(data, Comparisons)
    found = []
    for number in UPDATE:
        rows = [answer.rows[0] for answer in data.answers[number]]
        begins = [int((data.labels[row] != IGNORED).nonzero()[0]) for row in rows]
        found.append(
            [(data.ids[row][:at].tolist(), data.ids[row][at:].tolist()) for row, at in zip(rows, begins, strict=True)]
        )
    return found


def began(trainer: PreferenceTrainer) -> PreferenceTrainer:
    """The same, whose reference is what the adapter was, and whose adapter has learnt."""
    moved(trainer.trained_model, 1)
    trainer.reference = type(trainer.reference)(trainer.trained_model) if trainer.reference else None  # type: ignore[call-arg]
    moved(trainer.trained_model, 2)
    return trainer


@pytest.fixture(scope="module")
def dpo(tmp_path_factory: pytest.TempPathFactory) -> tuple[float, Gradients, dict[str, float]]:
    """TRL's DPO."""
    columns = {"prompt": "Hi", "chosen": "Yes", "rejected": "No"}
    trainer = theirs(DPOTrainer, DPOConfig, columns, tmp_path_factory.mktemp("dpo"))
    rows = [
        {"prompt_ids": chosen[0], "chosen_ids": chosen[1], "rejected_ids": rejected[1]}
        for chosen, rejected in parts(ours("dpo"))
    ]
    return computed(trainer, rows)


@pytest.fixture(scope="module")
def dpo_and_nll(tmp_path_factory: pytest.TempPathFactory) -> tuple[float, Gradients, dict[str, float]]:
    """TRL's DPO of one pair, with its chosen answer's own loss: of several TRL takes the mean over all their tokens."""
    columns = {"prompt": "Hi", "chosen": "Yes", "rejected": "No"}
    both = partial(DPOConfig, loss_type=["sigmoid", "sft"], loss_weights=[1.0, 0.7])
    trainer = theirs(DPOTrainer, both, columns, tmp_path_factory.mktemp("dpo"))
    chosen, rejected = parts(ours("dpo"))[0]
    return computed(trainer, [{"prompt_ids": chosen[0], "chosen_ids": chosen[1], "rejected_ids": rejected[1]}])


@pytest.fixture(scope="module")
def kto(tmp_path_factory: pytest.TempPathFactory) -> tuple[float, Gradients, dict[str, float]]:
    """TRL's KTO, each answer also behind the next one's prompt."""
    columns = {"prompt": "Hi", "completion": "Yes", "label": True}
    trainer = theirs(KTOTrainer, KTOConfig, columns, tmp_path_factory.mktemp("kto"))
    mine = ours("kto")
    said = [part for (part,) in parts(mine)]
    data = mine.conversations["train"]
    assert isinstance(data, Comparisons)
    rows = [
        {
            "prompt_ids": asked,
            "completion_ids": answer,
            "KL_completion_ids": said[number - 1][1],
            "label": data.answers[number][0].side == 0,
        }
        for number, (asked, answer) in enumerate(said)
    ]
    assert {row["label"] for row in rows} == {True, False}
    return computed(trainer, rows)


def computed(trainer: Any, rows: list[dict[str, Any]]) -> tuple[float, Gradients, dict[str, float]]:
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(rows))
    loss.backward()
    told = {name: values[0] for name, values in trainer._metrics["train"].items()}
    return loss.item(), gradients_of(trainer.model), told


@pytest.mark.parametrize(("rows", "packed"), LAYOUTS)
@pytest.mark.parametrize("loss", ["dpo", "kto"])
def test_loss_gradients_and_rewards_are_those_of_trl(
    loss: str, rows: int, packed: bool, request: pytest.FixtureRequest
) -> None:
    wanted, gradients, told = request.getfixturevalue(loss)
    found, our_gradients, our_told = learnt(began(ours(loss, rows, packed)))
    assert found == pytest.approx(wanted, rel=1e-4)
    same(our_gradients, gradients)
    names = [name for name in our_told if name != "replay_loss"]
    assert {"rewards/chosen", "rewards/rejected", "rewards/margins"} <= set(names)
    assert ("rewards/accuracies" in names) == (loss == "dpo")
    for name in names:
        assert our_told[name] == pytest.approx(told[name], rel=1e-3, abs=1e-5), name


def test_the_chosen_answers_own_loss_is_that_of_trl_each_answers_by_itself(
    dpo_and_nll: tuple[float, Gradients, dict[str, float]],
) -> None:
    wanted, gradients, _ = dpo_and_nll
    trainer = began(ours("dpo", 8, False, "train.preference.nll_weight=0.7"))
    loss, found, _ = learnt(trainer, [0])
    assert loss == pytest.approx(wanted, rel=1e-4)
    same(found, gradients)
    alone = [learnt(trainer, [number])[0] for number in UPDATE]
    assert learnt(trainer)[0] == pytest.approx(sum(alone) / len(alone), rel=1e-4)


@pytest.mark.parametrize("loss", ["dpo", "kto", "orpo"])
def test_parts_of_two_processes_add_up_to_the_whole_also_where_one_has_no_rows(loss: str) -> None:
    trainer = began(ours(loss))
    data = trainer.conversations["train"]
    for rows in ([0], UPDATE):
        whole, gradients, _ = learnt(trainer, rows)
        trainer.trained_model.zero_grad()
        halves = [data.split(rows, process, 2) for process in (0, 1)]
        assert ([] in [part.rows for part in halves[1]]) == (rows == [0])
        losses = [
            trainer.compute_loss(trainer.trained_model, data[part]) for of in halves for part in of if not part.partners
        ]
        for half in losses:
            half.backward()
        assert sum(half.item() for half in losses) == pytest.approx(whole, rel=1e-4)
        same(gradients_of(trainer.trained_model), gradients)


def test_replayed_conversations_count_as_rows_with_the_mean_of_their_tokens() -> None:
    trainer = began(ours("dpo"))
    data = trainer.conversations["train"]
    assert isinstance(data, Comparisons)
    replayed = [data.compared, data.compared + 1]
    alone, _, told = learnt(trainer, replayed)
    pairs, _, _ = learnt(trainer)
    both, _, _ = learnt(trainer, [*UPDATE, *replayed])
    assert told == {"replay_loss": pytest.approx(alone, rel=1e-5)}
    assert both == pytest.approx((6 * pairs + 2 * alone) / 8, rel=1e-4)


def test_each_update_has_its_share_of_conversations_and_an_epoch_each_pair_once() -> None:
    data = ours("dpo").conversations["train"]
    assert isinstance(data, Comparisons)
    updates = [*data.epoch(8, torch.Generator().manual_seed(0))]
    assert [sum(row >= data.compared for row in rows) for rows in updates[:-1]] == [1] * (len(updates) - 1)
    assert sorted(row for rows in updates for row in rows if row < data.compared) == list(range(data.compared))
    assert sum(map(len, updates)) == data.rows_of_epoch(8)
    assert (
        updates
        == [*data.epoch(8, torch.Generator().manual_seed(0))]
        != [*data.epoch(8, torch.Generator().manual_seed(1))]
    )


def test_pairs_that_are_the_same_where_they_are_cut_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = load_tokenizer(config().model)
    most = 24  # tokens: the longer answers part behind them
    with caplog.at_level("INFO"):
        whole, cut = compared("train", tokenizer, 128), compared("train", tokenizer, most)
    assert 0 < len(cut.comparisons) < len(whole.comparisons)
    lost = len(whole.comparisons) - len(cut.comparisons)
    assert f"{lost} without two different answers are left out" in caplog.text
    ids = cut.rows["input_ids"]
    assert all(ids[chosen.rows[0]] != ids[rejected.rows[0]] for chosen, rejected in cut.comparisons)


@pytest.mark.parametrize(("rows", "packed"), LAYOUTS)
def test_orpo_is_trls_odds_beside_the_chosen_answers_own_loss(rows: int, packed: bool) -> None:
    trainer = began(ours("orpo", rows, packed))
    assert trainer.reference is None
    loss, gradients, told = learnt(trainer)
    model: Any = trainer.trained_model
    learn_as_made(model.get_base_model())
    model.zero_grad()
    likely = torch.stack([torch.stack([mean_of(model, *part) for part in pair]) for pair in parts(trainer)])
    odds = SimpleNamespace(beta=0.3, accelerator=trainer.accelerator)
    against, chosen, rejected, _, _ = ORPOTrainer.odds_ratio_loss(odds, likely[:, 0], likely[:, 1])  # type: ignore[arg-type]
    wanted = (-likely[:, 0] - against).mean()
    wanted.backward()
    assert loss == pytest.approx(wanted.item(), rel=1e-4)
    same(gradients, gradients_of(model))
    assert told["rewards/margins"] == pytest.approx((chosen - rejected).mean().item(), rel=1e-3)
    assert told["rewards/accuracies"] == pytest.approx((chosen > rejected).float().mean().item())


def mean_of(model: Any, asked: list[int], answer: list[int]) -> torch.Tensor:
    """The mean log-probability of an answer's tokens, by the model's own logits."""
    ids = torch.tensor([[*asked, *answer]])
    likely = model(ids).logits[0].log_softmax(-1)[len(asked) - 1 : -1]
    return likely.gather(1, ids[0, len(asked) :, None]).mean()
