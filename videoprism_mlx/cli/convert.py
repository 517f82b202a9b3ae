"""`videoprism-mlx convert`."""

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videoprism_mlx.cli import shared
from videoprism_mlx.cli.program import quantization
from videoprism_mlx.errors import InputError

if TYPE_CHECKING:
    from videoprism_mlx.convert import Conversion
    from videoprism_mlx.convert.verify import Comparison


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "convert",
        help="convert a checkpoint of Flax or Transformers to a model directory, or back",
        description="Converts an official Flax checkpoint, or a model of Transformers, to a model "
        "directory: config.json, model.safetensors and the tokenizer. Given a model directory, it "
        "writes a Flax .npz or, with --to transformers, a directory for Transformers. With -q it "
        "quantizes any of them.",
        epilog="examples:\n"
        "  videoprism-mlx convert videoprism_lvt_public_v1_base -o my-model\n"
        "  videoprism-mlx convert flax_base.npz -o my-model --dtype bfloat16\n"
        "  videoprism-mlx convert my-model -o flax.npz\n"
        "  videoprism-mlx convert my-model -o for-transformers --to transformers\n"
        "  videoprism-mlx convert my-model -o small -q --q-bits 8",
    )
    parser.add_argument(
        "source",
        metavar="CHECKPOINT",
        help="a Flax .npz; the name or Hugging Face id of a released checkpoint; a directory "
        "or Hub id of a model of Transformers; or a model directory",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="OUT", help="the directory (or .npz) to write"
    )
    shared.add_overwrite(
        parser, "replace an earlier model directory (or .npz); by default it is an error"
    )
    parser.add_argument(
        "--config",
        metavar="NAME|PATH",
        help="a configuration's name, a config.json or a model directory, if the shapes in the "
        "checkpoint do not tell which it is",
    )
    shared.add_dtype(parser, "type to store the weights in (default: float32)")
    parser.add_argument(
        "--tokenizer",
        metavar="FILE|ID",
        help="a SentencePiece .model to put beside a video-text model, or a Hub id that has one",
    )
    parser.add_argument(
        "--to",
        choices=("flax", "transformers"),
        help="what a model directory is converted to (default: flax)",
    )
    parser.add_argument("--revision", metavar="NAME", help="a branch, tag or commit on the Hub")
    parser.add_argument(
        "--verify",
        metavar="ACTIVATIONS",
        type=Path,
        help="replay saved Flax activations through the converted model, and compare",
    )
    parser.add_argument(
        "--upload-repo",
        metavar="REPO",
        help="also upload the model directory to this repository on the Hub, as you/name",
    )
    quantization.add_options(parser)
    shared.add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    asked_for = quantization.is_asked_for(options)
    return run_quantization(options) if asked_for else run_conversion(options)


def run_quantization(options: argparse.Namespace) -> int:
    """Quantizes or dequantizes a model, and uploads the result if that is asked for."""
    refuse(options, ("to",), "with -q and --dequantize")
    if options.upload_repo is not None:
        check_upload(options, is_model=False)
    summary = quantization.run(options)
    if options.upload_repo is not None:
        summary["uploaded"] = upload(options, None)
    if options.json:
        shared.print_json(summary)
    return 0


def run_conversion(options: argparse.Namespace) -> int:
    """Converts from one format to another, and prints what was written."""
    from videoprism_mlx import convert
    from videoprism_mlx.errors import printable
    from videoprism_mlx.models import SHIPPED, canonical_name
    from videoprism_mlx.weights import hub
    from videoprism_mlx.weights.loading import load_model

    name = canonical_name(options.source)
    source = SHIPPED.get(name or "", Path(options.source))
    is_foreign = name is None and is_of_transformers(options.source)
    is_model = source.is_dir() and (name is None or name in SHIPPED) and not is_foreign
    check(options, is_model, is_foreign)

    model, summary = source, {}
    if options.output is not None:
        started = time.perf_counter()
        if is_model and options.to == "transformers":
            result = convert.mlx_to_transformers(source, options.output, options.overwrite)
        elif is_model:
            result = convert.mlx_to_flax(source, options.output, overwrite=options.overwrite)
        elif is_foreign:
            result, model = from_transformers(options), options.output
        else:
            model = options.output
            if name is None:
                refuse(options, ("revision",), "for a local file")
                checkpoint, config, origin = source, options.config, None
            else:
                refuse(options, ("config",), f"for {name}, which has its own")
                checkpoint, config = hub.download_checkpoint(name, options.revision), name
                origin = hub.origin(name, options.revision)
            result = convert.flax_to_mlx(
                checkpoint,
                model,
                config,
                options.dtype or "float32",
                options.tokenizer,
                origin,
                options.overwrite,
            )
        seconds = time.perf_counter() - started
        summary = {**result._asdict(), "output": str(result.output), "seconds": seconds}
        if not options.json:
            print(
                f"{printable(result.output)}: {result.model}, {result.parameters:,} parameters, "
                f"{result.bytes / 1e6:,.1f} MB, {seconds:.1f} s"
            )
    code = 0
    if options.verify is not None:
        comparisons = convert.verify(load_model(model, dtype="float32"), options.verify)
        code = 0 if all(each.agrees for each in comparisons) else 1
        summary["modules"] = list(map(as_row, comparisons))
        if not options.json:
            print_comparisons(comparisons)
    if options.upload_repo is not None:
        summary["uploaded"] = upload(options, summary.get("modules"))
    if options.json:
        shared.print_json(summary)
    return code


