"""The demo on one page, without scripts or anything from elsewhere, and as a picture.

Shapes: T frames, S size of a frame.
"""

import base64
import io
import platform
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import mlx.core as mx
import numpy as np
from PIL import Image

from videoprism_mlx.demo.world import FPS
from videoprism_mlx.pictures.drawing import CURVE, FAINT, INK, PAPER
from videoprism_mlx.pictures.sheets import draw_search

if TYPE_CHECKING:
    from videoprism_mlx.demo.search import Clip, Demo, Hit, Ranking, Turn

# So many clips are shown for a query, and so many of all in the end.
TOP, GALLERY = 4, 60

# Pixels of a side, where a clip is a result and in the gallery.
LARGE, SMALL = 192, 96

# The last frame stays a while, so that the clip is seen to begin again.
LAST = 700

# Of the picture.
PICTURE_ROWS, PICTURE_CLIPS = 5, 3

STYLE = f"""
:root {{ color-scheme: light dark; --paper: {PAPER}; --card: #fff; --ink: {INK}; --faint: {FAINT};
  --line: #e6e6e2; --right: {CURVE}; --wrong: #b34e00; }}
@media (prefers-color-scheme: dark) {{ :root {{ --paper: #151618; --card: #1e2023; --ink: #e9e9e5;
  --faint: #a3a39d; --line: #34363a; --right: #5cb6ea; --wrong: #f0914a; }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; padding: 3rem 1.25rem 4rem; max-width: 60rem; background: var(--paper);
  color: var(--ink); font: 1.0625rem/1.6 system-ui, sans-serif; overflow-wrap: anywhere; }}
h1 {{ margin: 0 0 1rem; font-size: clamp(1.7rem, 5vw, 2.4rem); line-height: 1.15; }}
h2 {{ margin: 4rem 0 .5rem; font-size: 1.5rem; }}
h3 {{ margin: 0; font-size: 1.15rem; }}
p {{ margin: 0 0 1rem; max-width: 42rem; }}
small, .faint, figcaption, dd {{ color: var(--faint); font-size: .875rem; line-height: 1.4; }}
dl {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: 1rem;
  margin: 2rem 0 0; padding: 1.25rem 0; border: solid var(--line); border-width: 1px 0; }}
dt {{ font-size: 1.5rem; line-height: 1.3; }}
dd {{ margin: 0; }}
article {{ margin: 2rem 0 3rem; }}
.query {{ display: flex; flex-wrap: wrap; align-items: baseline; gap: .25rem 1rem;
  margin-bottom: .75rem; }}
.query h3 {{ padding: .4rem 1.1rem; border: 1px solid var(--line); border-radius: 1.5rem;
  background: var(--card); }}
.results, .gallery {{ display: grid; gap: 1.25rem 1rem; margin: 0; padding: 0; list-style: none;
  grid-template-columns: repeat(4, minmax(0, 1fr)); }}
.gallery {{ gap: .5rem; grid-template-columns: repeat(auto-fill, minmax(5rem, 1fr)); }}
.turn {{ display: grid; gap: 1.25rem 2rem; grid-template-columns: 1fr 1fr; }}
.turn figure {{ display: grid; gap: 1rem; grid-template-columns: minmax(5rem, 9rem) 1fr;
  align-items: center; }}
figure {{ margin: 0; }}
img {{ display: block; width: 100%; height: auto; border-radius: .4rem;
  outline: 1px solid var(--line); outline-offset: -1px; }}
.score {{ display: flex; gap: .5rem; align-items: baseline; margin-top: .4rem;
  color: var(--ink); font-variant-numeric: tabular-nums; }}
.right, .wrong {{ font-weight: 700; }}
.right {{ color: var(--right); }}
.wrong {{ color: var(--wrong); }}
.dots {{ display: block; width: 100%; height: 22px; margin-top: .75rem; }}
.dots line {{ stroke: var(--line); }}
.dots circle {{ fill: var(--paper); stroke: var(--faint); }}
.dots .true {{ fill: var(--right); stroke: var(--paper); }}
.bar {{ height: .5rem; margin: .1rem 0 .6rem; border-radius: .25rem; background: var(--line); }}
.bar span {{ display: block; height: 100%; border-radius: inherit; background: var(--faint); }}
.bar .most {{ background: var(--right); }}
pre {{ padding: .9rem 1.1rem; border: 1px solid var(--line); border-radius: .5rem;
  background: var(--card); font-size: .9rem; white-space: pre-wrap; }}
@media (max-width: 40rem) {{ .results {{ grid-template-columns: 1fr 1fr; }}
  .turn {{ grid-template-columns: 1fr; }} }}
"""


