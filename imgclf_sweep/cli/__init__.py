"""The command `sweep`. A verb's heavy imports happen inside the verb."""

from __future__ import annotations

import os
import sys

import click

from .. import __version__
from ..errors import StoreError, SweepError
from ..text import printable
from .check import check
from .check_data import check_data
from .compare import compare, figures
from .end import board, predict, retrain
from .repair import repair
from .run import run
from .show import best, list_sweeps, status, trials

EPILOG = "Start with:  sweep run search_spaces/digits.py"


class InOrder(click.Group):
    """A group that lists its verbs in the order of use, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    cls=InOrder, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(__version__, prog_name="sweep")
def sweep() -> None:
    """Hyperparameter sweeps for image-classification CNNs: one file in, one trained, scored and exported model out."""


VERBS = (run, check, check_data, list_sweeps, status, trials, best, figures, retrain, compare, predict, board, repair)

for verb in VERBS:
    sweep.add_command(verb)


def main() -> None:
    """Run the command line. Every failure is one line on stderr and an exit code from `errors`."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when TensorFlow is imported, if it ever is
    _open_what_is_closed()
    try:
        code = sweep.main(standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else sweep.help)
        code = 2
    except click.ClickException as error:
        where = f" (see '{error.ctx.command_path} --help')" if isinstance(error, click.UsageError) and error.ctx else ""
        code = fail(printable(error.format_message()) + where, 2)
    except SweepError as error:
        code = fail(str(error), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        code = fail("interrupted", 130)
    except BrokenPipeError:  # `sweep trials | head -1`: who read us has enough
        code = 0
    except OSError as error:
        if os.environ.get("IMGCLF_SWEEP_TRACEBACK"):
            raise
        where = f"{printable(error.filename)}: " if error.filename else ""
        code = fail(f"{where}{printable(error.strerror or error)}", StoreError.exit_code)
    except Exception as error:
        if os.environ.get("IMGCLF_SWEEP_TRACEBACK"):
            raise
        hint = "IMGCLF_SWEEP_TRACEBACK=1 shows where; please report it"
        code = fail(f"internal error: {type(error).__name__}: {printable(error)} ({hint})", 1)
    sys.exit(_written(code or 0))


def _written(code: int) -> int:
    """Write what is still to be written, while its failing can be told; at exit Python would show a traceback. The exit code."""
    try:
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        pass
    except OSError as error:
        code = code or fail(printable(error.strerror or error), StoreError.exit_code)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return code


def _open_what_is_closed() -> None:
    """Let stdin, stdout and stderr lead nowhere where they are closed (`sweep run FILE >&-`): otherwise the next file opened,
    the database perhaps, would stand in their place and take what native code prints."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(
                os.open(os.devnull, os.O_RDWR), True
            )  # it takes the lowest free number, which is this one
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w"))


def fail(line: str, code: int) -> int:
    """One line for the user, and the exit code."""
    click.echo(f"sweep: {line}", err=True)
    return code
