"""A CLIP of two small towers, taught in seconds which coloured shapes are called what, in Hugging Face layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch.nn import functional as F

from raytl.tasks import LabelledImages
from raytl.tasks.items import PixelsItem

SIDE = 32
COLOURS = {"red": (210, 40, 40), "green": (40, 190, 60), "blue": (50, 60, 220)}
NAMES = tuple(f"{colour} {shape}" for colour in COLOURS for shape in ("circle", "bar"))
CAPTIONS = ("a photo of a {}.", "a picture of {}.", "a photo of the {}.", "a bright photo of a {}.")
WORDS = "a an the photo picture of close up cropped blurry bright . - circle bar".split() + list(COLOURS)  # noqa: SIM905
MEAN, STD = [0.5, 0.45, 0.4], [0.25, 0.26, 0.27]


def draw(name: str, rng: np.random.Generator, ground: int = 90) -> np.ndarray:
    """uint8 (32, 32, 3): the shape at a random place on a noisy ground. ground: its brightness."""
    colour, shape = name.split()
    image = Image.new("RGB", (SIDE, SIDE), (ground,) * 3)
    x, y = rng.integers(1, 14, 2).tolist()
    pen = ImageDraw.Draw(image)
    if shape == "circle":
        pen.ellipse([x, y, x + 16, y + 16], fill=COLOURS[colour])
    else:
        pen.rectangle([0, y, SIDE, y + 7], fill=COLOURS[colour])
    pixels = np.asarray(image) + rng.normal(0, 12, (SIDE, SIDE, 3))
    return np.asarray(pixels.clip(0, 255), dtype=np.uint8)


def pictures(per_class: int, seed: int, names: tuple[str, ...] = NAMES, **look: int) -> LabelledImages:
    """``per_class`` of each kind of :data:`NAMES`, in their order. names: what their labels are called."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(NAMES)), per_class)
    items = [PixelsItem(f"{seed}-{i}", draw(NAMES[kind], rng, **look)) for i, kind in enumerate(labels)]
    return LabelledImages(f"pictures {seed}", items, None, names, labels.astype(np.int64))


def normalised(images: np.ndarray) -> torch.Tensor:
    """uint8 (n, h, w, 3) as the image tower takes it."""
    x = torch.from_numpy(images).float().permute(0, 3, 1, 2) / 255
    return (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["<unk>", "<pad>", *WORDS, "<start>", "<end>"]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [("<start>", len(words) - 2), ("<end>", len(words) - 1)]
    made.post_processor = processors.TemplateProcessing(single="<start> $A <end>", special_tokens=ends)
    return made


def save(model: Any, folder: Path) -> Path:
    """The model, its tokenizer, and how images are prepared."""
    model.save_pretrained(folder)
    tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<pad>"}))
    preprocessing = {"image_mean": MEAN, "image_std": STD, "resample": 3, "size": {"height": SIDE, "width": SIDE}}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing))
    return folder


def configs() -> tuple[dict[str, Any], dict[str, Any]]:
    """Of the text tower and of the image tower."""
    count = tokenizer().get_vocab_size()
    both = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {"pad_token_id": 1, "bos_token_id": count - 2, "eos_token_id": count - 1}
    text = both | {"vocab_size": count, "max_position_embeddings": 16} | ends
    return text, both | {"image_size": SIDE, "patch_size": 8}


def tokens(sentences: list[str]) -> torch.Tensor:
    """(n, 16), filled up after their end."""
    rows = [encoding.ids for encoding in tokenizer().encode_batch(sentences)]
    return torch.tensor([row + [1] * (16 - len(row)) for row in rows])


def taught_clip(steps: int = 260) -> Any:
    """A CLIP that knows :data:`NAMES`, on any of :data:`CAPTIONS`."""
    from transformers import CLIPConfig, CLIPModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        text, vision = configs()
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps)
        rng = np.random.default_rng(0)
        kinds = np.tile(np.arange(len(NAMES)), 60)
        images = normalised(np.stack([draw(NAMES[kind], rng, int(rng.integers(30, 200))) for kind in kinds]))
        sentences = [tokens([caption.format(name) for name in NAMES]) for caption in CAPTIONS]
        for step in range(steps):
            chosen = torch.from_numpy(rng.integers(0, len(kinds), 48))
            logits = model(input_ids=sentences[step % len(CAPTIONS)], pixel_values=images[chosen]).logits_per_image
            loss = F.cross_entropy(logits, torch.from_numpy(kinds)[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def random_siglip() -> Any:
    """A SigLIP of the same size with random weights and a bias."""
    from transformers import SiglipConfig, SiglipModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        text, vision = configs()
        model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
        for parameter in model.parameters():
            parameter.data.add_(torch.randn_like(parameter), alpha=0.1)
        model.logit_scale.data.fill_(2.0)
        model.logit_bias.data.fill_(-3.0)
    return model.eval()