def page(demo: "Demo") -> str:
    """The page, whole."""
    body = "\n".join([opening(demo), queries(demo), turned(demo), gallery(demo), onwards(demo)])
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>videoprism_mlx: finding clips by saying what they show</title>
<style>{STYLE}</style>
</head>
<body>
{body}
</body>
</html>
"""


# The parts of the page.


def opening(demo: "Demo") -> str:
    """What this is, and what it took."""
    count, asked = len(demo.clips), len(demo.rankings)
    figures = [
        (f"{demo.seconds['draw']:.1f} s", f"to draw {count} clips, as .mp4 files"),
        (
            f"{count / demo.seconds['encode']:,.0f} a second",
            f"clips read and encoded, in {demo.seconds['encode']:.1f} s",
        ),
        (f"{1000 * demo.seconds['search'] / asked:.1f} ms", f"a query, among {count} clips"),
    ]
    if demo.judged:
        figures.append(
            (
                f"{demo.first_right} of {len(demo.judged)}",
                "queries with a right clip in first place; "
                f"by chance it would be {demo.by_chance:.1f}",
            )
        )
    listed = "".join(
        f"<div><dt>{escape(figure)}</dt><dd>{escape(what)}</dd></div>" for figure, what in figures
    )
    return f"""<header>
<h1>Finding clips by saying what they show</h1>
<p>VideoPrism is Google DeepMind's video encoder; this project runs it in MLX, on your own machine.
It makes of a clip a list of numbers, an <em>embedding</em>, and of a sentence another one. It has
learned to put the two close together where the sentence says what the clip shows and how things
move in it. So a search needs no tags and no file names: it compares numbers.</p>
<p>All of this page was made just now on {escape(machine())}, without a network: {count} short
clips were drawn, encoded with a tiny model that comes with the package, and searched with the
sentences below.</p>
<dl>{listed}</dl>
</header>"""


def machine() -> str:
    """The system, its processor and what the model ran on."""
    system = {"Darwin": "macOS"}.get(platform.system(), platform.system())
    device = "GPU" if mx.default_device().type == mx.gpu else "CPU"
    return f"{system} ({platform.machine()}, {device})"


def queries(demo: "Demo") -> str:
    """Each query over what was found for it."""
    count = len(demo.clips)
    shown = min(TOP, count)
    said = (
        "<strong class='right'>✓</strong> marks what was asked for, "
        "<strong class='wrong'>✗</strong> what was not, by what the clips were drawn from. "
        if demo.judged
        else "What is right in answer to queries of your own is for you to say. "
    )
    solid = "; the solid ones are right" if demo.judged else ""
    lowest, highest = (
        pick(hit.cosine for ranking in demo.rankings for hit in ranking.hits) for pick in (min, max)
    )
    articles = "\n".join(result(ranking, shown, lowest, highest) for ranking in demo.rankings)
    return f"""<section>
<h2>Asked, and found</h2>
<p>The {shown} clips closest to each query, the closest first. {said}The number is the cosine of
both embeddings: the higher, the closer. The dots are all {count} clips, the closest at the right
end{solid}.</p>
{articles}
</section>"""


def result(ranking: "Ranking", shown: int, lowest: float, highest: float) -> str:
    """A query, the clips found first, and where all of them are."""
    kind, right, count = ranking.query.kind, ranking.right, len(ranking.hits)
    if right:
        verb = "is" if len(right) == 1 else "are"
        kind += f" · {len(right)} of the {count} clips {verb} right"
    found = "".join(
        f"<li>{figure(hit, place)}</li>" for place, hit in enumerate(ranking.hits[:shown], 1)
    )
    return f"""<article>
