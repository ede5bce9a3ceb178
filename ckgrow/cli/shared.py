"""What every command shares: options, error messages, exit codes, progress."""

from __future__ import annotations

import functools
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, ParamSpec, TypeVar

import typer

from ckgrow.cli.stopping import Stop
from ckgrow.errors import CkgrowError, FileError, SpecError, Terminated
from ckgrow.names import shown_path
from ckgrow.reasons import words

if TYPE_CHECKING:
    from ckgrow.watching import Watching

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

INTERRUPTED = 130
INTERNAL = 5

TeacherPlace = Annotated[str, typer.Argument(metavar="TEACHER", help="The teacher's checkpoint.")]
SpecPath = Annotated[Path, typer.Argument(metavar="SPEC", help="The growth spec, a YAML file.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Threads to work with; all cores if not given."),
]
Weights = Annotated[
    str | None,
    typer.Option("--weights", help="Which state dict of a container holds the teacher."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing file.")]
ShardSize = Annotated[
    str | None,
    typer.Option("--shard-size", help="Write files of at most this: 5GB, 500MB, ..."),
]
Drop = Annotated[
    list[str] | None,
    typer.Option("--drop", metavar="NAME", help="Leave out an entry of a torch container."),
]
Jobs = Annotated[
    int | None, typer.Option("--jobs", min=1, help="Jobs at once; one per core if not given.")
]
Address = Annotated[
    str | None,
    typer.Option("--address", help="Of a Dask scheduler or a Ray cluster that runs already."),
]
Architecture = Annotated[
    str | None,
    typer.Option("--architecture", help="The architecture, where keys and shapes leave it open."),
]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="NAME=VALUE", help="An option of the architecture."),
]

debugging = False


def set_debugging(wanted: bool) -> None:
    """Whether failures show a traceback."""
    global debugging  # one process runs one command
    debugging = wanted


def reported(command: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """A command whose failures become one line on stderr and an exit code."""

    @functools.wraps(command)
    def wrapped(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        with Stop() as stop:
            try:
                return command(*args, **kwargs)
            except (typer.Exit, SystemExit):
                raise
            except BaseException as failure:  # noqa: BLE001 - no traceback reaches a user
                _report(stop.reason or failure)

    return wrapped


def _report(failure: BaseException) -> NoReturn:
    match failure:
        case CkgrowError():
            _fail(str(failure), failure.exit_code)
        case KeyboardInterrupt():
            _fail("interrupted; no unfinished file was left behind", INTERRUPTED)
        case Terminated():
            _fail("terminated; no unfinished file was left behind", failure.exit_code)
        case OSError():
            ignore_stdout()  # if that is what failed, what waits in its buffer would fail again
            _fail(told(failure), FileError.exit_code)
        case _:
            _fail(f"internal error: {type(failure).__name__}: {failure}", INTERNAL)


def told(failure: OSError) -> str:
    """What the system could not do, and to which file where it says so."""
    if failure.filename is None:
        return words(failure)
    return f"{shown_path(os.fsdecode(failure.filename))}: {words(failure)}"


def _fail(message: str, code: int) -> NoReturn:
    if debugging:
        traceback.print_exc()
    elif code == INTERNAL:
        message += "; run 'ckgrow --debug ...' for the details, and please report it"
    typer.echo(f"error: {printable(message)}", err=True)
    raise typer.Exit(code)


def printable(text: str) -> str:
    """``text`` with control characters escaped, line breaks excepted.

    Names are escaped where a message is made; this catches what a path or a library adds.
    """
    return "".join(
        each if each.isprintable() or each == "\n" else ascii(each)[1:-1] for each in text
    )


def say(text: str, *, end: str = "\n") -> None:
    """Prints on stdout. A reader that has gone (``| head``) stops the printing, not the work."""
    try:
        typer.echo(text + end, nl=False)
    except BrokenPipeError:
        ignore_stdout()


def ignore_stdout() -> None:
    """Whatever is printed from now on goes nowhere, and what waits in the buffer as well."""
    try:
        stdout = sys.stdout.fileno()
    except OSError:  # no file at all: nothing there can fail
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stdout)
    os.close(nowhere)


def parsed_options(given: list[str] | None) -> dict[str, Any]:
    """``name=value`` texts as options; values are JSON where they can be, else plain words."""
    options: dict[str, Any] = {}
    for text in given or []:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise SpecError(f"--option {text!r}: write NAME=VALUE, for instance activation=relu")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return options


@contextmanager
def watching() -> Iterator[Watching]:
    """Progress on stderr, only where stderr is a terminal."""
    from ckgrow.watching import Unwatched

    if not sys.stderr.isatty():
        yield Unwatched()
        return
    from ckgrow.cli.progress import Bars

    with Bars() as bars:
        yield bars
