"""How layers are quantized: the settings, and how config.json holds them under "quantization".

    "quantization": {
        "group_size": 64, "bits": 4, "mode": "affine",     for each layer that is not named below
        "text_encoder.token_emb": {"group_size": 64, "bits": 8, "mode": "affine"},
        "patch_projection.linear": false                   it is not quantized
    }

These are the names of mlx-lm. A budget of bits leaves two more keys (see `Spent`). A quantized
layer has the parameters `weight`, in packed integers, `scales` and, in the mode affine, `biases`.

Shapes: I inputs and O outputs of a layer.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from videoprism_mlx.errors import CheckpointError, InputError, counted, excerpt, shown, suggestion
from videoprism_mlx.layers import QUANTIZATION_DEFAULTS

KEY = "quantization"

# For each mode: the sizes of a group and the bits of a weight that MLX has.
MODES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "affine": ((32, 64, 128), (2, 3, 4, 5, 6, 8)),
    "mxfp4": ((32,), (4,)),
    "mxfp8": ((32,), (8,)),
    "nvfp4": ((16,), (4,)),
}

# A position table has the name of a weight, too, and is not quantized.
WEIGHT, POSITIONS = ".weight", "pos_emb"

# The types of parameters as they are called in a safetensors file.
FLOATS, PACKED, EIGHT_BITS = ("F32", "BF16", "F16"), ("U32",), ("U8",)

Shapes = Mapping[str, tuple[int, ...]]


class Packing(NamedTuple):
    """How a layer is quantized: groups of weights that share a scale, and the bits of a weight."""

    group_size: int
    bits: int
    mode: str = "affine"


# Each layer that can be quantized, by path. None: it is not quantized.
Packings = Mapping[str, Packing | None]


@dataclasses.dataclass(frozen=True)
class Spent:
    """How a budget of bits was spent: the average that it allows, and what layers were chosen by.

    `calibration` has the number of videos and the checksum of their frames.
    """

    budget_bits: float
    calibration: Mapping[str, Any]


def packing(
    bits: int | None = None, group_size: int | None = None, mode: str | None = None
) -> Packing:
    """The settings, with what is usual for what is None. Raises InputError if MLX lacks them."""
    mode = "affine" if mode is None else mode
    if not isinstance(mode, str) or mode not in MODES:
        raise InputError(f"mode is {shown(mode)}; expected one of {', '.join(MODES)}")
    sizes, widths = MODES[mode]
    usual_size, usual_bits = QUANTIZATION_DEFAULTS[mode]
    group_size = usual_size if group_size is None else group_size
    bits = usual_bits if bits is None else bits
    for name, value, known in (("bits", bits, widths), ("group_size", group_size, sizes)):
        if isinstance(value, bool) or not isinstance(value, int) or value not in known:
            listed = ", ".join(map(str, known))
            raise InputError(
                f"{name} is {shown(value)}; expected {'one of ' * (len(known) > 1)}{listed} in "
                f"the mode {mode}"
            )
    return Packing(group_size, bits, mode)


def require_dividing(path: str, inputs: int, each: Packing) -> None:
    """Raises InputError unless the group size divides the width of a layer."""
    if inputs % each.group_size:
        fitting = [str(size) for size in MODES[each.mode][0] if inputs % size == 0]
        hint = f"{' and '.join(fitting)} would" if fitting else "leave that layer as it is"
        raise InputError(
            f"a group size of {each.group_size} does not divide {inputs}, the width of "
            f"{excerpt(path)}; {hint}"
        )


def layers_in(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """The layers that can be quantized among parameters: their paths, and the shapes (O, I)."""
    found: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        path = name.removesuffix(WEIGHT)
        if name.endswith(WEIGHT) and len(shape) == 2 and not path.endswith(POSITIONS):
            found[path] = shape
    return found


def as_config(packings: Packings, spent: Spent | None = None) -> dict[str, Any] | None:
    """What config.json says under "quantization"; None if no layer is quantized."""
    used = Counter(each for each in packings.values() if each is not None)
    if not used:
        return None
    [(usual, _)] = used.most_common(1)
    layers = {
        path: False if each is None else each._asdict()
        for path, each in sorted(packings.items())
        if each != usual
    }
    return usual._asdict() | (dataclasses.asdict(spent) if spent else {}) | layers


def parse(described: Mapping[str, Any], shapes: Shapes, where: Path) -> Packings | None:
    """The packing of each layer that a config.json describes; None if nothing is quantized.

    `shapes` are those of the parameters before. Raises CheckpointError, which names the file
    `where`, if it says what cannot be.
    """
    if KEY not in described:
        return None
    found = described[KEY]
    if not isinstance(found, Mapping):
        raise CheckpointError(f'{where}: "{KEY}" is {shown(found)}; expected a mapping of settings')
    try:
        usual = _parsed(found)
        layers = layers_in(shapes)
        own = set(Packing._fields) | {field.name for field in dataclasses.fields(Spent)}
        for path in found:
            if path not in layers and path not in own:
                raise InputError(
                    f"{shown(path)} names no layer of this model that could be quantized"
                    f"{suggestion(str(path)[:200], layers)}"
                )
        packings = {path: _layer(path, found.get(path, True), usual) for path in layers}
        for path, each in packings.items():
            if each is not None:
                require_dividing(path, layers[path][1], each)
    except InputError as error:
        raise CheckpointError(f'{where}: "{KEY}": {error}') from None
    if all(each is None for each in packings.values()):
        raise CheckpointError(f'{where}: "{KEY}" leaves out every layer; remove "{KEY}"')
    return packings


def require_dense(directory: str | Path, described: Mapping[str, Any]) -> None:
    """Raises CheckpointError if a model directory, whose config.json is given, is quantized."""
    if KEY in described:
        raise CheckpointError(
            f"{directory} is quantized, which other formats cannot hold; dequantize it first: "
            f"`videoprism-mlx convert {directory} -o DIRECTORY --dequantize`"
        )


def parse_spent(described: Mapping[str, Any]) -> Spent | None:
    """How a budget was spent, if config.json says that. Nothing depends on it."""
    found = described.get(KEY)
    names = [field.name for field in dataclasses.fields(Spent)]
    if isinstance(found, Mapping) and all(name in found for name in names):
        budget, calibration = (found[name] for name in names)
        if isinstance(budget, (int, float)) and isinstance(calibration, Mapping):
            return Spent(budget, dict(calibration))
    return None


def _layer(path: str, said: object, usual: Packing) -> Packing | None:
    if isinstance(said, bool):
        return usual if said else None
    if not isinstance(said, Mapping):
        raise InputError(f"{path} is {shown(said)}; expected false or a mapping of settings")
    if strange := said.keys() - set(Packing._fields):
        raise InputError(f"{path} has no setting {shown(min(map(str, strange)))}")
    try:
        return _parsed(said)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _parsed(said: Mapping[str, Any]) -> Packing:
    for name in ("group_size", "bits"):
        if name not in said:
            raise InputError(f'"{name}" is missing')
    return packing(said["bits"], said["group_size"], said.get("mode"))


def packed_shapes(shapes: Shapes, packings: Packings | None) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters once layers are quantized."""
    packed: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        each = (packings or {}).get(name.removesuffix(WEIGHT)) if name.endswith(WEIGHT) else None
        if each is None:
            packed[name] = shape
            continue
        path = name.removesuffix(WEIGHT)
        outputs, inputs = shape
        packed[name] = (outputs, inputs * each.bits // 32)
        packed[f"{path}.scales"] = (outputs, inputs // each.group_size)
        if each.mode == "affine":
            packed[f"{path}.biases"] = packed[f"{path}.scales"]
    return packed


def expected_types(name: str, packings: Packings | None) -> tuple[str, ...]:
    """The types that a parameter may have in a file."""
    path, _, own = name.rpartition(".")
    each = (packings or {}).get(path)
    if each is not None and own == "weight":
        return PACKED
    if each is not None and own == "scales" and each.mode != "affine":
        return EIGHT_BITS
    return FLOATS


def stored_bytes(shapes: Shapes, packings: Packings | None, float_bytes: int) -> int:
    """The bytes of parameters once layers are quantized, with floats of that many bytes."""
    sizes = {PACKED: 4, EIGHT_BITS: 1, FLOATS: float_bytes}
    packed = packed_shapes(shapes, packings).items()
    return sum(math.prod(shape) * sizes[expected_types(name, packings)] for name, shape in packed)


def in_words(packings: Packings) -> str:
    """The settings in a line, such as `4 bits in groups of 64 (12 layers 8 bits)`."""
    used = Counter(each for each in packings.values() if each is not None)
    [(usual, _), *others] = used.most_common()
    rest = [f"{counted(count, 'layer')} {_said(each, usual)}" for each, count in others]
    if left := len(packings) - used.total():
        rest.append(f"{counted(left, 'layer')} not quantized")
    return _said(usual) + (f" ({', '.join(rest)})" if rest else "")


def _said(each: Packing, usual: Packing | None = None) -> str:
    bits = f"{each.bits} bits"
    if usual is not None and (each.group_size, each.mode) == (usual.group_size, usual.mode):
        return bits
    mode = "" if each.mode == "affine" else f", {each.mode}"
    return f"{bits} in groups of {each.group_size}{mode}"
