"""The command ``ckgrow``: parses, calls, prints."""

from __future__ import annotations

import sys
import warnings
from io import TextIOWrapper
from typing import Annotated

import typer

from ckgrow.cli import batching, converting, exporting, looking, making
from ckgrow.cli.shared import INTERRUPTED, ignore_stdout, printable, say, set_debugging, told
from ckgrow.errors import FileError
from ckgrow.version import VERSION

app = typer.Typer(
    name="ckgrow",
    help="Grows trained neural networks: a teacher and a spec in, a bigger student out, and proof.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"ckgrow {VERSION}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of failures.")] = False,
) -> None:
    """Grows trained neural networks."""
    set_debugging(debug)


for _command in (
    making.apply,
    making.verify,
    batching.batch,
    converting.convert,
    exporting.export,
    looking.plan,
    looking.inspect,
    looking.init,
    looking.schema,
    looking.adapters,
):
    app.command()(_command)


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    """A warning of Python's, without the line of code that it came from."""
    typer.echo(f"warning: {printable(str(message))}", err=True)


def run() -> None:
    """The entry point of the installed command."""
    warnings.showwarning = _warn
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # what the terminal's encoding lacks is escaped
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            app()
        finally:
            _flush()
    except KeyboardInterrupt:  # before a command has begun
        raise SystemExit(INTERRUPTED) from None
    except OSError as failure:  # the same: a help text that cannot be printed
        ignore_stdout()
        typer.echo(f"error: {told(failure)}", err=True)
        raise SystemExit(FileError.exit_code) from None


def _flush() -> None:
    """Writes what is still to be printed, since Python would not tell its failure as an error."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        ignore_stdout()