<div class="query"><h3>{escape(ranking.query.text)}</h3><small>{escape(kind)}</small></div>
<ol class="results">{found}</ol>
{dots(ranking, lowest, highest)}
</article>"""


def figure(hit: "Hit", place: int) -> str:
    """A clip that was found."""
    marks = {
        True: '<span class="right" role="img" aria-label="right">✓</span>',
        False: '<span class="wrong" role="img" aria-label="not what was asked for">✗</span>',
        None: "",
    }
    return (
        f"<figure>{playing(hit.clip, LARGE)}<figcaption>"
        f'<span class="score"><span>{place}.</span>{marks[hit.is_right]}'
        f"<span>{hit.cosine:.3f}</span></span>{escape(hit.clip.shows)}</figcaption></figure>"
    )


def dots(ranking: "Ranking", lowest: float, highest: float) -> str:
    """All clips along a line, by their cosines."""
    reach = (highest - lowest) or 1.0
    circles = "".join(
        f'<circle cx="{1 + 98 * (hit.cosine - lowest) / reach:.2f}%" cy="11" '
        + ('r="5" class="true"/>' if hit.is_right else 'r="4"/>')
        for hit in sorted(ranking.hits, key=lambda hit: bool(hit.is_right))
    )
    label = f"The cosines of all {len(ranking.hits)} clips"
    if ranking.right:
        label += f"; right are those in place {', '.join(map(str, ranking.right))}"
    return (
        f'<svg class="dots" role="img" aria-label="{label}">'
        f'<line x1="0" x2="100%" y1="11" y2="11"/>{circles}</svg>'
    )


def turned(demo: "Demo") -> str:
    """Clips beside their reverses."""
    count, turns = len(demo.turns), sum(turn.turns for turn in demo.turns)
    articles = "\n".join(map(turn_about, demo.turns))
    return f"""<section>
<h2>The same frames, backwards</h2>
<p>Does the model see motion, or does it look at pictures one by one? Play a clip backwards: its
frames are the very same, and only their order is another. If pictures were all that counted,
nothing would change. But what moved left now moves right, and the other sentence should be the
closer one. Here that is so for {turns} of {count} clips.</p>
{articles}
</section>"""


def turn_about(turn: "Turn") -> str:
    """A clip and its reverse, each with the cosines of both sentences."""
    verdict = (
        '<span class="right">✓ the answer turns with the clip</span>'
        if turn.turns
        else '<span class="wrong">✗ the answer does not turn with the clip</span>'
    )
    most = max(turn.cosines.max(), 1e-6)
    sides = []
    for clip, name, cosines in (
        (turn.clip, "forwards", turn.cosines[0]),
        (turn.backwards, "backwards", turn.cosines[1]),
    ):
        bars = "".join(
            f"<div>{escape(text)} <strong>{cosine:.3f}</strong></div>"
            f'<div class="bar"><span style="width:{100 * max(cosine, 0) / most:.1f}%"'
            f"{' class=most' if cosine == cosines.max() else ''}></span></div>"
            for text, cosine in zip((turn.text, turn.opposite), cosines, strict=True)
        )
        sides.append(
            f"<figure>{playing(clip, LARGE)}<figcaption><strong>{name}</strong>{bars}"
            "</figcaption></figure>"
        )
    return (
        f'<article><p class="faint">{verdict}</p><div class="turn">{"".join(sides)}</div></article>'
    )


def gallery(demo: "Demo") -> str:
    """What was searched."""
    count, clips = len(demo.clips), demo.clips[:GALLERY]
    some = "" if len(clips) == count else f"<p>Here are the first {len(clips)}.</p>"
    listed = "".join(f"<li>{playing(clip, SMALL)}</li>" for clip in clips)
    return f"""<section>
