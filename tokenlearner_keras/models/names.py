"""Model names: parsing, building and listing."""

import difflib
import fnmatch
import re
from typing import Any

from tokenlearner_keras.models.config import VisionTransformerConfig
from tokenlearner_keras.models.model import VisionTransformer
from tokenlearner_keras.models.vision_transformer import build_model
from tokenlearner_keras.models.x2plus1d_config import X2Plus1DConfig

ModelConfig = VisionTransformerConfig | X2Plus1DConfig

#: Width, heads, MLP width and depth of each size.
SIZES: dict[str, dict[str, int]] = {
    "ti": {"width": 192, "num_heads": 3, "mlp_dim": 768, "depth": 12},
    "s": {"width": 384, "num_heads": 6, "mlp_dim": 1536, "depth": 12},
    "b": {"width": 768, "num_heads": 12, "mlp_dim": 3072, "depth": 12},
    "l": {"width": 1024, "num_heads": 16, "mlp_dim": 4096, "depth": 24},
    "h": {"width": 1280, "num_heads": 16, "mlp_dim": 5120, "depth": 32},
}
#: The convolutional video models: names in full, and the fields they stand for.
CONVOLUTIONAL: dict[str, dict[str, Any]] = {
    "x2plus1d_m": {},
    "x2plus1d_m_tokenlearner": {"module": "conv2d_token_learner"},
}
DEFAULT_IMAGE_SIZE = 224
DEFAULT_NUM_FRAMES = 32
#: What tells the other tokenizers from v1.1, after `_tlSatB`.
_KINDS = {"_v10": "v1.0", "_mha": "mha", "_pm": "patch_merger", "_merge": "merging"}

_PATTERN = re.compile(
    r"(?P<family>vit|vivit)_(?P<size>ti|s|b|l|h)(?P<patch>\d+)(x(?P<tubelet>\d+))?"
    r"(_d(?P<depth>\d+))?"
    r"(_tl(?P<tokens>\d+)at(?P<at>\d+)(?P<clip>_st)?(?P<kind>_v10|_mha|_pm|_merge)?"
    r"(?P<fuser>_fuser(?P<linear>_linear)?)?)?"
    r"(?P<pooling>(_pool\d+at\d+)*)"
)

# Every row of the paper's image and video tables, and plain ViTs. Rows whose
# accuracy the paper quotes are v1.0, its fuser rows have the linear mask.
_IMAGE_NAMES = (
    *(f"vit_{size}{patch}" for size in ("ti", "s", "b", "l") for patch in (32, 16)),
    "vit_h14",
    "vit_s32_tl8at6",
    "vit_s32_d22_tl8at11",
    "vit_b32_d20_tl8at10",
    *(f"vit_b16_tl{tokens}at{at}" for tokens in (8, 16) for at in (0, 3, 6, 9)),
    "vit_b16_d21_tl8at10",
    "vit_b16_d21_tl16at10",
    "vit_b16_tl8at6_fuser_linear",
    "vit_b16_tl16at6_fuser_linear",
    "vit_l16_tl16at3",
    "vit_l16_tl16at12",
    "vit_l16_d35_tl16at12",
    "vit_l16_tl8at18",
    "vit_l16_d30_tl8at18",
    "vit_l16_tl16at12_fuser_linear",
    "vit_l16_tl8at18_fuser_linear",
    "vit_l14_d35_tl16at18",
    "vit_l10_d35_tl16at18",
    "vit_l10_d35_tl16at18_fuser_linear",
    "vit_l8_d35_tl16at18",
)
_VIDEO_NAMES = (
    "vivit_b16x2",
    "vivit_l16x2",
    "vivit_h14x2",
    "vivit_h16x2",
    "vivit_l16x2_tl16at12",
    "vivit_l16x2_d30_tl8at18",
    "vivit_l14x2_d35_tl16at18",
    "vivit_l10x2_d35_tl16at18",
    "vivit_l10x2_d35_tl16at18_fuser_linear",
)
_POOLING_NAMES = ("vit_l16_pool8at9_pool2at18", "vit_l16_pool8at12_pool2at18", "vit_l16_pool4at12")
# Other tokenizers, and tokens of whole clips, which are in no table of the paper.
_OTHER_NAMES = (
    "vit_b16_tl8at6_mha",
    "vit_b16_tl8at6_pm",
    "vit_b16_tl8at6_merge",
    "vivit_b16x2_tl16at6_st",
    "vivit_b16x2_tl16at6_st_v10",
)


def _with_v10(names: tuple[str, ...]) -> tuple[str, ...]:
    """Adds the v1.0 form, which the paper's accuracies belong to, of each name."""
    v10 = (re.sub(r"(_tl\d+at\d+)", r"\1_v10", name) for name in names if "_tl" in name)
    return (*names, *v10)


_TRANSFORMERS = (*_with_v10((*_IMAGE_NAMES, *_VIDEO_NAMES)), *_POOLING_NAMES, *_OTHER_NAMES)
_NAMES = tuple(sorted((*_TRANSFORMERS, *CONVOLUTIONAL)))


def list_models(pattern: str = "*") -> list[str]:
    """Returns the well-known model names that match a shell pattern, sorted.

    `create_model` also builds every other name that its grammar allows.
    """
    return fnmatch.filter(_NAMES, pattern)


