"""The ``korser`` command, and the command line of every recipe.

Importing PyTorch and SpeechBrain takes seconds. So nothing here does before it is needed, and a recipe imports what it
runs inside ``main``, once its arguments are parsed: help and mistakes are answered at once.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import korser
from korser.utils.errors import UserError, raise_faults
from korser.utils.logs import is_for_users
from korser.utils.memory import shortage
from korser.utils.signals import orderly_exit
from korser.utils.text import did_you_mean
from korser.utils.user_code import describe_error

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from korser.config.hparams import HParams

__all__ = [
    "MAX_PORT",
    "Parser",
    "add_worker_options",
    "check_torchrun",
    "distributed",
    "is_main_process",
    "main",
    "mapping",
    "parse_settings",
    "run",
]

# environment variables of torchrun and their least values
TORCHRUN = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "MASTER_PORT": 1}
MAX_PORT = 2**16  # also of ranks: far more than there are
COMMANDS = (
    *("describe", "audit", "train", "search", "compare", "plot", "probe", "predict"),
    *("explain", "evaluate", "export", "demo", "log", "pretrain", "check", "corpora"),
)


class Parser(argparse.ArgumentParser):
    """Parser of a recipe's command line; a mistake is a :class:`korser.UserError`.

    Parameters
    ----------
    command : str
        Name of the command, such as ``"plot"``.
    description : str
        Docstring of the recipe, shown by ``--help``.
    settings_file : str, optional
        The shipped YAML file whose settings can be set on the command line, shown by ``--help``.
    """

    def __init__(self, command: str, description: str, settings_file: str | None = None) -> None:
        super().__init__(
            prog=f"korser {command}".strip(),
            usage=settings_file and "%(prog)s FILE.yaml [--key=value ...]",  # default: made from the options
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.settings_file = settings_file

    def format_help(self) -> str:
        """Return the help, with the settings and their defaults."""
        if self.settings_file is None:
            return super().format_help()
        from korser.config.shipped import SHIPPED

        settings = (SHIPPED / self.settings_file).read_text(encoding="utf-8")
        return f"{super().format_help()}\nsettings ({self.settings_file}):\n\n{settings}"

    def parse_args(self, args: Sequence[str]) -> argparse.Namespace:
        """Parse a command line; unknown options are errors that name the nearest known one."""
        known = [name for action in self._actions for name in action.option_strings if name.startswith("--")]
        end = args.index("--") if "--" in args else len(args)  # behind it are names of files
        names = [argument.partition("=")[0] for argument in args[:end]]
        for name in names:
            if name.startswith("--") and name not in known and not {"-h", "--help"} & set(names):
                raise UserError(f"unknown option {name}{did_you_mean(name, known)}")
        return super().parse_args(args)

    def add_trust_option(self) -> None:
        """Add the option ``--trust`` of recipes that load run directories."""
        self.add_argument("--trust", action="store_true", help="let runs that someone else made run code of their own")

    def add_corpus_options(self, label_map_help: str = "renames labels; null leaves a label out") -> None:
        """Add the options of recipes that load a corpus without a settings file."""
        about = "of korser, or the import path of your own; several are a list: '[ravdess, nemo]'"
        self.add_argument("--corpus", required=True, type=one_or_several, metavar="NAME", help=about)
        about = "folder of the corpus; of several '{ravdess: FOLDER, ...}', as label_map and corpus_options then are"
        self.add_argument("--data_folder", required=True, type=one_or_several, metavar="FOLDER", help=about)
        self.add_argument(
            "--label_map", type=mapping, default={}, metavar="{TASK: {LABEL: CLASS}}", help=label_map_help
        )
        self.add_argument("--corpus_options", type=mapping, default={}, metavar="{NAME: VALUE}")
        self.add_argument("--cache_folder", default="cache", metavar="FOLDER", help="default: cache")

    def error(self, message: str) -> NoReturn:
        """Raise a mistake instead of printing the usage and exiting."""
        raise UserError(f"{message} (see {self.prog} --help)")


def parse_settings(parser: Parser, arguments: list[str]) -> tuple[Path, dict[str, Any], argparse.Namespace]:
    """Read the command line of a recipe that takes a settings file.

    Parameters
    ----------
    parser : Parser
        Of the recipe's own options.
    arguments : list of str

    Returns
    -------
    Path, dict, argparse.Namespace
        The settings file, found among those of korser where it has only a name; overrides; the recipe's own options.
    """
    options, rest = parser.parse_known_args(arguments)
    from korser.config.command_line import parse_arguments
    from korser.config.names import check_overrides
    from korser.config.shipped import find_settings_file

    if not rest:
        parser.error("expected a settings file")
    path, overrides = parse_arguments(rest)
    path = find_settings_file(path)
    check_overrides(path, overrides)  # here: before the recipe imports what it runs
    return path, overrides, options


def add_worker_options(parser: Parser) -> None:
    """Add the options of :func:`korser.workers.open_workers`."""
    parser.usage += " [--workers=N] [--cluster=auto]"
    group = parser.add_argument_group("where runs are trained")
    group.add_argument("--workers", type=int, metavar="N", help="runs at a time; default: one per GPU or CPU core")
    group.add_argument("--gpus_per_trial", type=float, metavar="SHARE", help="0.5 puts two runs on one GPU")
    group.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="a Ray cluster: auto (the one this machine is part of), HOST:PORT or local; pip install 'korser[cluster]'",
    )


def one_or_several(text: str) -> Any:
    """Read a YAML list or mapping, or text as it is; for ``add_argument(type=one_or_several)``."""
    from korser.config.nodes import plain_value

    if not text.lstrip().startswith(("[", "{")):
        return text
    try:
        return plain_value(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def mapping(text: str) -> dict[str, Any]:
    """Read a YAML mapping; for ``add_argument(type=mapping)``."""
    value = one_or_several(text)
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"'{text}': expected a mapping such as '{{name: value}}'")
    return value


def check_torchrun() -> None:
    """Refuse environment variables of torchrun that are malformed or incomplete: libraries read them on import."""
    faults = []
    for name, least in TORCHRUN.items():
        given = os.environ.get(name)
        if given is not None and not (given.isdecimal() and least <= int(given) < MAX_PORT):
            faults.append(f"environment variable {name}={given}: expected an integer >= {least} and < {MAX_PORT}")
    raise_faults([f"{fault}; unset it, or start korser by torchrun, which sets it" for fault in faults])
    if "RANK" in os.environ and "LOCAL_RANK" in os.environ:  # by which SpeechBrain joins other processes
        missing = [name for name in (*TORCHRUN, "MASTER_ADDR") if name not in os.environ]
        advice = "unset RANK and LOCAL_RANK, or start korser by torchrun"
        if missing:
            raise UserError(f"environment variables RANK and LOCAL_RANK without {', '.join(missing)}: {advice}")
        rank, size = os.environ["RANK"], os.environ["WORLD_SIZE"]
        if int(rank) >= int(size):
            raise UserError(f"environment variable RANK={rank}: expected an integer < WORLD_SIZE={size}; {advice}")


@contextlib.contextmanager
def distributed(hparams: HParams) -> Iterator[None]:
    """Initialise the process group if torchrun started this process, and destroy it at the end.

    Without :func:`torch.distributed.destroy_process_group`, threads of the process group may still run when a process
    exits, which aborts it.
    """
    from speechbrain.utils.distributed import ddp_barrier, ddp_init_group
    from torch.distributed import destroy_process_group, is_initialized

    ddp_init_group(hparams)
    yield
    if is_initialized():
        ddp_barrier()
        destroy_process_group()


def is_main_process() -> bool:
    """Return whether this process prints results: the only one, or the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def run(recipe: Callable[[list[str]], None], arguments: list[str] | None = None) -> None:
    """Call a recipe's ``main``; turn a user's mistake into one line and exit code 2.

    Parameters
    ----------
    recipe : callable
        Takes the list of command line arguments.
    arguments : list of str, optional
        By default those of this process.
    """
    _log_to_terminal()
    with contextlib.suppress(AttributeError):  # of a notebook
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files that the terminal's encoding does not have
    os.environ["MPLBACKEND"] = "agg"  # figures are files; a notebook's value may name what is not installed here
    try:
        with orderly_exit():
            check_torchrun()
            recipe([_expand_home(argument) for argument in (sys.argv[1:] if arguments is None else arguments)])
    except KeyboardInterrupt as error:
        if type(error) is not KeyboardInterrupt:  # a class of the user's code
            _refuse(describe_error(error))
        print("interrupted; run the same command again to resume", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of the output, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (UserError, RuntimeError, OSError, MemoryError) as error:
        text = shortage(error)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:
            text = f"cannot write the output: {error.strerror}"
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is buffered is written at the end
        if text is None and not isinstance(error, UserError):
            raise
        _refuse(text or str(error))
    except BaseException as error:
        if isinstance(error, (Exception, SystemExit)):
            raise
        _refuse(describe_error(error))  # of the user's code, such as asyncio's CancelledError or a panic of Rust


def _refuse(message: str) -> NoReturn:
    print("\n".join(f"error: {line}" for line in message.splitlines()), file=sys.stderr)
    sys.exit(2)


def _expand_home(argument: str) -> str:
    """Replace ``~`` at the beginning of a path, also in ``--key=~/data``, which a shell leaves alone."""
    name, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    return name + equals + (os.path.expanduser(value) if value.startswith("~/") else value)


def main(arguments: list[str] | None = None) -> None:
    """Run the ``korser`` command."""
    run(_main, arguments)


def _main(arguments: list[str]) -> None:
    command = arguments[0] if arguments else "--help"
    if command in ("-h", "--help"):
        print(_describe_commands())
    elif command == "--version":
        print(f"korser {korser.__version__}")
    elif command in COMMANDS:
        _import_recipe(command).main(arguments[1:])
    else:
        raise UserError(f"unknown command '{command}'{did_you_mean(command, COMMANDS)}")


def _describe_commands() -> str:
    lines = [f"  {command:<10}{_first_line(_import_recipe(command))}" for command in COMMANDS]
    return "\n".join([_first_line(korser), "", "usage: korser COMMAND ... | COMMAND --help | --version", "", *lines])


def _first_line(module: ModuleType) -> str:
    return module.__doc__.partition("\n")[0]


def _import_recipe(command: str) -> ModuleType:
    return importlib.import_module(f"korser.recipes.{command}")


def _log_to_terminal() -> None:
    """Show warnings, each once, and messages of korser and the user's own code on stderr."""
    shown = set()

    def is_new(record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        text = record.getMessage()
        new = text not in shown
        shown.add(text)
        return new

    handler = logging.StreamHandler()
    handler.addFilter(is_for_users)
    handler.addFilter(is_new)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])


if __name__ == "__main__":
    main()
