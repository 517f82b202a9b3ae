"""`videoprism-mlx upload`: a model, adapters or a library's record to the Hugging Face Hub."""

import argparse
from typing import TYPE_CHECKING, Any

from videoprism_mlx.cli import shared

if TYPE_CHECKING:
    from videoprism_mlx.hub.upload import Uploaded


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "upload",
        help="upload a model, adapters or a library's record to the Hugging Face Hub",
        description="Uploads a model directory, a classifier or adapters, with a card that says "
        "what it is and how to use it; of a library, the record, by which others can make the same "
        "one. The directory is checked first. All files arrive in one commit, or none does. The "
        "files of a repository that is there already are replaced.",
        epilog="examples:\n"
        "  videoprism-mlx upload my-model you/my-model\n"
        "  videoprism-mlx upload my-adapters you/my-adapters --private\n"
        "  videoprism-mlx upload my-model somebody/model --create-pr",
    )
    parser.add_argument(
        "directory", metavar="DIR", help="a model directory, adapters, or a library"
    )
    parser.add_argument("repository", metavar="REPO", help="the repository, as you/name")
    parser.add_argument(
        "--private", action="store_true", help="if the repository is new: only you can see it"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--create-pr", action="store_true", help="propose the change in a pull request"
    )
    where.add_argument(
        "--revision", metavar="BRANCH", help="the branch to change, made if needed (default: main)"
    )
    parser.add_argument("--message", metavar="TEXT", help="the message of the commit")
    parser.add_argument(
        "--license",
        metavar="ID",
        help="the licence that the card names, such as apache-2.0 (default: of official weights "
        "that were only converted, theirs; of others, none)",
    )
    parser.add_argument(
        "--base",
        metavar="ID",
        help="the model that adapters, or a library, belong to, if it is a directory here",
    )
    parser.add_argument(
        "--embeddings",
        action="store_true",
        help="of a library: also all moments, with the names of the videos",
    )
    shared.add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from videoprism_mlx.hub.upload import upload

    names = ("private", "create_pr", "revision", "message", "license", "base", "embeddings")
    settings = {name: getattr(options, name) for name in names}
    uploaded = upload(options.directory, options.repository, **settings)
    if options.json:
        shared.print_json(uploaded._asdict())
    else:
        report(uploaded)
    return 0


def report(uploaded: "Uploaded") -> None:
    """Prints what was uploaded, and how it is used."""
    from videoprism_mlx.cli.library.manage import size
    from videoprism_mlx.errors import counted, printable
    from videoprism_mlx.progress import note

    files = f"{counted(len(uploaded.files), 'file')}, {size(uploaded.bytes)}"
    done = f"in commit {uploaded.commit[:7]}" if uploaded.is_new else "which it had already"
    at = "" if uploaded.revision == "main" else f"@{uploaded.revision}"
    print(printable(f"{uploaded.url}{at}: {files}, {done}"))
    if uploaded.pull_request:
        print(printable(f"pull request: {uploaded.pull_request}"))
    if uploaded.kept_card:
        note("the README.md that is there was kept")
    if uploaded.license is None:
        note("the card names no licence; --license says which it is")
    if (use := how_to_use(uploaded)) is not None:
        note(printable(f"to use it: {use}{at}"))


def how_to_use(uploaded: "Uploaded") -> str | None:
    """A command that uses what was uploaded; None for a pull request, which is not merged yet."""
    if uploaded.pull_request is not None:
        return None
    commands: dict[str, Any] = {
        "model": "videoprism-mlx embed clips -o features.npz --model",
        "classifier": "videoprism-mlx classify clip.mp4 --model",
        "adapters": "videoprism-mlx similarity clip.mp4 --text TEXT --adapters",
    }
    command = commands.get(uploaded.kind)
    return None if command is None else f"{command} {uploaded.repository}"