def as_row(comparison: "Comparison") -> dict[str, Any]:
    """A module and whether it agrees, for JSON."""
    return {**comparison._asdict(), "agrees": bool(comparison.agrees)}


def upload(options: argparse.Namespace, modules: "Sequence[Mapping[str, Any]] | None") -> Any:
    """Uploads the model directory, if its modules agree. Returns what was done, for JSON."""
    from videoprism_mlx.cli.hub.upload import report
    from videoprism_mlx.convert.verify import FACTOR
    from videoprism_mlx.errors import UploadError, printable
    from videoprism_mlx.hub.upload import upload
    from videoprism_mlx.progress import write

    checks = []
    if modules is not None:
        if not all(each["agrees"] for each in modules):
            write("a module differs, so nothing was uploaded")
            return None
        checks.append(
            f"{len(modules)} outputs of its modules agree with saved ones of the official Flax "
            f"model, to within {FACTOR:g} times Flax's own rounding in float32."
        )
    try:
        uploaded = upload(options.output, options.upload_repo, checks=checks)
    except UploadError:
        how = f"videoprism-mlx upload {options.output} {options.upload_repo}"
        write(printable(f"{options.output} is complete; `{how}` uploads it"))
        raise
    if not options.json:
        report(uploaded)
    return uploaded._asdict()


def is_of_transformers(source: str) -> bool:
    """Whether this is the directory of a model of Transformers, or an id on the Hub."""
    from videoprism_mlx.convert.transformers import is_transformers
    from videoprism_mlx.weights.loading import repository_of

    is_id = not source.endswith(".npz") and repository_of(source) is not None
    return is_id or is_transformers(Path(source))


def from_transformers(options: argparse.Namespace) -> "Conversion":
    """Converts a model of Transformers, which is downloaded if it has to be."""
    from videoprism_mlx.convert import transformers_to_mlx
    from videoprism_mlx.weights.hub import split_revision
    from videoprism_mlx.weights.loading import download_transformers, repository_of

    directory, origin = Path(options.source), None
    if (repository := repository_of(options.source)) is not None:
        _, revision = split_revision(options.source, options.revision)
        directory, origin = download_transformers(repository, revision)
    return transformers_to_mlx(
        directory,
        options.output,
        options.dtype or "float32",
        options.tokenizer,
        origin,
        options.overwrite,
    )


