"""The models: video encoder, text encoder, video-text model and video classifier.

Their parameters are named and nested as in the official Flax model.

Shapes: B batch, T frames, N patches of a frame, P patch size, L text positions, D width.
"""

import copy
import dataclasses
import functools
import inspect
import math
import struct
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from videoprism_mlx.errors import InputError
from videoprism_mlx.inputs import (
    ArrayLike,
    as_array,
    check_paddings,
    check_token_ids,
    check_video,
    shared_padding,
)
from videoprism_mlx.layers import (
    AttenTokenPoolingLayer,
    FeedForward,
    LayerNorm,
    StackedTransformer,
    lecun_normal,
)
from videoprism_mlx.runtime.device import by_clip, gelu, is_plain

# True for all intermediate outputs, or the names of some.
Intermediates = bool | Collection[str]


def wants(return_intermediate: Intermediates, name: str) -> bool:
    """Whether the caller asked for the intermediate output `name`."""
    if isinstance(return_intermediate, str):
        return name == return_intermediate
    if isinstance(return_intermediate, Collection):
        return name in return_intermediate
    return bool(return_intermediate)


def l2_normalize(x: mx.array) -> mx.array:
    """Scales the rows of `x` (..., D) to length one, in float32."""
    rows = x.astype(mx.float32)
    return (rows / mx.sqrt((rows * rows).sum(-1, keepdims=True) + 1e-12)).astype(x.dtype)


def relu(x: mx.array) -> mx.array:
    """`nn.relu` as a plain function, because MLX's compiled one cannot be copied or pickled."""
    activated: mx.array = nn.relu(x)
    return activated


def image_to_patch(images: mx.array, patch_size: int) -> mx.array:
    """(B, H, W, C) to (B, N, P * P * C): patches in rows, each as (row, column, channel)."""
    batch, height, width, channels = images.shape
    rows, columns = height // patch_size, width // patch_size
    grid = images.reshape(batch, rows, patch_size, columns, patch_size, channels)
    return grid.swapaxes(2, 3).reshape(batch, rows * columns, -1)


def bilinear_weights(size: int, new_size: int) -> list[list[float]]:
    """The (new_size, size) matrix that resizes an axis.

    Half-pixel centres and a triangle kernel. The kernel is wider by the ratio if the axis shrinks.
    Weights outside the axis are dropped, and each row is scaled to a sum of one.
    """
    ratio = size / new_size
    reach = max(ratio, 1.0)
    matrix = []
    for i in range(new_size):
        centre = (i + 0.5) * ratio - 0.5
        row = [max(0.0, 1.0 - abs(centre - j) / reach) for j in range(size)]
        matrix.append([weight / sum(row) for weight in row])
    return matrix


def resize_positions(
    positions: mx.array, shape: tuple[int, ...], new_shape: tuple[int, ...]
) -> mx.array:
    """Resizes a table of positions from (1, prod(shape), D) to (1, prod(new_shape), D)."""
    table = positions.reshape(*shape, -1)
    for axis, (size, new_size) in enumerate(zip(shape, new_shape, strict=True)):
        if size != new_size:
            weights = mx.array(bilinear_weights(size, new_size))
            table = mx.moveaxis(mx.tensordot(weights, table, axes=[[1], [axis]]), 0, axis)
    return table.reshape(1, math.prod(new_shape), -1).astype(positions.dtype)


@dataclasses.dataclass(frozen=True)
class Settings:
    """The configuration that a model was built from.

    It is a class because `nn.Module` treats an attribute that is a dictionary as a child module.
    """

    config: Mapping[str, Any]


