"""`vp.quantize` and `vp.dequantize`: a model in memory."""

from collections.abc import Mapping, Sequence
from typing import Any

from videoprism_mlx.encoders import VideoPrismModel
from videoprism_mlx.errors import InputError, InputTypeError, excerpt, shown, suggestion
from videoprism_mlx.video.source import Source
from videoprism_mlx.weights.quantize.budget import require_budget, require_videos, spend
from videoprism_mlx.weights.quantize.layers import (
    dequantize_layers,
    is_quantized,
    layer_shapes,
    quantize_layers,
)
from videoprism_mlx.weights.quantize.settings import (
    Packing,
    packing,
    require_dividing,
)

# The layer that stays as it is if the group size does not divide its width.
PATCHES = "patch_projection.linear"

# What may be said of a layer: its bits, all settings, or False.
Said = int | bool | Mapping[str, Any]


def quantize(
    model: VideoPrismModel,
    bits: int | None = None,
    group_size: int | None = None,
    mode: str = "affine",
    *,
    layers: Mapping[str, Said] | None = None,
    budget_bits: float | None = None,
    calibration: Sequence[Source] | None = None,
) -> VideoPrismModel:
    """Quantizes the linear layers and the token table of a model. Returns the model.

    `bits` are those of a weight, by default 4 (8 in the mode mxfp8); `group_size` weights share a
    scale. `mode` is one of affine, mxfp4, mxfp8 and nvfp4. `layers` says otherwise for some layers:
    it maps the path of a layer, or of a part of the model, to bits, to a mapping of these three
    settings, or to False, which leaves the layer as it is.

    With `budget_bits`, the layers that cost most are kept at 8 bits, as many as the average of all
    weights allows. `calibration` are videos, as `read_video` takes them: on these, the cost of each
    layer is how far the outputs move when only that layer has `bits`.

    The patch projection stays as it is if the group size does not divide its width. Any other such
    layer is an error.
    """
    check_arguments(bits, group_size, mode, layers, budget_bits, calibration)
    packings = plan(model, bits, group_size, mode, layers)
    spent = None
    if budget_bits is not None and calibration is not None:
        fixed = named_layers(layers or {}, packings).keys()
        packings, spent = spend(model, packings, fixed, budget_bits, calibration)
    quantize_layers(model, packings, evaluates=True)
    model.spent = spent
    model.directory = None  # Its weights differ from those there now.
    return model


def dequantize(model: VideoPrismModel) -> VideoPrismModel:
    """Replaces each quantized weight by what it stands for, in the model's type. Returns the model.

    It computes the same as before, to rounding: what quantization has lost is not brought back.
    """
    require_model(model)
    if not is_quantized(model):
        raise InputError(f"{model.called} is not quantized")
    require_no_adapters(model)
    dequantize_layers(model, model.dtype)
    model.spent = model.directory = None
    return model


def check_arguments(
    bits: int | None = None,
    group_size: int | None = None,
    mode: str = "affine",
    layers: Mapping[str, Said] | None = None,
    budget_bits: float | None = None,
    calibration: Sequence[Source] | None = None,
) -> None:
    """Raises an error for arguments of `quantize` that no model could have."""
    usual = packing(bits, group_size, mode)
    for path, said in (layers or {}).items():
        wanted(path, said, usual)
    if (budget_bits is None) != (calibration is None):
        raise InputError(
            "budget_bits and calibration go together: the bits of a weight on average, and videos "
            "to find the layers that need more"
        )
    if budget_bits is not None and calibration is not None:
        require_budget(budget_bits, usual)
        require_videos(calibration)


def plan(
    model: VideoPrismModel,
    bits: int | None = None,
    group_size: int | None = None,
    mode: str = "affine",
    layers: Mapping[str, Said] | None = None,
) -> dict[str, Packing | None]:
    """How each layer of a model would be quantized. Raises InputError if one cannot be."""
    require_model(model)
    require_no_adapters(model)
    if is_quantized(model):
        raise InputError(
            f"{model.called} is quantized already; start from the model before, or dequantize it"
        )
    usual = packing(bits, group_size, mode)
    widths = {path: shape[1] for path, shape in layer_shapes(model).items()}
    said = named_layers(layers or {}, widths)
    packings: dict[str, Packing | None] = {}
    for path, width in widths.items():
        each = wanted(path, said[path], usual) if path in said else usual
        if each is not None and path.endswith(PATCHES) and path not in (layers or {}):
            each = None if width % each.group_size else each
        if each is not None:
            require_dividing(path, width, each)
        packings[path] = each
    if not any(packings.values()):
        raise InputError(f"{model.called} has no layer to quantize")
    return packings


def named_layers(said: Mapping[str, Said], paths: Mapping[str, Any]) -> dict[str, Said]:
    """What is said of each layer, where the longest of the paths that it lies in decides."""
    found: dict[str, Said] = {}
    for start in sorted(said, key=len):
        inside = [path for path in paths if f"{path}.".startswith(f"{start}.")]
        if not inside:
            raise InputError(
                f"the model has no layer {excerpt(start)}{suggestion(start, paths)}; expected the "
                "path of a linear layer or of a part of the model, such as text_encoder"
            )
        found |= dict.fromkeys(inside, said[start])
    return found


def wanted(path: str, said: Said, usual: Packing) -> Packing | None:
    """The packing that `said` means for a layer."""
    if said is False:
        return None
    if isinstance(said, Mapping):
        if strange := said.keys() - set(Packing._fields):
            raise InputError(
                f"{path} has no setting {shown(min(map(str, strange)))}; expected some of "
                f"{', '.join(Packing._fields)}"
            )
        if "mode" not in said:
            return packing(**usual._asdict() | dict(said))
        return packing(**dict(said))
    if isinstance(said, bool) or not isinstance(said, int):
        raise InputTypeError(
            f"{path} is {shown(said)}; expected bits, a mapping of settings, or False"
        )
    return packing(said, usual.group_size, usual.mode)


def require_model(model: object) -> None:
    """Raises InputTypeError unless this is a model of this package."""
    if not isinstance(model, VideoPrismModel):
        raise InputTypeError(
            f"this is a {type(model).__name__}; expected a model from get_model or one of the load "
            "functions"
        )


def require_no_adapters(model: VideoPrismModel) -> None:
    """Raises InputError if a model has adapters."""
    if model.adapters is not None:
        raise InputError(f"{model.called} has adapters; call fuse_adapters first")
