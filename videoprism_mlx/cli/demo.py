"""`videoprism-mlx demo`: a search of drawn clips, without any download."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videoprism_mlx.cli import shared
from videoprism_mlx.cli.program.tables import fitted

if TYPE_CHECKING:
    from videoprism_mlx.demo.results import Demo


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "demo",
        help="try it in a few seconds: draw clips, and find them by what they show",
        description="Draws a folder of clips, encodes them with a tiny model that comes with the "
        "package, searches them, and writes a page that shows what was found. It uses no network. "
        "With --open, it opens the page. With --serve, it opens the page of a library of videos "
        "on the clips, where you can search for more; Ctrl-C ends it.",
        epilog="examples:\n"
        "  videoprism-mlx demo --open\n"
        "  videoprism-mlx demo --serve\n"
        '  videoprism-mlx demo --query "a red ball" --query "something that blinks"',
    )
    parser.add_argument(
        "--query",
        action="append",
        metavar="TEXT",
        help="search for this instead of the demo's own queries; may be given several times",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("videoprism-demo"),
        metavar="DIR",
        help="a new folder, or one of an earlier demo, which is replaced (default: %(default)s)",
    )
    parser.add_argument(
        "--clips", type=int, default=40, metavar="N", help="clips to draw (default: %(default)s)"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="other seeds give other clips (default: %(default)s)",
    )
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    parser.add_argument(
        "--serve", action="store_true", help="search the clips in the browser, as `serve` does"
    )
    shared.add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from videoprism_mlx.cli.library import serve
    from videoprism_mlx.demo.search import LIBRARY, run_demo

    if options.serve:
        serve.require_libraries()
    demo = run_demo(options.output, options.query, options.clips, options.seed)
    if options.json:
        shared.print_json(as_json(demo))
    else:
        print_table(demo)
    if options.serve:
        serve.serve_page(str(demo.output / LIBRARY), is_opened=True)
    elif options.open:
        shared.open_page(demo.page.absolute().as_uri())
    return 0


def print_table(demo: "Demo") -> None:
    """Prints the best clips of each query, the clips played backwards, and how long it took."""
    import shlex

    from videoprism_mlx.demo.page import TOP
    from videoprism_mlx.demo.search import LIBRARY
    from videoprism_mlx.errors import counted, printable

    words = {True: "yes", False: "no", None: ""}
    print("rank  cosine  right  clip        what it shows")
    for ranking in demo.rankings:
        print(f"\n{printable(ranking.query.text)}")
        for place, hit in enumerate(ranking.hits[:TOP], 1):
            name, right = hit.clip.path.name, words[hit.is_right]
            print(fitted(f"{place:4}  {hit.cosine:6.3f}  {right:5}  {name:10}  {hit.clip.shows}"))
    print("\nplayed forwards and backwards, and compared with either sentence")
    for turn in demo.turns:
        for text, cosines in ((turn.text, turn.cosines[:, 0]), (turn.opposite, turn.cosines[:, 1])):
            print(f"      {cosines[0]:6.3f}  {cosines[1]:6.3f}  {turn.clip.path.name:10}  {text}")
    count, seconds = len(demo.clips), demo.seconds
    print()
    if demo.judged:
        print(
            f"{'first is right':16}for {demo.first_right} of "
            f"{counted(len(demo.judged), 'query', 'queries')} (by chance: {demo.by_chance:.1f})"
        )
    turned = sum(turn.turns for turn in demo.turns)
    print(
        f"{'motion is seen':16}in {turned} of {counted(len(demo.turns), 'clip')} played backwards"
    )
    print(f"{'drawn':16}{counted(count, 'clip')} in {seconds['draw']:.1f} s")
    speed = count / seconds["encode"]
    print(f"{'encoded':16}in {seconds['encode']:.1f} s, {speed:,.0f} clips a second")
    print(f"{'searched':16}{1000 * seconds['search'] / len(demo.rankings):.1f} ms a query")
    if (demo.output / LIBRARY).exists():
        library = shlex.quote(str(demo.output / LIBRARY))
        print(printable(f"{'search it':16}videoprism-mlx serve --open --library {library}"))
    print(f"{'page':16}{printable(demo.page)}")


def as_json(demo: "Demo") -> dict[str, Any]:
    """The results, as `--json` prints them."""
    return {
        "page": str(demo.page),
        "picture": str(demo.picture),
        "clips": [{"video": str(clip.path), "shows": clip.shows} for clip in demo.clips],
        "queries": [
            {
                "text": ranking.query.text,
                "results": [
                    {"video": str(hit.clip.path), "cosine": hit.cosine, "right": hit.is_right}
                    for hit in ranking.hits
                ],
            }
            for ranking in demo.rankings
        ],
        "backwards": [
            {
                "video": str(turn.clip.path),
                "backwards": str(turn.backwards.path),
                "texts": [turn.text, turn.opposite],
                "cosines": turn.cosines.tolist(),
                "turns": turn.turns,
            }
            for turn in demo.turns
        ],
        "seconds": dict(demo.seconds),
    }