class VideoPrismModel(nn.Module):
    """The base of all models: their configuration, and the features that they compute."""

    towers: tuple[str, ...] = ("video",)
    feature_names: tuple[str, ...] = ()  # The names that `derive` returns.
    default_feature: str = "pooled"  # The feature that sums up a video in one vector.
    directory: Path | None = None  # Where the weights were read from.
    given_name: str | None = None  # The name, id or directory that it was loaded by.
    adapters: Any = None  # The settings of the model's adapters; None without adapters.
    spent: Any = None  # How a budget of bits was spent when it was quantized; else None.
    _settings: Settings | None = None

    def describe(self, config: Mapping[str, Any]) -> None:
        """Keeps the configuration that the model was built from, for saving."""
        self._settings = Settings(copy.deepcopy(dict(config)))

    @property
    def called(self) -> str:
        """What messages call the model: what it was loaded by, or its class."""
        return self.given_name or f"a {type(self).__name__}"

    @property
    def has_config(self) -> bool:
        """Whether the model has a configuration. Every model that this package builds has one."""
        return self._settings is not None

    @property
    def config(self) -> dict[str, Any]:
        """A copy of the configuration that the model was built from."""
        if self._settings is None:
            raise InputError(
                f"{self.called} has no configuration; expected a model from "
                "get_model or one of the load functions"
            )
        return copy.deepcopy(dict(self._settings.config))

    @property
    def video_encoder(self) -> "FactorizedEncoder":
        """The video encoder inside the model, or the model itself if it is one."""
        raise InputError(
            f"{self.called} has no video encoder; load a model that takes video, such "
            "as videoprism_public_v1_base"
        )

    @property
    def dtype(self) -> mx.Dtype:
        """The type of the parameters and activations."""
        return self.video_encoder.spatial_ln.weight.dtype

    @property
    def takes_text(self) -> bool:
        """Whether the model compares videos with texts."""
        return self.towers == ("video", "text")

    @property
    def num_classes(self) -> int | None:
        """How many classes a classifier has; None for every other model."""
        return None

    def derive(self, tokens: mx.array, frames: int) -> dict[str, mx.array]:
        """All features that the model computes from the encoder's `tokens` (B, T * N, D), by name.

        MLX computes each of them only when it is used.
        """
        raise InputError(
            f"{self.called} takes no video; load a model that does, such as "
            "videoprism_public_v1_base"
        )


class TrainablePositionalEmbedding(nn.Module):
    """A learned table of positions."""

    def __init__(self, length: int, dims: int):
        super().__init__()
        self.weight = lecun_normal((length, dims), fan_in=length)

    def __call__(self) -> mx.array:
        """(1, length, D)."""
        return self.weight[None]


@functools.cache
def inverse_timescales(dims: int) -> list[float]:
    """dims // 2 frequencies from 1 down to 1/10,000, with the official model's float32 steps.

    An error in a frequency becomes an error in the angle, which grows with the position.
    """

    def float32(x: float) -> float:
        (rounded,) = struct.unpack("f", struct.pack("f", x))
        return float(rounded)

    count = dims // 2
    increment = float32(float32(math.log(10_000)) / max(count - 1, 1))
    return [math.exp(float32(-i * increment)) for i in range(count)]


class PositionalEmbedding(nn.Module):
    """Sinusoidal positions: [sin | cos], and a zero at the end if the width is odd."""

    def __init__(self, dims: int):
        super().__init__()
        self.dims = dims

    def __call__(self, length: int) -> mx.array:
        """(1, L, D) in float32."""
        angles = mx.arange(length)[:, None] * mx.array(inverse_timescales(self.dims))
        table = mx.concatenate([mx.sin(angles), mx.cos(angles)], axis=-1)
        return mx.pad(table, [(0, 0), (0, self.dims % 2)])[None]


class VisionTransformer(nn.Module):
    """Transformer layers over visual tokens."""

    def __init__(
        self,
        num_layers: int,
        model_dim: int,
        mlp_dim: int,
        num_heads: int,
        atten_logit_cap: float,
        norm_policy: str = "pre",
    ):
        super().__init__()
        self.transformers_stack = StackedTransformer(
            num_layers, model_dim, mlp_dim, num_heads, gelu, norm_policy, atten_logit_cap
        )

    def __call__(self, inputs: mx.array, paddings: mx.array | None = None) -> mx.array:
        """(B, S, D) to (B, S, D), with `paddings` (B, S)."""
        return self.transformers_stack(inputs, paddings)


