"""The parser of the program, with all commands. Building it imports nothing heavy."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any, NoReturn

from videoprism_mlx.cli.program.messages import add_loudness
from videoprism_mlx.errors import excerpt, printable, shown, suggestion

PROGRAM = "videoprism-mlx"

EXAMPLE = "example:\n  "


class Parser(argparse.ArgumentParser):
    """A parser whose epilog, an example, is printed as it is, and whose errors are two lines."""

    def __init__(self, *arguments: Any, **options: Any):
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*arguments, **options)

    def format_help(self) -> str:
        """The help, with the description wrapped."""
        import shutil
        import textwrap

        whole = self.description
        width = max(shutil.get_terminal_size().columns - 2, 20)
        try:
            self.description = whole and textwrap.fill(whole, width)
            return super().format_help()
        finally:
            self.description = whole

    def error(self, message: str) -> NoReturn:
        """Prints the error and where the help is, without the usage, and ends."""
        said = f"{self.prog}: {printable(message)}\n`{self.prog} --help` describes "
        self.exit(2, f"{said}{'the commands' if subcommands(self) else 'the command'}\n")

    def parse_known_args(  # type: ignore[override]  # It returns what argparse does.
        self, args: Any = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As in argparse, but a command refuses unknown options itself: it knows its name."""
        options, unknown = super().parse_known_args(args, namespace)
        if unknown and not subcommands(self):
            name = unknown[0].partition("=")[0]
            if not name.startswith("-"):
                self.error(f"unexpected {shown(unknown[0])}")
            known = [option for option in self._option_string_actions if len(option) > 2]
            near = suggestion(name, known) if name.startswith("--") else ""
            self.error(f"there is no option {excerpt(name)}{near}")
        return options, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """As in argparse, but an unknown command is answered with the closest one."""
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:
            near = suggestion(value, action.choices)
            self.error(f"no command is called {shown(value)}{near}")
        super()._check_value(action, value)


class Version(argparse.Action):
    """Prints the version, which is looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        """Prints it and ends."""
        from videoprism_mlx.files.record import own_version

        print(f"{PROGRAM} {own_version()}")
        parser.exit()


def build(modules: Sequence[ModuleType]) -> Parser:
    """The parser of the program, with the commands of these modules."""
    parser = Parser(
        prog=PROGRAM,
        description="VideoPrism, Google DeepMind's video encoder, in MLX: features of videos, "
        "search, training and evaluation.",
        epilog=f"{EXAMPLE}{PROGRAM} demo\n\n`{PROGRAM} COMMAND --help` describes a command.",
    )
    parser.add_argument("--version", nargs=0, action=Version, help="print the version and exit")
    commands = parser.add_subparsers(metavar="COMMAND", title="commands", dest="command")
    for module in modules:
        module.add(commands)
    for each in all_parsers(parser):
        add_loudness(each)
        each.epilog = each.epilog or f"{EXAMPLE}{each.prog}"
        if "run" not in each._defaults:  # The name of a command is missing.
            each.set_defaults(run=HelpOf(each))
    return parser


def subcommands(parser: argparse.ArgumentParser) -> bool:
    """Whether the name of a command follows the parser's own."""
    return any(isinstance(action, argparse._SubParsersAction) for action in parser._actions)


class HelpOf:
    """What a command does that needs the name of a command after it: it prints the help."""

    def __init__(self, parser: argparse.ArgumentParser):
        self.parser = parser

    def __call__(self, _: argparse.Namespace) -> int:
        """Prints the help."""
        self.parser.print_help(sys.stdout)
        return 0


def all_parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parser and those of all commands below it."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from all_parsers(child)


def add_alias(parser: Any, old: str, new: str, **options: Any) -> None:
    """Adds an older name of an option, which the help does not show."""
    dest = new.lstrip("-").replace("-", "_")
    parser.add_argument(
        old, dest=dest, default=argparse.SUPPRESS, help=argparse.SUPPRESS, **options
    )