def parse_model_name(name: str) -> dict[str, Any]:
    """Returns the configuration's fields of a model name; ValueError gives the nearest names."""
    if isinstance(name, str) and name in CONVOLUTIONAL:
        return dict(CONVOLUTIONAL[name])
    match = _PATTERN.fullmatch(name) if isinstance(name, str) else None
    if match is None or (match["family"] == "vit" and match["tubelet"]):
        written = re.sub(r"[^a-z0-9_]", "", str(name).lower())
        near = difflib.get_close_matches(written, _NAMES, n=3, cutoff=0.4)
        hint = f" Near: {', '.join(near)}." if near else ""
        raise ValueError(
            f"Unknown model name {name!r}.{hint} A name is vit_ or vivit_, a size (ti, s, b, l, "
            "h), the patch, for video x and the tubelet, then in this order _dDEPTH, "
            "_tlTOKENSatBLOCK with _st (video only), one of _v10, _mha, _pm and _merge, _fuser and "
            "_linear after it, and _poolGRIDatBLOCK, such as vit_b16_tl8at6, or "
            "x2plus1d_m, x2plus1d_m_tokenlearner; tk.list_models() lists well-known ones."
        )
    if match["clip"] and match["family"] == "vit":
        raise ValueError(
            f"Model name {name!r}: _st learns tokens from all frames of a video, and vit_ models "
            f"take images. Take {name.replace('vit_', 'vivit_', 1)!r}, or leave _st out."
        )
    fields: dict[str, Any] = dict(SIZES[match["size"]])
    fields["patch_size"] = (int(match["patch"]),) * 2
    if match["depth"]:
        fields["depth"] = int(match["depth"])
    if match["tokens"]:
        fields["token_learner"] = _KINDS.get(match["kind"], "v1.1")
        fields["per_frame"] = not match["clip"]
        fields["num_tokens"] = int(match["tokens"])
        fields["token_learner_at"] = int(match["at"])
    if match["fuser"]:
        fields["token_fuser"] = True
    if match["linear"]:
        fields["fuser_bottleneck_dim"] = None
    pooled = re.findall(r"_pool(\d+)at(\d+)", match["pooling"])
    if pooled:
        fields["pooling"] = tuple((int(at), (int(grid),) * 2) for grid, at in pooled)
    if match["family"] == "vivit":
        fields["num_frames"] = DEFAULT_NUM_FRAMES
        fields["tubelet_size"] = int(match["tubelet"] or 1)
    return fields


def config_class(name: str) -> type[VisionTransformerConfig] | type[X2Plus1DConfig]:
    """Returns the class of the configuration that a model name stands for."""
    return X2Plus1DConfig if name in CONVOLUTIONAL else VisionTransformerConfig


def model_config(
    name: str,
    num_classes: int = 1000,
    image_size: int | tuple[int, int] | None = None,
    num_frames: int | None = None,
    **overrides: Any,
) -> ModelConfig:
    """Returns the configuration of the model that `create_model` builds of these arguments."""
    fields = parse_model_name(name)
    fields["num_classes"] = num_classes
    fields["image_size"] = DEFAULT_IMAGE_SIZE if image_size is None else image_size
    if num_frames is not None:
        if "num_frames" not in fields and name not in CONVOLUTIONAL:
            raise ValueError(
                f"{name!r} is an image model and takes no num_frames. Received: "
                f"{num_frames}. Video models are named vivit_… or x2plus1d_…."
            )
        fields["num_frames"] = num_frames
    fields.update(overrides)
    return config_class(name).from_dict(fields)


def create_model(
    name: str,
    num_classes: int = 1000,
    image_size: int | tuple[int, int] | None = None,
    num_frames: int | None = None,
    **overrides: Any,
) -> VisionTransformer:
    """Builds a model by name, with fresh weights.

    Args:
        name: `vit_` or `vivit_`, size `ti|s|b|l|h`, patch, for video `x` and the tubelet, then
            optionally `_d` and the depth, `_tl` tokens `at` block, and pooling baselines
            `_pool8at9_pool2at18` (to an 8x8 grid before block 9, to 2x2 before block 18). After
            `_tl` may come, in this order, `_st` for tokens of all frames of a video together;
            `_v10` or `_mha` in place of v1.1, or the rivals `_pm` (PatchMerger) and `_merge`
            (TokenMerging before each block from that one on, until so many tokens are left);
            `_fuser`, with `_linear` for the paper's linear mask. `vit_b16_d21_tl16at10` has 21
            blocks and 16 tokens from block 10 on. Or one of the convolutional video models
            `x2plus1d_m` and `x2plus1d_m_tokenlearner`.
        num_classes: Number of logits.
        image_size: Pixels, an integer or `(height, width)`. None: 224. Grids are floored.
        num_frames: Frames of a video model. None: 32, in a convolutional one 64.
        **overrides: Any field of `VisionTransformerConfig` or, for a convolutional video model, of
            `X2Plus1DConfig`.

    Returns:
        A functional Keras model, see `build_model`.

    Raises:
        ValueError: If the name or a field is wrong; the message gives near names.

    Example:
        >>> model = tk.create_model("vit_s16_tl8at6", num_classes=10)
    """
    config = model_config(name, num_classes, image_size, num_frames, **overrides)
    return build_model(config, name=name)
