"""`videoprism-mlx serve`: the page of a library."""

import argparse

from videoprism_mlx.cli import shared
from videoprism_mlx.cli.library.place import add_library


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "serve",
        help="search your videos in the browser",
        description="Serves a page, on this machine alone, on which a library of videos is "
        "searched: by words, by a picture or clip that is dropped on it, and by moments that it "
        "shows. Moments play where they are found. Ctrl-C ends it.",
        epilog="examples:\n"
        "  videoprism-mlx serve --open\n"
        "  videoprism-mlx serve --host 0.0.0.0 --token",
    )
    add_library(parser)
    parser.add_argument(
        "--port", type=int, metavar="N", help="the port (default: 8765, or the next free one)"
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="the address to listen on (default: %(default)s, for this machine alone); 0.0.0.0, "
        "for the network, needs --token",
    )
    parser.add_argument(
        "--token",
        nargs="?",
        const="",
        metavar="WORD",
        help="a word that visitors need, as part of the address; made up if none is given",
    )
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    serve_page(options.library, options.open, options.host, options.port, options.token)
    return 0


def require_libraries() -> None:
    """Raises MissingLibraryError if a library that the page needs is not installed."""
    from videoprism_mlx.runtime.libraries import require_library

    for module in ("lancedb", "starlette", "uvicorn"):
        require_library(module, "serve")


def serve_page(
    library: str | None,
    is_opened: bool,
    host: str = "127.0.0.1",
    port: int | None = None,
    token: str | None = None,
) -> None:
    """Serves the page of a library until Ctrl-C, and opens it in the browser if asked to."""
    require_libraries()
    from videoprism_mlx.library.web.server import serve

    def ready(address: str) -> None:
        print(f"{address}  (Ctrl-C ends it)", flush=True)
        if is_opened:
            shared.open_page(address)

    serve(library, host, port, token, ready=ready)
