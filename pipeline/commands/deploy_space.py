"""Makes or renews a Space of the Hugging Face Hub that chats with a model.

    tunesmith deploy space --repo OWNER/NAME --model models/gguf/starter-m-Q8_0.gguf --dry-run
    tunesmith deploy space --repo OWNER/NAME --model hf://OWNER/MODEL@v1 --public

What is going to be made is said first, and what the account may make. The folder is written whole, and what of it
differs from the Space's repository becomes one commit. It ends well when the Space has answered a question.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, SpaceInfo, constants, get_token
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.utils import disable_progress_bars

from common.errors import UserError
from pipeline.core.paths import MANIFEST
from pipeline.deployment.account import Account, account_of, kind_to_make
from pipeline.deployment.model import HubModel, LocalModel, on_hub, on_this_machine
from pipeline.deployment.question import QUESTION, ask, wait_until_ready
from pipeline.deployment.space import Secret, address, find_space, give_secrets, make_space, read_secrets, wait_until_up
from pipeline.deployment.space_folder import KINDS, Sdk, SpaceFolder, contents, named, write_folder
from pipeline.publishing.hub import RepositoryFile, check_name, earlier_files, send, told
from serve.models.sources import HUB

TOKEN, API_KEY, LOGIN = "HF_TOKEN", "SERVE_API_KEY", "SERVE_LOGIN"
READY = 600.0  # seconds for a Space that is up to have its model, which it may have to fetch


@dataclass(frozen=True)
class Order:
    """What is asked for."""

    repository: str
    model: str
    sdk: Sdk | None  # None: the better one of those that the account may make
    feedback: str | None
    secrets: Sequence[str]
    public: bool
    force: bool  # into a Space that holds something else, beside that


@dataclass(frozen=True)
class Plan:
    """What is going to be made."""

    folder: SpaceFolder
    secrets: Sequence[Secret]
    public: bool
    account: Account | None  # None where no token says whose
    found: SpaceInfo | None  # None where there is no such Space yet
    earlier: set[str]  # files that an earlier deployment put there

    def lines(self) -> Iterator[str]:
        """Yield what it comes to, a line each."""
        seen_by = "public: everybody sees and uses it" if self.public else "private: for those with access alone"
        space, model = self.folder, self.folder.model
        state = f"there, at {str(self.found.sha)[:12]}" if self.found else "new"
        yield f"Space     {space.repository}, {KINDS[space.sdk]}, {state}, {seen_by}"
        yield f"account   {self.account}: {self.account.rights}" if self.account else f"account   {TOKEN} is not set"
        way = "fetched by the Space at each start" if isinstance(model, HubModel) else "uploaded"
        yield f"model     {named(model)}, {model.size / 1e6:,.1f} MB, {way}"
        yield f"feedback  {space.feedback or 'gone when the Space restarts; --feedback keeps it'}"
        yield f"secrets   {', '.join(map(str, self.secrets)) or 'none'}"
        if space.sdk == "gradio":
            yield "computes  on the machine's processors, and never asks for a GPU"


def run(order: Order, yes: bool, dry_run: bool, out: Path | None) -> None:
    """Say what is going to be made, then make it.

    Args:
        order: what is asked for.
        yes: ask nothing.
        dry_run: write the folder alone.
        out: where it is written; deploy/NAME unless it is said.

    Raises:
        UserError: something is missing, may not be, or is refused; the Space does not come up, or does not answer.
    """
    if not sys.stderr.isatty():  # a log would have a line for each per cent
        disable_progress_bars()
    plan = planned(order, dry_run)
    print("\n".join(plan.lines()), flush=True)
    if not (dry_run or yes):
        agree(plan)
    folder = out or Path("deploy") / order.repository.partition("/")[2]
    files = write_folder(plan.folder, folder)
    print(f"folder    {folder}: {contents(files)}", flush=True)
    if not dry_run:
        try:
            made(plan, files, folder)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the same command goes on with it") from None


def planned(order: Order, dry_run: bool) -> Plan:
    """Look at everything that is here, then at the Hub, and change nothing.

    Raises:
        UserError: as for `run`.
    """
    check_name(order.repository)
    secrets = read_secrets(order.secrets)
    check_feedback(order.feedback)
    model = on_hub(order.model) if order.model.startswith(HUB) else on_this_machine(order.model)
    check_token_given(order.feedback, model, secrets)
    account, found, earlier = None, None, set[str]()
    if get_token():
        with told(order.repository):
            account = account_of(order.repository.partition("/")[0])
            found = find_space(order.repository, not order.public, order.sdk)
            earlier = earlier_files(found, order.force) if found else earlier
    elif not dry_run:
        raise UserError(f"{TOKEN} is not set; set it to a token that may write to {order.repository}")
    folder = SpaceFolder(order.repository, kind(order, account, found), model, order.feedback)
    return Plan(folder, secrets, order.public, account, found, earlier)


def kind(order: Order, account: Account | None, found: SpaceInfo | None) -> Sdk:
    """Return the kind of Space: that of one that is there, else what may be made.

    Raises:
        UserError: the account may not make it, or nobody says which.
    """
    if found:
        return "docker" if found.sdk == "docker" else "gradio"
    if account:
        return kind_to_make(account, order.sdk)
    if not order.sdk:
        raise UserError(f"{TOKEN} is not set, so nobody knows what the account may make; name --sdk docker or gradio")
    return order.sdk


def check_feedback(dataset: str | None) -> None:
    """Raise a `UserError` for a dataset of feedback that cannot be, or that everybody reads."""
    if dataset is None:
        return
    check_name(dataset, "the dataset for feedback")
    if not get_token():
        return
    with told(dataset):
        try:
            found = HfApi().dataset_info(dataset)
        except RepositoryNotFoundError:  # the Space makes it, private
            return
    if not found.private:
        raise UserError(f"{dataset} is public, and so would be what visitors say; make it private, or name another")


def check_token_given(feedback: str | None, model: HubModel | LocalModel, secrets: Sequence[Secret]) -> None:
    """Raise a `UserError` where the Space would need a token and is given none."""
    if any(secret.name == TOKEN for secret in secrets):
        return
    remedy = f"--secret {TOKEN}=VARIABLE, where VARIABLE has a token for that alone"
    if feedback:
        raise UserError(f"a Space keeps feedback in {feedback} with a token that may write there; add {remedy}")
    if isinstance(model, HubModel) and model.is_closed:
        raise UserError(f"{model.repository} is not open to everybody; add {remedy}, which may read it")


def agree(plan: Plan) -> None:
    """Ask before something becomes public that was not.

    Raises:
        UserError: the answer is no, or nobody is there to give one.
    """
    if not plan.public or plan.found:
        return
    question = f"make {plan.folder.repository} public, for everybody to see and use?"
    if not sys.stdin.isatty():
        raise UserError(f"{question} Nobody is here to say so; add --yes")
    if input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
        raise UserError("nothing was made")


def made(plan: Plan, files: list[RepositoryFile], folder: Path) -> None:
    """Make the Space what the folder is, and ask it a question.

    Raises:
        UserError: as for `run`.
    """
    repository = plan.folder.repository
    with told(repository):
        found = plan.found or make_space(repository, plan.folder.sdk, not plan.public)
        give_secrets(repository, plan.secrets)
        manifest = {MANIFEST: (folder / MANIFEST).read_text(encoding="utf-8")}
        commit = send(found, files, manifest, plan.earlier, named(plan.folder.model)).oid
    changed = "nothing differs" if commit == found.sha else f"commit {commit[:12]}"
    print(f"sent      {changed}: {constants.ENDPOINT}/spaces/{repository}", flush=True)
    with told(repository):
        wait_until_up(repository, commit)
        url = address(repository)
    print(f"up        {url}", flush=True)
    asked(url, plan)


def asked(url: str, plan: Plan) -> None:
    """Ask a Space that is up a question, where its settings let a program ask.

    Raises:
        UserError: it is not ready in time, or does not answer.
    """
    headers = {} if plan.public else {"Authorization": f"Bearer {get_token()}"}  # the Hub's, before a private Space
    wait_until_ready(url, headers, READY)
    values = {secret.name: secret.value for secret in plan.secrets}
    key = values.get(API_KEY)
    if (key and not plan.public) or (LOGIN in values and not key):
        print(f"ready     and not asked: with {API_KEY if key else LOGIN} its API is closed to this command")
        return
    print(f"asked     {QUESTION}\nanswer    {ask(url, headers | ({'x-api-key': key} if key else {}))}")
