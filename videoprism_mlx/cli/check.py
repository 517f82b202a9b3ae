"""`videoprism-mlx check`: whether this installation computes what the official model computes."""

import argparse
from typing import TYPE_CHECKING, Any

from videoprism_mlx.cli import shared

if TYPE_CHECKING:
    from videoprism_mlx.check.replay import Result

LINE = "{:<7}{:<10}{:<12}{:<26}{:>11}{:>11}"


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "check",
        help="check that the models are computed right on this machine",
        description="Replays saved activations of the official Flax model for small models, on "
        "each device and in each type, and describes the machine. It needs no network and takes "
        "a few seconds. The exit code is 1 if something is not as it should be.",
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
    from videoprism_mlx.check import machine, replay

    results = list(replay.replay_all())
    described = {**machine.describe_machine(), **machine.abilities()}
    faults = [*failures(results), *machine.complaints()]
    measures = options.speed or options.tune
    if options.json:
        shared.print_json(
            {
                **(measure_speed(options.tune, True) if measures else {}),
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
        print(f"{name:<18}{in_words(value)}")
    for name, what in machine.missing_options():
        print(f"{'not installed':<18}{name}, {what}")
    print()
    for name, what in faults:
        print(f"FAILED {name}: {what}")
    if not faults:
        print(f"All {len(results)} outputs are as exact as they should be.")
    if measures:
        measure_speed(options.tune, False)
    return 1 if faults else 0


def measure_speed(tunes: bool, as_json: bool) -> dict[str, Any]:
    """Measures, and prints tables unless the result is wanted as JSON. Returns it."""
    from tqdm import tqdm

    from videoprism_mlx.check import speed, table, tune

    found: dict[str, Any] = {}
    with tqdm(bar_format="{desc} [{elapsed}]", disable=None, leave=False) as bar:

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


def in_words(value: Any) -> str:
    """A fact about the machine as it is printed."""
    if isinstance(value, dict):
        return ", ".join(
            f"{key} {('yes' if each else 'no') if isinstance(each, bool) else each}"
            for key, each in value.items()
        )
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return "not installed" if value is None else str(value)
