"""The verbs of this folder, each in a file of its own."""

from __future__ import annotations

import typer

from . import adapt_cli, fit_cli, predict_cli, profile_cli, table_cli


def register(app: typer.Typer) -> None:
    """Add the verbs of this folder to the command."""
    for verb in (profile_cli, table_cli, fit_cli, predict_cli, adapt_cli):
        verb.register(app)
