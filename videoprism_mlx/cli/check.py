"""`videoprism-mlx check`: whether this installation computes what the official model computes."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videoprism_mlx.cli import shared
from videoprism_mlx.errors import InputError, printable

if TYPE_CHECKING:
    from videoprism_mlx.check.published import Figure
    from videoprism_mlx.check.replay import Result

DEPARTS = (
    "Weights that were trained further, are quantized or are stored in half precision must "
    "differ. For others, "
    "`videoprism-mlx check` tells whether this machine is the cause."
)
FIGURE_LINE = "{:<17}{:<10}{:>12}{:>12}{:>12}{:>9}"
LINE = "{:<7}{:<10}{:<12}{:<26}{:>11}{:>11}"


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "check",
        help="check that the models are computed right on this machine",
        description="Replays saved activations of the official Flax model for small models, on "
        "each device and in each type, and describes the machine. It needs no network and takes "
        "a few seconds. With --model, it compares a released model with figures that others "
        "published instead. The exit code is 1 if something is not as it should be.",
    )
    parser.add_argument(
        "--model",
        metavar="NAME|DIR",
        help="compare this model's outputs with the figures that others published for it; a name, "
        "a model directory or a Hub id",
    )
    shared.add_revision(parser)
    parser.add_argument(
        "--clip",
        type=Path,
        metavar="PATH",
        help="with --model: the official demos' water_bottle_drumming.mp4; by default it is "
        "fetched once and kept",
    )
    parser.add_argument(
        "--speed",
        action="store_true",
        help="also measure how fast the released models are here, with random weights, in about "
        "three minutes at most",
    )
    parser.add_argument(
        "--tune",
        action="store_true",
        help="first find the fastest block size and keep it for this machine; implies --speed",
    )
    shared.add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.model is not None:
        if options.speed or options.tune:
            raise InputError("--speed and --tune have no effect with --model; leave them out")
        return run_published(options)
    shared.named_model(options)  # It says that --revision needs --model.
    if options.clip is not None:
        raise InputError("--clip is for the figures of a model; give --model as well")
    from videoprism_mlx.check import machine, replay

    results = list(replay.replay_all())
    described = {**machine.describe_machine(), **machine.abilities()}
    faults = [*failures(results), *machine.complaints()]
    measures = options.speed or options.tune
    if options.json:
        measured = measure_speed(options.tune, True) if measures else {}
        described["blocks"] = machine.block_sizes()  # They may just have been tuned.
        shared.print_json(
            {
                **measured,
                "passed": not faults,
                "faults": [f"{name}: {what}" for name, what in faults],
                "machine": described,
                "results": [{**one._asdict(), "agrees": one.agrees} for one in results],
            }
        )
        return 1 if faults else 0
    print_results(replay.worst(results))
    print()
    for name, value in described.items():
        print(printable(f"{name:<18}{device(value) if name == 'device' else in_words(value)}"))
    for name, what in machine.missing_options():
        print(f"{'not installed':<18}{name}, {what}")
    print()
    for name, what in faults:
        print(printable(f"FAILED {name}: {what}"))
    if not faults:
        print(f"All {len(results)} outputs are as exact as they should be.")
    if measures:
        measure_speed(options.tune, False)
    return 1 if faults else 0


def measure_speed(tunes: bool, as_json: bool) -> dict[str, Any]:
    """Measures, and prints tables unless the result is wanted as JSON. Returns it."""
    from videoprism_mlx import progress
    from videoprism_mlx.check import speed, table, tune

    found: dict[str, Any] = {}
    with progress.status() as bar:

        def show(lines: list[str]) -> None:
            if not as_json:
                bar.clear()
                print("", *lines, sep="\n", flush=True)

        if tunes:
            show(["The fastest block size is looked for first, which takes a few minutes."])
            tuned, path = tune.tune(bar.set_description_str)
            found["tuning"] = tune.as_json(tuned, path)
            show(table.tuning_lines(tuned, path))
        bar.set_description_str("what fits")
        planned = list(speed.cases())
        show(table.heading(speed.foreseen(planned)))
        rows, left_out = speed.measure(planned, bar.set_description_str)
        found["speed"] = speed.as_json(rows, left_out)
        show(table.speed_lines(rows, left_out))
    return found


def failures(results: "list[Result]") -> list[tuple[str, str]]:
    """The results that depart, with a name and the figures."""
    return [
        (
            f"{one.model}, {one.dtype} on the {one.device}",
            f"{one.output} is at {number(one, one.measured)}, allowed {number(one, one.allowed)}",
        )
        for one in results
        if not one.agrees
    ]


def run_published(options: argparse.Namespace) -> int:
    """Prints published figures beside those of a model. 1 if one departs."""
    from videoprism_mlx.check import machine, published

    figures = published.compare(shared.named_model(options), options.clip)
    described = machine.describe_machine()
    failed = [one for one in figures if not one.agrees]
    if options.json:
        faults = [
            f"{one.label}: {one.ours} is {one.difference:.1e} from the published {one.published}, "
            f"allowed {one.allowed:.0e}"
            for one in failed
        ]
        results = [
            {**one._asdict(), "difference": one.difference, "agrees": one.agrees} for one in figures
        ]
        shared.print_json(
            {
                "passed": not failed,
                "faults": faults,
                "source": published.SOURCE,
                "machine": described,
                "results": results,
            }
        )
        return 1 if failed else 0
    print_figures(figures, published.SOURCE)
    here = f"mlx {described['mlx']}, {device(described['device'])}"
    print(f"\nhere: {here}, precision {described['precision']}")
    if failed:
        indices: dict[str, list[str]] = {}
        for one in failed:
            indices.setdefault(one.output, []).append(str(list(one.indices)))
        named = "; ".join(f"{output} {', '.join(each)}" for output, each in indices.items())
        print_wrapped(f"FAILED {len(failed)} of {len(figures)}: {named}.")
        print_wrapped(DEPARTS)
        return 1
    print(f"All {len(figures)} figures are as published.")
    return 0


def print_figures(figures: "list[Figure]", source: str) -> None:
    """The table: a published figure and ours in each line."""
    print_wrapped(f"Figures that others published for {figures[0].model}, from {source}.")
    print()
    heads = "output", "indices", "published", "here", "difference", "allowed"
    print(FIGURE_LINE.format(*heads))
    for one in figures:
        both = decimal(one.published), decimal(one.ours)
        distances = f"{one.difference:.1e}", f"{one.allowed:.0e}"
        mark = "ok" if one.agrees else "FAILED"
        print(FIGURE_LINE.format(one.output, str(list(one.indices)), *both, *distances), mark)


def print_wrapped(text: str) -> None:
    """Prints a sentence on lines that fit a terminal."""
    import textwrap

    print(textwrap.fill(text, 79))


def decimal(value: float) -> str:
    """A figure with as many decimals as were published."""
    return f"{value:.1e}" if abs(value) >= 100 else f"{value:.8f}"


def print_results(results: "list[Result]") -> None:
    """The table: for each model, device and type the output that is nearest to its bound."""
    print("float32: relative distance from Flax in float64, and that of Flax in float32.")
    print("Half precision: the smallest cosine of a row, and that of Flax in bfloat16.")
    print("Of each model, the output that is nearest to its bound.\n")
    print(LINE.format("", "type", "model", "output", "here", "Flax"))
    for one in results:
        mark = "ok" if one.agrees else "FAILED"
        figures = number(one, one.measured), number(one, one.flax)
        print(LINE.format(one.device, one.dtype, one.model, one.output[:25], *figures), mark)


def number(result: "Result", value: float) -> str:
    """A figure as it is printed: a distance or a cosine."""
    return f"{value:.1e}" if result.dtype == "float32" else f"{value:.5f}"


def device(described: str) -> str:
    """A device as it is printed, such as `CPU` for `Device(cpu, 0)`."""
    return "GPU" if "gpu" in described.lower() else "CPU"


def in_words(value: Any) -> str:
    """A fact about the machine as it is printed."""
    if isinstance(value, dict):
        return ", ".join(
            f"{key} {('yes' if each else 'no') if isinstance(each, bool) else each}"
            for key, each in value.items()
        )
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return "none" if value is None else str(value)
