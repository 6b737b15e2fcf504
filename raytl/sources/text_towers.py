"""What the text towers of CLIP and SigLIP make of class names, computed by transformers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from raytl.core.errors import UserError
from raytl.sources.heads import ZeroShotHead

TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
_MISSING = "that needs the packages transformers and tokenizers; run: pip install 'raytl[hf]'"
_BATCH = 256


def is_installed() -> bool:
    """Whether text towers can be computed here; nothing is imported."""
    return all(find_spec(package) is not None for package in ("transformers", "tokenizers"))


@dataclass(frozen=True)
class _Embedded:
    """names: (k, e), rows of length 1. projection: (e, d), the image tower's. scale, offset: of the cosines."""

    names: Tensor
    projection: Tensor
    scale: Tensor
    offset: Tensor


def embed_names(folder: Path, kind: str, names: tuple[str, ...], templates: tuple[str, ...]) -> ZeroShotHead:
    """A head on the features of a folder's image tower, of class names in words.

    kind: ``clip`` or ``siglip``. templates: sentences with ``{}`` for a name; the embeddings of a name's sentences are
    averaged. Only safetensors and JSON are read, and nothing in the folder is executed. Raises UserError where the
    extra ``hf`` is not installed or the folder is damaged.
    """
    found = _embedded(folder.resolve(), kind, names, templates)
    width, features = found.projection.shape
    head = ZeroShotHead(features, len(names), width)
    head.load_state_dict(
        {
            "projection.weight": found.projection,
            "names": found.names,
            "scale": found.scale,
            "offset": found.offset,
        }
    )
    return head


@lru_cache(maxsize=8)
def _embedded(folder: Path, kind: str, names: tuple[str, ...], templates: tuple[str, ...]) -> _Embedded:
    """Kept, so that a lane loads the text tower once and not for every fold."""
    if not is_installed():
        raise UserError(f"{folder}: class names were to become a head; {_MISSING}")
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER[0]))
    except Exception as error:  # the library knows no other class
        raise UserError(f"{folder / TOKENIZER[0]}: cannot be read ({error}); download the model again") from error
    model = _model(folder, kind)
    sentences = [template.format(name).lower() for name in names for template in templates]
    texts = _tokens(tokenizer, sentences, folder, kind, model.config.text_config)
    with torch.inference_mode():
        rows = torch.cat([_features(model, *(part[start : start + _BATCH] for part in texts))
                          for start in range(0, len(sentences), _BATCH)])  # fmt: skip
        mean = F.normalize(rows.float(), dim=1).unflatten(0, (len(names), len(templates))).mean(dim=1)
        offset = model.logit_bias if kind == "siglip" else torch.zeros(())
        projection = model.visual_projection.weight if kind == "clip" else torch.eye(rows.shape[1])
        parts = F.normalize(mean, dim=1), projection, model.logit_scale.exp(), offset.reshape(())
    tensors = [part.detach().float().reshape(part.shape if part.numel() > 1 else ()).clone() for part in parts]
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
        raise UserError(f"{folder}: its text tower gives numbers that are not finite; download the model again")
    return _Embedded(*tensors)


def _model(folder: Path, kind: str) -> Any:
    """Both towers in eval mode, in float32."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    made = transformers.CLIPModel if kind == "clip" else transformers.SiglipModel
    try:
        model, told = made.from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        why = str(error).strip().splitlines()[0]
        raise UserError(f"{folder}: its text tower cannot be read ({why}); download the model again") from error
    lacking = sorted(name for name in told["missing_keys"] if not name.endswith("position_ids"))
    if lacking:
        raise UserError(
            f"{folder}: its weights lack {len(lacking)} tensors of two towers ('{lacking[0]}'); give the whole model"
        )
    return model.eval()


def _tokens(tokenizer: Any, sentences: Sequence[str], folder: Path, kind: str, text: Any) -> tuple[Tensor, Tensor]:
    """Numbers of tokens and which of them count, both (n, length).

    SigLIP was taught with sentences that are filled up to the full length, without punctuation, and reads what fills.
    """
    tokenizer.no_padding()
    tokenizer.enable_truncation(text.max_position_embeddings)
    if kind == "siglip":
        sentences = [sentence.rstrip(".").replace("-", " ") for sentence in sentences]
    rows = [encoding.ids for encoding in tokenizer.encode_batch(list(sentences))]
    length = text.max_position_embeddings if kind == "siglip" else max(map(len, rows))
    fill = _fill(tokenizer, folder, text) if kind == "siglip" else None
    ids = [row + [row[-1] if fill is None else fill] * (length - len(row)) for row in rows]
    counts = [[1] * (len(row) if fill is None else length) for row in rows]
    masks = [ones + [0] * (length - len(ones)) for ones in counts]
    numbers = torch.tensor(ids)
    if int(numbers.max()) >= text.vocab_size:
        raise UserError(f"{folder}: its tokenizer knows words that its text tower does not; download the model again")
    return numbers, torch.tensor(masks)


def _fill(tokenizer: Any, folder: Path, text: Any) -> int:
    """The token that sentences are filled up with."""
    try:
        token = json.loads((folder / TOKENIZER[1]).read_text(encoding="utf-8")).get("pad_token")
    except (OSError, ValueError, AttributeError):
        token = None
    token = token.get("content") if isinstance(token, dict) else token
    known = tokenizer.token_to_id(token) if isinstance(token, str) else None
    return int(known if known is not None else text.pad_token_id or 0)


def _features(model: Any, ids: Tensor, mask: Tensor) -> Tensor:
    found = model.get_text_features(input_ids=ids, attention_mask=mask)
    rows: Tensor = found if isinstance(found, Tensor) else found.pooler_output
    return rows
