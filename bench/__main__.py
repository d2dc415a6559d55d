"""`bench VERB` and `python -m bench VERB`: finds the verb, runs it, turns errors into one line."""

from __future__ import annotations

import errno
import importlib
import io
import sys
from typing import TYPE_CHECKING

from bench.errors import BadInput, nearest, one_line

if TYPE_CHECKING:
    import typer

VERBS = {
    "grid": "train every trial of a grid that has no record yet, then draw the report",
    "train": "train one trial, without Ray",
    "report": "draw a grid's HTML report from the records, also while it runs",
    "plugins": "list, show, check or begin cells and regularizers",
    "corpora": "list, fetch or show corpora",
    "store": "check, merge and tidy the records",
    "generate": "sample text from a run's best weights",
}
BAD_INPUT, INTERRUPTED = 2, 130
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}


def run(app: typer.Typer, argv: list[str] | None = None, name: str | None = None) -> None:
    """Runs a verb and exits: 0, 1 (a command's own), 2 for bad input, 130 when interrupted.

    Bad input gets one clear line on stderr.
    """
    import typer.main

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name need not be text
    command = typer.main.get_command(app)
    try:
        code = command.main(args=argv, prog_name=name, standalone_mode=False)
    except BadInput as error:
        print(f"bench: {error}", file=sys.stderr)
        if error.detail:
            print(error.detail.rstrip(), file=sys.stderr)
        sys.exit(BAD_INPUT)
    except (KeyboardInterrupt, typer.Abort):
        print("bench: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # `… | head` has read enough
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        # The net below what each verb says itself: a path that cannot be, a disk that is full.
        if error.filename is None and error.errno not in _DISK:
            raise
        where = "" if error.filename is None else f"{error.filename}: "
        print(f"bench: {one_line(f'{where}{error.strerror or error}')}", file=sys.stderr)
        sys.exit(BAD_INPUT)
    except UnicodeEncodeError as error:  # from an argument, or a file's name
        print(f"bench: {one_line(error.object, 80)!r} is no text in UTF-8", file=sys.stderr)
        sys.exit(BAD_INPUT)
    except Exception as error:
        # Usage errors are click's, and some versions of typer carry a click of their own: they
        # are known by what they can do.
        format_message = getattr(error, "format_message", None)
        if format_message is None:
            raise
        text = one_line(format_message()).rstrip(".")
        errors = getattr(error.__cause__, "errors", None)  # pydantic's: they hold what was given
        given = f" (given: {one_line(errors()[0]['input'], 60)})" if errors else ""
        print(f"bench: {text}{given}. See --help.", file=sys.stderr)
        sys.exit(BAD_INPUT)
    sys.exit(code if isinstance(code, int) else 0)


def main(argv: list[str] | None = None) -> None:
    """The console script."""
    words = sys.argv[1:] if argv is None else argv
    if not words or words[0] in ("-h", "--help"):
        print("Usage: bench VERB [OPTIONS]   (each verb has its own --help)\n")
        for verb, meaning in VERBS.items():
            print(f"  {verb:<10} {meaning}")
        sys.exit(0 if words else BAD_INPUT)
    verb = words[0]
    if verb == "--version":
        from bench import __version__

        print(f"recurrent-bench {__version__}")
        sys.exit(0)
    if verb not in VERBS:
        print(f"bench: no such verb: {one_line(verb, 60)}. {nearest(verb, VERBS)}", file=sys.stderr)
        sys.exit(BAD_INPUT)
    package = ["plugins", "corpora", "store", "report"]
    module = importlib.import_module(
        f"bench.{verb}.__main__" if verb in package else f"bench.{verb}"
    )
    run(module.app, words[1:], f"bench {verb}")


if __name__ == "__main__":
    main()