def check(options: argparse.Namespace, is_model: bool, is_foreign: bool = False) -> None:
    """Raises an error for what would fail later.

    `is_model` says that a model directory is converted to another format, and `is_foreign` that a
    model of Transformers is converted to a model directory.
    """
    from videoprism_mlx.convert.flax import given_config
    from videoprism_mlx.convert.transformers.writing import require_new_transformers
    from videoprism_mlx.convert.verify import read_activations
    from videoprism_mlx.files.atomic import require_new_file
    from videoprism_mlx.files.output import require_writable
    from videoprism_mlx.models import SHIPPED, parse_dtype
    from videoprism_mlx.tokenizers import load_text_tokenizer
    from videoprism_mlx.weights.directory import read_config, require_new_model
    from videoprism_mlx.weights.hub import tokenizer_file

    if options.output is None and not (is_model and options.verify):
        raise InputError("there is no output; name it with -o")
    to_transformers = is_model and options.to == "transformers"
    if is_foreign and not Path(options.source).is_dir():
        refuse_from_hub(options)
    refuse_others(options, is_model, is_foreign)
    if is_model:
        read_config(SHIPPED.get(options.source, Path(options.source)))
    if options.output is not None:
        if is_model and not to_transformers and options.output.suffix != ".npz":
            raise InputError(
                f"{options.source} is a model directory already, from which a Flax .npz is "
                f"written; {options.output} does not end in .npz. For a directory that "
                "Transformers loads, add --to transformers"
            )
        if is_foreign and options.output.suffix == ".npz":
            raise InputError(
                f"{options.source} is a model of Transformers, from which a model directory is "
                f"written; {options.output} would be a Flax .npz: convert that directory to it"
            )
        if to_transformers:
            require_new_transformers(options.output, options.overwrite)
        elif not is_model:
            require_new_model(options.output, options.overwrite)
        elif not options.overwrite:
            require_new_file(options.output, or_overwrite=True)
        require_writable(options.output, is_file=is_model and not to_transformers)
    if options.dtype is not None:
        parse_dtype(options.dtype)
    if options.config is not None:
        given_config(options.config)
    if options.tokenizer is not None:
        options.tokenizer = tokenizer_file(options.tokenizer)
        load_text_tokenizer(options.tokenizer)
    if options.verify is not None:
        read_activations(options.verify)
    if options.upload_repo is not None:
        check_upload(options, is_model)


def refuse_from_hub(options: argparse.Namespace) -> None:
    """Raises InputError for another format from a model on the Hub, which may have either."""
    from videoprism_mlx.weights.hub import split_revision

    if options.to is None and (options.output is None or options.output.suffix != ".npz"):
        return
    name, revision = split_revision(options.source, options.revision)
    at = f" --revision {revision}" if revision else ""
    raise InputError(
        f"{options.source} is on the Hub, and another format is written only from a model "
        f"directory here: run `hf download {name}{at} --local-dir DIRECTORY`, and convert DIRECTORY"
    )


def check_upload(options: argparse.Namespace, is_model: bool) -> None:
    """Raises an error unless the model directory can be uploaded. It asks the Hub."""
    from videoprism_mlx.hub.upload import check_upload

    if is_model:
        raise InputError(
            f"{options.source} is a model directory already: `videoprism-mlx upload "
            f"{options.source} {options.upload_repo}` uploads it"
        )
    check_upload(options.upload_repo)


def refuse_others(options: argparse.Namespace, is_model: bool, is_foreign: bool) -> None:
    """Raises InputError if an option is given that has no effect on this kind of source."""
    if is_model:
        format_name = "to Transformers" if options.to == "transformers" else "back to Flax"
        refuse(
            options,
            ("config", "dtype", "tokenizer", "revision"),
            f"when a model is converted {format_name}",
        )
    elif options.to is not None:
        raise InputError(
            f"--to says what a model directory is converted to, and {options.source} is none; "
            "convert it to one first, and that with --to"
        )
    if is_foreign:
        is_local = Path(options.source).is_dir()
        refuse(options, ("config",) + ("revision",) * is_local, "for a model of Transformers")


def refuse(options: argparse.Namespace, names: Sequence[str], where: str) -> None:
    """Raises InputError if one of these options, which have no effect here, is given."""
    for name in names:
        if getattr(options, name) is not None:
            raise InputError(f"--{name} has no effect {where}; leave it out")


def print_comparisons(comparisons: "Sequence[Comparison]") -> None:
    """Prints a line for each module, and whether all agree."""
    from videoprism_mlx.cli.program.tables import shortened, terminal_width
    from videoprism_mlx.convert.verify import FACTOR

    title, differs = "relative distance to Flax in float64", "  differs"
    width = max(len(title), *(len(each.path) for each in comparisons))
    if columns := terminal_width():
        width = min(width, max(columns - 20 - len(differs), len(title)))
    print(f"{title:{width}}  {'MLX':>8}  {'Flax f32':>8}")
    for each in comparisons:
        mark = "" if each.agrees else differs
        path = shortened(each.path, width)
        print(f"{path:{width}}  {each.distance:8.1e}  {each.flax_distance:8.1e}{mark}")
    first = next((each for each in comparisons if not each.agrees), None)
    if first is not None:
        print(f"the first to differ is {first.path}")
    else:
        print(f"all {len(comparisons)} agree to within {FACTOR:g} times Flax's own rounding")
