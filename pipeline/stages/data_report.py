"""What prepare has made is shown: reports/data.html, its figures in reports/data.json, and a card for the data set.

Tokens are those of the configured model, where its tokenizer is on this machine.
"""

from pipeline.workers.process import prepare_process

if __name__ == "__main__":  # before libraries are loaded
    prepare_process()

from pathlib import Path

from pipeline.core.config import Config
from pipeline.core.data_settings import DataSettings
from pipeline.core.paths import DATA_PAGE
from pipeline.data.prepared import require_prepared
from pipeline.data_report.tokens import Model, model_of, token_lines
from pipeline.data_report.write import write_report
from pipeline.stages.run import stage


def run(config: Config, out: Path) -> None:
    """Show what prepare has written to `out`."""
    require_prepared(config.data, out)
    show(config.data, out, model_of(config))


def show(settings: DataSettings, folder: Path, model: Model | None = None) -> None:
    """Write the reports below a folder that prepare has written to, and say what the tokens come to.

    Raises:
        UserError: a file is missing or damaged.
    """
    figures = write_report(settings, folder, model)
    print("".join(f"{line}\n" for line in token_lines(figures.tokens)), end="")
    print(f"written: {folder / DATA_PAGE}", flush=True)


main = stage(run)

if __name__ == "__main__":
    main()
