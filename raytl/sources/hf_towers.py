"""Image towers in Hugging Face layout (ViT, DINOv2, CLIP, SigLIP) as timm's vision transformer: it computes the same.

Built by timm and not by transformers, whose modules are called differently from version to version: the names in the
files stay, so they can be read, but a model saved with the names of today's modules could not be read tomorrow.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import parse_qsl, urlencode

import torch
from torch import Tensor, nn

from raytl.core.errors import UserError, nearest

Kind = Literal["vit", "dinov2", "clip", "siglip"]
KINDS: tuple[str, ...] = get_args(Kind)
TWO_TOWERS = ("clip", "siglip")
"""Kinds whose folders may hold a text tower as well."""
_USUAL_ACTIVATIONS = {"clip": "quick_gelu", "siglip": "gelu_pytorch_tanh"}
_USUAL_EPSILONS = {"vit": 1e-12, "clip": 1e-5}
_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "quick_gelu": "quick_gelu"}
LARGEST_SIDE = 2048
"""Of an input that is taken for a tower's own, in pixels."""
_LARGEST = {"width": 4096, "depth": 80, "heads": 64, "hidden": 32768, "patch": 64, "size": LARGEST_SIDE}
_MOST_REGISTERS = 64


@dataclass(frozen=True)
class Tower:
    """The shape of an image tower; with its kind all that is needed to build it.

    width: of a token and of the features. depth: blocks. heads: of the attention, a divisor of width. hidden: units
    between the two layers of a block. patch, size: of a patch and of the image that it was made for, pixels.
    epsilon: of the layer norms. qkv_bias: whether queries, keys and values have one. registers: tokens beside the
    class token that belong to no patch and have no position.
    """

    kind: Kind
    width: int
    depth: int
    heads: int
    hidden: int
    patch: int
    size: int
    activation: str
    epsilon: float
    qkv_bias: bool = True
    registers: int = 0

    def check(self, where: str) -> Tower:
        """Itself. Raises UserError for what no published tower has: the numbers may come from anywhere."""
        numbers = {name: getattr(self, name) for name in _LARGEST}
        odd = next((name for name, value in numbers.items() if not 1 <= value <= _LARGEST[name]), None)
        if odd is not None:
            raise UserError(f"{where}: {odd} is {numbers[odd]}, not from 1 to {_LARGEST[odd]}; check the model")
        if self.width % self.heads or self.size % self.patch or not 0 < self.epsilon < 0.1:
            raise UserError(
                f"{where}: width {self.width} must divide into {self.heads} heads, size {self.size} into patches of "
                f"{self.patch}, and the epsilon must be between 0 and 0.1; check the model"
            )
        if not 0 <= self.registers <= _MOST_REGISTERS or (self.registers and self.kind != "dinov2"):
            raise UserError(f"{where}: {self.kind} with {self.registers} registers is not known; check the model")
        if self.activation not in _ACTIVATIONS:
            raise UserError(f"{where}: unknown activation '{self.activation}'{nearest(self.activation, _ACTIVATIONS)}")
        return self

    def at(self, wished: int) -> int:
        """The side of the input for a wished one: the next whole number of patches."""
        return self.patch * -(-wished // self.patch)

    def to_text(self) -> str:
        """``vit?width=192&...``, the rest of an architecture URI."""
        values = {name: int(value) if isinstance(value, bool) else value for name, value in asdict(self).items()}
        if not self.registers:
            del values["registers"]  # which older versions of raytl do not know
        return f"{values.pop('kind')}?{urlencode(values)}"

    @classmethod
    def from_text(cls, text: str) -> Tower:
        """Inverse of :meth:`to_text`. Raises UserError."""
        kind, _, query = text.partition("?")
        where = f"hf:{text}"
        if kind not in KINDS:
            raise UserError(f"{where}: unknown kind of image tower '{kind}'{nearest(kind, KINDS)}")
        values = dict(parse_qsl(query))
        names = {spec.name for spec in fields(cls)} - {"kind", "registers"}
        if set(values) - {"registers"} != names:
            raise UserError(f"{where}: an image tower needs {', '.join(sorted(names))} and nothing else")
        try:
            numbers = {name: int(values[name]) for name in (*_LARGEST, "qkv_bias")}
            numbers["registers"] = int(values.get("registers", 0))
            epsilon = float(values["epsilon"])
        except ValueError as error:
            raise UserError(f"{where}: {error}; give whole numbers") from error
        qkv_bias = bool(numbers.pop("qkv_bias"))
        tower = cls(kind=kind, activation=values["activation"], epsilon=epsilon, qkv_bias=qkv_bias, **numbers)  # type: ignore[arg-type]
        return tower.check(where)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], where: str) -> Tower:
        """From the values of a ``config.json``; what it leaves out has the value that transformers gives it.

        Raises UserError for another kind of model, or a variant that is not computed here.
        """
        network = config.get("architecture")
        if "model_type" not in config and isinstance(network, str):
            weights = Path(where).with_name("model.safetensors")
            raise UserError(
                f"{where}: is of timm's network '{network}'; write file:{weights}?arch=timm:{network}, or "
                f"timm:{network} for its published weights"
            )
        kind = str(config.get("model_type", "")).removesuffix("_vision_model")
        registers = kind == "dinov2_with_registers"
        kind = "dinov2" if registers else kind
        if kind in TWO_TOWERS and isinstance(config.get("vision_config"), Mapping):
            config = config["vision_config"]
        if kind not in KINDS:
            raise UserError(
                f"{where}: model type '{kind}' is no image tower known here; known are {', '.join(KINDS)}, and "
                "timm:NAME loads many more (raytl sources list timm:)"
            )
        get = config.get
        odd = [
            name
            for name, usual in (("num_channels", 3), ("use_swiglu_ffn", False), ("vision_use_head", True))
            if get(name, usual) != usual
        ]
        if odd:
            raise UserError(
                f"{where}: {odd[0]} is {get(odd[0])}, a variant that is not supported; choose another model"
            )
        try:
            width, size = int(get("hidden_size", 768)), int(get("image_size", 224))
            patch = int(get("patch_size", {"dinov2": 14, "clip": 32}.get(kind, 16)))
            if 0 < patch <= size:
                size -= size % patch  # no patch begins in what is left over: transformers does not look at it either
            return cls(
                kind=kind,  # type: ignore[arg-type]
                width=width,
                depth=int(get("num_hidden_layers", 12)),
                heads=int(get("num_attention_heads", 12)),
                hidden=int(width * get("mlp_ratio", 4)) if kind == "dinov2" else int(get("intermediate_size", 3072)),
                patch=patch,
                size=size,
                activation=str(get("hidden_act", _USUAL_ACTIVATIONS.get(kind, "gelu"))),
                epsilon=float(get("layer_norm_eps", _USUAL_EPSILONS.get(kind, 1e-6))),
                qkv_bias=bool(get("qkv_bias", True)),
                registers=int(get("num_register_tokens", 4)) if registers else 0,
            ).check(where)
        except (TypeError, ValueError) as error:
            raise UserError(f"{where}: not a readable configuration ({error}); download it again") from error

    def network(self, size: int, outputs: int) -> Any:
        """Untrained, for images of ``size`` pixels, with a linear classifier on the pooled token."""
        from timm.models.vision_transformer import VisionTransformer

        return VisionTransformer(
            img_size=size,
            patch_size=self.patch,
            num_classes=outputs,
            global_pool="map" if self.kind == "siglip" else "token",
            class_token=self.kind != "siglip",
            reg_tokens=self.registers,
            no_embed_class=bool(self.registers),
            pre_norm=self.kind == "clip",
            embed_dim=self.width,
            depth=self.depth,
            num_heads=self.heads,
            mlp_ratio=(self.hidden + 0.5) / self.width,  # timm rounds the product down
            qkv_bias=self.qkv_bias,
            init_values=1.0 if self.kind == "dinov2" else None,
            norm_layer=partial(nn.LayerNorm, eps=self.epsilon),
            act_layer=_ACTIVATIONS[self.activation],
        )

    def own_names(self, state: Mapping[str, Tensor], size: int) -> dict[str, Tensor]:
        """Published tensors under timm's names, as float32, their positions resampled to images of ``size`` pixels.

        What belongs to no image tower (a text tower, a pooler that features do without) is left out.
        """
        found: dict[str, Tensor] = {}
        fused: dict[str, dict[str, Tensor]] = {}
        for name, tensor in state.items():
            plain = re.sub(
                r"^(vit|dinov2|dinov2_with_registers|vision_model|model)\.",
                "",
                re.sub(r"^(model|siglip|clip)\.", "", name),
            )
            if match := _QKV.fullmatch(plain):
                block, part, kind = match.groups()
                fused.setdefault(f"blocks.{block}.attn.qkv.{kind}", {})[part[0]] = tensor.float()
                continue
            for pattern, replacement in _RENAMES:
                if pattern.fullmatch(plain):
                    found[pattern.sub(replacement, plain)] = tensor.float()
                    break
        found |= {name: torch.cat([parts[part] for part in "qkv"]) for name, parts in fused.items() if len(parts) == 3}
        return self._fitted(found, size)

    def _fitted(self, found: dict[str, Tensor], size: int) -> dict[str, Tensor]:
        """With timm's shapes: attention pooling in two parts, positions for another size."""
        from timm.layers import resample_abs_pos_embed

        for kind in ("weight", "bias"):
            whole = found.pop(f"attn_pool.in_proj_{kind}", None)
            if whole is not None and whole.shape[0] == 3 * self.width:
                found[f"attn_pool.q.{kind}"], found[f"attn_pool.kv.{kind}"] = whole[: self.width], whole[self.width :]
        if "cls_token" in found:
            found["cls_token"] = found["cls_token"].reshape(1, 1, -1)
        positions = found.get("pos_embed")
        if positions is not None:
            positions = positions if positions.ndim == 3 else positions[None]
            prefix = 0 if self.kind == "siglip" else 1
            if size != self.size and positions.shape[1] == (self.size // self.patch) ** 2 + prefix:
                side = size // self.patch
                # As transformers does it for DINOv2, whose published size is not the one of its positions.
                smooth = self.kind != "dinov2" or self.registers > 0
                positions = resample_abs_pos_embed(positions, [side, side], num_prefix_tokens=prefix, antialias=smooth)
            if self.registers and "cls_token" in found:  # timm adds positions to patches alone then
                found["cls_token"] = found["cls_token"] + positions[:, :1]
                positions = positions[:, 1:]
            found["pos_embed"] = positions
        return found


_QKV = re.compile(
    r"encoder\.layers?\.(\d+)\.(?:attention\.attention|self_attn)\.(query|key|value|q_proj|k_proj|v_proj)\.(weight|bias)"
)
_BLOCK = r"encoder\.layers?\.(\d+)\."
_RENAMES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"embeddings\.(?:cls_token|class_embedding)", "cls_token"),
        (r"embeddings\.register_tokens", "reg_token"),
        (r"pre_layrnorm\.(weight|bias)", r"norm_pre.\1"),
        (r"embeddings\.position_embeddings", "pos_embed"),
        (r"embeddings\.position_embedding\.weight", "pos_embed"),
        (r"embeddings\.(?:patch_embeddings\.projection|patch_embedding)\.(weight|bias)", r"patch_embed.proj.\1"),
        (_BLOCK + r"(?:layernorm_before|norm1|layer_norm1)\.(weight|bias)", r"blocks.\1.norm1.\2"),
        (_BLOCK + r"(?:layernorm_after|norm2|layer_norm2)\.(weight|bias)", r"blocks.\1.norm2.\2"),
        (_BLOCK + r"(?:attention\.output\.dense|self_attn\.out_proj)\.(weight|bias)", r"blocks.\1.attn.proj.\2"),
        (_BLOCK + r"(?:intermediate\.dense|mlp\.fc1)\.(weight|bias)", r"blocks.\1.mlp.fc1.\2"),
        (_BLOCK + r"(?:output\.dense|mlp\.fc2)\.(weight|bias)", r"blocks.\1.mlp.fc2.\2"),
        (_BLOCK + r"layer_scale([12])\.lambda1", r"blocks.\1.ls\2.gamma"),
        (r"(?:layernorm|post_layernorm)\.(weight|bias)", r"norm.\1"),
        (r"head\.probe", "attn_pool.latent"),
        (r"head\.attention\.in_proj_(weight|bias)", r"attn_pool.in_proj_\1"),
        (r"head\.attention\.out_proj\.(weight|bias)", r"attn_pool.proj.\1"),
        (r"head\.layernorm\.(weight|bias)", r"attn_pool.norm.\1"),
        (r"head\.mlp\.(fc[12])\.(weight|bias)", r"attn_pool.mlp.\1.\2"),
        (r"classifier\.(weight|bias)", r"head.\1"),
    )
)