<h2>The {count} clips</h2>
<p>None of these is like any that the model was trained on. Every thing in them is of a shape that
it never saw in this colour, or of a colour that it never saw move this way: training had hearts,
and it had yellow things, but no yellow heart. To find one, the model has to put together what it
knows of the parts. The clips are .mp4 files, in the folder
<code>{demo.clips[0].path.parent.name}</code> beside this page.</p>
{some}<ul class="gallery">{listed}</ul>
</section>"""


def onwards(demo: "Demo") -> str:
    """How to go on from here."""
    return f"""<section>
<h2>Now your own</h2>
<p>Ask for something else, among clips like these:</p>
<pre>videoprism-mlx demo --query "a green plus sign spins" --query "a box that gets smaller"</pre>
<p>The model of this page is a tiny one of {demo.parameters:,} parameters. It is built as
VideoPrism is, comes with the package, and was trained with it, from nothing, on drawn clips alone.
It knows coloured shapes and no more. Its numbers show how the search works, not how good VideoPrism
is.</p>
<p>DeepMind's released models have 114 to 580 million parameters and were trained on real video.
They are downloaded when they are first used:</p>
<pre>videoprism-mlx embed clips -o features.npz
videoprism-mlx similarity --video clips --text "playing drums" "a dog runs after a ball"</pre>
<p>The first command keeps the embeddings of a folder of videos, the second says how well sentences
fit each of them.</p>
</section>"""


# Clips that play.


def playing(clip: "Clip", side: int) -> str:
    """A clip as an image that moves, or four of its frames for those who want no motion."""
    frames = [
        Image.fromarray(frame).resize((side, side), Image.Resampling.LANCZOS)
        for frame in clip.frames()
    ]
    return (
        '<picture><source media="(prefers-reduced-motion: reduce)" '
        f'srcset="{data_uri([four_of(frames)])}">'
        f'<img src="{data_uri(frames)}" width="{side}" height="{side}" '
        f'alt="{escape(clip.shows)}"></picture>'
    )


def four_of(frames: Sequence[Image.Image]) -> Image.Image:
    """Four frames from first to last, as the quarters of one."""
    side = frames[0].width
    sheet = Image.new("RGB", (side, side), PAPER)
    for place, which in enumerate(np.linspace(0, len(frames) - 1, 4).round().astype(int)):
        small = frames[which].resize((side // 2 - 1, side // 2 - 1), Image.Resampling.LANCZOS)
        sheet.paste(small, (place % 2 * (side // 2 + 1), place // 2 * (side // 2 + 1)))
    return sheet


def data_uri(frames: Sequence[Image.Image]) -> str:
    """Frames as a WebP that plays for ever."""
    kept = io.BytesIO()
    settings = dict(quality=50, method=4)
    if len(frames) > 1:
        durations = [1000 // FPS] * (len(frames) - 1) + [LAST]
        settings |= dict(save_all=True, append_images=frames[1:], duration=durations, loop=0)
        settings |= dict(minimize_size=True)
    frames[0].save(kept, "webp", **settings)
    return f"data:image/webp;base64,{base64.b64encode(kept.getvalue()).decode()}"


# The picture.


def picture(demo: "Demo") -> np.ndarray:
    """An image of the first queries over what was found, and of a clip that was turned around."""
    rows = [
        (
            f"“{ranking.query.text}”",
            [
                (hit.clip.frames(), f"{hit.cosine:.3f} · {hit.clip.motion}", hit.is_right)
                for hit in ranking.hits[:PICTURE_CLIPS]
            ],
        )
        for ranking in demo.rankings[:PICTURE_ROWS]
    ]
    turn = demo.turns[0]
    clips = turn.clip, turn.backwards
    said = [
        ", ".join(f"{cosine:.3f} {of.motion}" for cosine, of in zip(row, clips, strict=True))
        for row in turn.cosines
    ]
    both = [(clip.frames(), text, turn.turns) for clip, text in zip(clips, said, strict=True)]
    rows.append(("the same frames, forwards and backwards", both))
    return draw_search(rows, title=f"{len(demo.clips)} clips, searched by what they show")