class FactorizedEncoder(VideoPrismModel):
    """Video to features: a transformer over the patches of each frame, then one over time."""

    feature_names = ("tokens", "frames", "pooled")

    def __init__(
        self,
        patch_size: int = 18,
        pos_emb_shape: tuple[int, int, int] = (16, 16, 16),
        model_dim: int = 768,
        num_spatial_layers: int = 12,
        num_temporal_layers: int = 4,
        num_heads: int = 12,
        mlp_dim: int = 3072,
        atten_logit_cap: float = 0.0,
        norm_policy: str = "pre",
    ):
        super().__init__()
        self.patch_size = patch_size
        self.pos_emb_shape = tuple(pos_emb_shape)
        self.num_heads = num_heads
        frames, rows, columns = self.pos_emb_shape
        layer_config = (model_dim, mlp_dim, num_heads, atten_logit_cap, norm_policy)

        # Pixels are all positive, so their sums are the largest in the model, and round the most.
        self.patch_projection = FeedForward(patch_size * patch_size * 3, model_dim, parts=4)
        self.spatial_pos_emb = TrainablePositionalEmbedding(rows * columns, model_dim)
        self.spatial_encoder = VisionTransformer(num_spatial_layers, *layer_config)
        self.spatial_ln = LayerNorm(model_dim)
        self.temporal_pos_emb = TrainablePositionalEmbedding(frames, model_dim)
        self.temporal_encoder = VisionTransformer(num_temporal_layers, *layer_config)
        self.temporal_ln = LayerNorm(model_dim)

    def __call__(
        self,
        inputs: ArrayLike,
        *,
        return_intermediate: Intermediates = False,
        frame_paddings: ArrayLike | None = None,
    ) -> tuple[mx.array, dict[str, mx.array]]:
        """A video (B, T, H, W, 3) in [0, 1] to features (B, T * N, D), frame by frame.

        `frame_paddings` (B, T) is 1 where a frame is padding. The dictionary may hold
        `spatial_features` (B, T * N, D), the features before the temporal transformer.
        """
        video = check_video(inputs, self.patch_size)
        frames, height, width = video.shape[1:4]
        if frame_paddings is not None:
            frame_paddings = check_paddings(frame_paddings, video.shape[:2], "frame_paddings")

        def encode(
            video: mx.array, frame_paddings: mx.array | None
        ) -> tuple[mx.array, dict[str, mx.array]]:
            patches = image_to_patch(video.flatten(0, 1), self.patch_size)
            if frame_paddings is not None:
                frame_paddings = mx.broadcast_to(frame_paddings.reshape(-1, 1), patches.shape[:2])
            return self.encode_with_patches(
                patches,
                (frames, height, width),
                return_intermediate=return_intermediate,
                patches_paddings=frame_paddings,
            )

        return by_clip(encode, [video, frame_paddings])

    @property
    def video_encoder(self) -> "FactorizedEncoder":
        """The model itself."""
        return self

    def derive(self, tokens: mx.array, frames: int) -> dict[str, mx.array]:
        """`frames` (B, T, D) and `pooled` (B, D) are averages of the tokens, in float32."""
        by_frame = mx.unflatten(tokens, 1, (frames, -1)).astype(mx.float32)  # (B, T, N, D)
        return {"tokens": tokens, "frames": by_frame.mean(2), "pooled": by_frame.mean((1, 2))}

    def encode_with_patches(
        self,
        patches: mx.array,
        image_shape: tuple[int, int, int],
        *,
        return_intermediate: Intermediates = False,
        patches_paddings: mx.array | None = None,
    ) -> tuple[mx.array, dict[str, mx.array]]:
        """As `__call__`, from patches (B * T, N, P * P * 3). `image_shape` is (T, H, W).

        `patches_paddings` (B * T, N) is 1 where a patch is padding.
        """
        frames, height, width = image_shape
        grid = (height // self.patch_size, width // self.patch_size)
        spatial_features = self.encode_space(patches, grid, patches_paddings)
        spatial_features = mx.unflatten(spatial_features, 0, (-1, frames))  # (B, T, N, D)
        if patches_paddings is not None:
            patches_paddings = mx.unflatten(patches_paddings, 0, (-1, frames))
        features = self.encode_time(spatial_features, patches_paddings)

        outputs = {}
        if wants(return_intermediate, "spatial_features"):
            outputs["spatial_features"] = spatial_features.flatten(1, 2)
        return features, outputs

    def encode_space(
        self, patches: mx.array, grid: tuple[int, int], paddings: mx.array | None = None
    ) -> mx.array:
        """Patches of frames (B, N, P * P * 3) to features (B, N, D), each frame independently.

        `grid` is the number of rows and columns of patches. `paddings` are (B, N).
        """
        patches = patches.astype(self.dtype)
        features = self.patch_projection(patches)
        features = features + resize_positions(self.spatial_pos_emb(), self.pos_emb_shape[1:], grid)
        return self.spatial_ln(self.spatial_encoder(features, paddings))

    def encode_time(self, features: mx.array, paddings: mx.array | None = None) -> mx.array:
        """Features of frames (B, T, N, D) to features of the whole video (B, T * N, D).

        `paddings` are (B, T, N).
        """
        frames, patches = features.shape[1:3]
        features = features.swapaxes(1, 2).flatten(0, 1)  # (B * N, T, D)
        if paddings is not None:
            paddings = paddings.swapaxes(1, 2).flatten(0, 1)  # (B * N, T)
        features = features + resize_positions(
            self.temporal_pos_emb(), self.pos_emb_shape[:1], (frames,)
        )
        features = self.temporal_ln(self.temporal_encoder(features, paddings))
        features = mx.unflatten(features, 0, (-1, patches))  # (B, N, T, D)
        return features.swapaxes(1, 2).flatten(1, 2)


class TextEncoder(VideoPrismModel):
    """Token ids to features: a transformer over the tokens, followed by class tokens."""

    towers = ("text",)

    def __init__(
        self,
        vocabulary_size: int = 128,
        num_class_tokens: int = 0,
        enable_causal_atten: bool = True,
        model_dim: int = 768,
        num_layers: int = 12,
        mlp_dim: int = 3072,
        num_heads: int = 12,
        atten_logit_cap: float = 0.0,
        norm_policy: str = "pre",
        enable_per_dim_scale: bool = False,
    ):
        super().__init__()
        self.vocabulary_size = vocabulary_size
        self.pos_emb = PositionalEmbedding(model_dim)
        self.token_emb = nn.Embedding(vocabulary_size, model_dim)
        if num_class_tokens > 0:
            self.cls_emb = mx.random.normal((1, num_class_tokens, model_dim)) * model_dim**-0.5
        self.unimodal_transformer = StackedTransformer(
            num_layers,
            model_dim,
            mlp_dim,
            num_heads,
            relu,
            norm_policy,
            atten_logit_cap,
            per_dim_scale=enable_per_dim_scale,
            causal=enable_causal_atten,
        )
        self.unimodal_ln = LayerNorm(model_dim)

    def __call__(
        self, inputs: ArrayLike, paddings: ArrayLike, cut_padding: bool = False
    ) -> mx.array:
        """Ids (B, L) and paddings (B, L), 1 where padded, to features (B, L + class tokens, D).

        With `cut_padding`, last positions that are padding in every row may be left out. No other
        position attends to them, so the rest of the result stays the same.
        """
        ids = check_token_ids(inputs, self.vocabulary_size)
        if paddings is None:
            raise InputError(
                "text_token_ids came without text_paddings; expected paddings of shape "
                f"{ids.shape}, 1 where padded, as tokenize_texts returns them"
            )
        paddings = check_paddings(paddings, ids.shape, "text_paddings")
        if cut_padding and not is_plain():
            length = ids.shape[1] - shared_padding(paddings)
            ids, paddings = ids[:, :length], paddings[:, :length]

        scale = self.unimodal_ln.weight.size**0.5
        # Of some modes, a quantized table gives bfloat16.
        embeddings = self.token_emb(ids).astype(self.dtype)
        features = embeddings * scale + self.pos_emb(ids.shape[1]).astype(self.dtype)
        if "cls_emb" in self:
            class_tokens = self.cls_emb.shape[1]
            class_embeddings = mx.repeat(self.cls_emb * scale, len(ids), axis=0)
            features = mx.concatenate([features, class_embeddings], axis=1)
            paddings = mx.pad(paddings, [(0, 0), (0, class_tokens)])
        return self.unimodal_ln(self.unimodal_transformer(features, paddings))

    @property
    def dtype(self) -> mx.Dtype:
        """The type of the parameters and activations."""
        return self.unimodal_ln.weight.dtype


class FactorizedVideoCLIP(VideoPrismModel):
    """Videos and texts to embeddings that can be compared."""

    towers = ("video", "text")
    feature_names = ("tokens", "frames", "pooled", "embedding")
    default_feature = "embedding"

    def __init__(
        self,
        patch_size: int = 18,
        pos_emb_shape: tuple[int, int, int] = (16, 16, 16),
        num_spatial_layers: int = 12,
        num_temporal_layers: int = 4,
        mlp_dim: int = 3072,
        num_auxiliary_layers: int = 0,
        vocabulary_size: int = 128,
        enable_causal_atten: bool = True,
        num_unimodal_layers: int = 12,
        norm_policy: str = "pre",
        model_dim: int = 768,
        num_heads: int = 12,
        atten_logit_cap: float = 0.0,
    ):
        super().__init__()
        # norm_policy is for the text encoder only.
        self.vision_encoder = FactorizedEncoder(
            patch_size,
            pos_emb_shape,
            model_dim,
            num_spatial_layers,
            num_temporal_layers,
            num_heads,
            mlp_dim,
            atten_logit_cap,
        )
        if num_auxiliary_layers > 0:
            self.auxiliary_encoder = VisionTransformer(
                num_auxiliary_layers, model_dim, mlp_dim, num_heads, atten_logit_cap
            )
        self.contrastive_vision_pooler = AttenTokenPoolingLayer(model_dim, 4 * model_dim, num_heads)
        self.text_encoder = TextEncoder(
            vocabulary_size,
            num_class_tokens=1,
            enable_causal_atten=enable_causal_atten,
            model_dim=model_dim,
            num_layers=num_unimodal_layers,
            mlp_dim=4 * model_dim,
            num_heads=num_heads,
            atten_logit_cap=atten_logit_cap,
            norm_policy=norm_policy,
        )

    def __call__(
        self,
        inputs: ArrayLike | None = None,
        text_token_ids: ArrayLike | None = None,
        text_paddings: ArrayLike | None = None,
        *,
        normalize: bool = True,
        return_intermediate: Intermediates = False,
        frame_paddings: ArrayLike | None = None,
    ) -> tuple[mx.array | None, mx.array | None, dict[str, mx.array]]:
        """Videos (B, T, H, W, 3) and texts (B', L) to embeddings (B, D) and (B', D).

        An embedding is None if its input is not given. The dictionary may hold `spatial_features`,
        `spatiotemporal_features` (B, T * N, D) and `frame_embeddings` (B, T, D).
        """
        video_embeddings: mx.array | None = None
        text_embeddings: mx.array | None = None
        outputs: dict[str, mx.array] = {}
        finish = l2_normalize if normalize else lambda embeddings: embeddings

        if inputs is not None:
            inputs = as_array(inputs, "inputs")
            features, outputs = self.vision_encoder(
                inputs, return_intermediate=return_intermediate, frame_paddings=frame_paddings
            )
            if wants(return_intermediate, "spatiotemporal_features"):
                outputs["spatiotemporal_features"] = features

            def embed(features: mx.array) -> tuple[mx.array, dict[str, mx.array]]:
                features = self.contextualize(features)
                video_embeddings = finish(self.contrastive_vision_pooler(features))
                if not wants(return_intermediate, "frame_embeddings"):
                    return video_embeddings, {}
                frame_embeddings = finish(self.pool_frames(features, inputs.shape[1]))
                return video_embeddings, {"frame_embeddings": frame_embeddings}

            video_embeddings, more = by_clip(embed, [features])
            outputs |= more

        if text_token_ids is not None:
            text_features = self.text_encoder(text_token_ids, text_paddings, cut_padding=True)
            text_embeddings = finish(text_features[:, -1])

        return video_embeddings, text_embeddings, outputs

    def describe(self, config: Mapping[str, Any]) -> None:
        """Keeps the configuration, and gives the video encoder its own part of it."""
        super().describe(config)
        own = inspect.signature(FactorizedEncoder).parameters.keys() - {"norm_policy"}
        settings = {key: value for key, value in config.items() if key in own}
        self.vision_encoder.describe({"model": "FactorizedEncoder", **settings})

    @property
    def video_encoder(self) -> FactorizedEncoder:
        """The video encoder inside the model."""
        return self.vision_encoder

    def derive(self, tokens: mx.array, frames: int) -> dict[str, mx.array]:
        """`embedding` (B, D) and `frames` (B, T, D), one for each frame, have length one."""
        in_context = self.contextualize(tokens)
        pooled = self.contrastive_vision_pooler(in_context)
        return {
            "tokens": tokens,
            "frames": l2_normalize(self.pool_frames(in_context, frames)),
            "pooled": pooled,
            "embedding": l2_normalize(pooled),
        }

    def contextualize(self, features: mx.array) -> mx.array:
        """The encoder's features (B, T * N, D) after the auxiliary layers, if there are any."""
        return self.auxiliary_encoder(features) if "auxiliary_encoder" in self else features

    def pool_frames(self, features: mx.array, frames: int) -> mx.array:
        """Pools contextualized features (B, T * N, D) frame by frame: (B, T, D)."""
        frame_tokens = mx.unflatten(features, 1, (frames, -1)).flatten(0, 1)
        return mx.unflatten(self.contrastive_vision_pooler(frame_tokens), 0, (-1, frames))


class FactorizedVideoClassifier(VideoPrismModel):
    """Videos to class logits.

    `pooler_dim` is the width of the pooler's attention. 0 is the official one, that of the encoder.
    Classifiers that were trained with Transformers have another.
    """

    feature_names = ("tokens", "frames", "pooled")

    def __init__(self, encoder_params: dict[str, Any], num_classes: int, pooler_dim: int = 0):
        super().__init__()
        self.encoder = FactorizedEncoder(**encoder_params)
        model_dim = self.encoder.spatial_ln.weight.size
        self.atten_pooler = AttenTokenPoolingLayer(
            model_dim, pooler_dim or model_dim, self.encoder.num_heads
        )
        self.projection = FeedForward(model_dim, num_classes)

    def __call__(
        self,
        inputs: ArrayLike,
        *,
        return_intermediate: Intermediates = False,
        frame_paddings: ArrayLike | None = None,
    ) -> tuple[mx.array, dict[str, mx.array]]:
        """Videos (B, T, H, W, 3) to logits (B, classes).

        The dictionary may hold `spatial_features`, `spatiotemporal_features` (B, T * N, D) and
        `global_embeddings` (B, D).
        """
        features, outputs = self.encoder(
            inputs, return_intermediate=return_intermediate, frame_paddings=frame_paddings
        )
        if wants(return_intermediate, "spatiotemporal_features"):
            outputs["spatiotemporal_features"] = features
        embeddings = self.atten_pooler(features)
        if wants(return_intermediate, "global_embeddings"):
            outputs["global_embeddings"] = embeddings
        return self.projection(embeddings), outputs

    @property
    def num_classes(self) -> int:
        """How many classes the model has."""
        return self.projection.linear.bias.size

    def describe(self, config: Mapping[str, Any]) -> None:
        """Keeps the configuration, and gives the encoder its own part of it."""
        super().describe(config)
        self.encoder.describe({"model": "FactorizedEncoder", **config["encoder_params"]})

    @property
    def video_encoder(self) -> FactorizedEncoder:
        """The video encoder below the head."""
        return self.encoder

    def derive(self, tokens: mx.array, frames: int) -> dict[str, mx.array]:
        """`pooled` (B, D) is the output of the head's pooler."""
        return {**self.encoder.derive(tokens, frames), "pooled": self.atten_pooler(tokens)}
