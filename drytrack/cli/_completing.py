"""``drytrack completion``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from drytrack.cli import _output

_ADVICE = {
    "bash": 'eval "$(drytrack completion bash)"  # in ~/.bashrc',
    "zsh": 'eval "$(drytrack completion zsh)"  # in ~/.zshrc, behind compinit',
    "fish": "drytrack completion fish > ~/.config/fish/completions/drytrack.fish",
}


@click.command()
@click.argument("shell", type=click.Choice(sorted(_ADVICE)))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def completion(shell: str, as_json: bool) -> None:
    """Print what makes a shell complete verbs, options and runs.

    Put this where the shell starts: eval "$(drytrack completion bash)"
    """
    from drytrack.cli._app import app

    made = get_completion_class(shell)
    assert made is not None  # the three that click has
    script = made(app, {}, "drytrack", "_DRYTRACK_COMPLETE").source()
    if as_json:
        _output.print_json({"shell": shell, "script": script, "use": _ADVICE[shell]})
    else:
        click.echo(script)
