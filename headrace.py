"""The command line: mounts each package's own commands and imports them only when they are called. No logic here."""

from __future__ import annotations

import importlib

import click

COMMANDS = {
    "crawl": "pipelines.crawl:crawl",
    "run": "pipelines.cli:run",
    "verify": "pipelines.cli:verify",
    "explain": "pipelines.cli:explain",
    "tune": "pipelines.cli:tune",
    "mix": "mixtures.cli:mix",
    "trace": "trainer_bridge.cli:trace",
    "replay": "pipelines.cli:replay",
    "report": "mixtures.report.cli:report",
    "train": "trainer_bridge.moe.cli:train",
    "train-extractor": "pipelines.main_content.training.cli:train_extractor",
    "contamination-index": "pipelines.contamination.cli:contamination_index",
    "train-classifier": "pipelines.quality_classifier.cli:train_classifier",
}


class LazyGroup(click.Group):
    """A group whose commands are the Click commands named in `COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which they are used."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module that has the command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="headrace")
def main() -> None:
    """Headrace: raw crawl, code and conversations to training steps, with nothing lost on the way."""


if __name__ == "__main__":
    main()
