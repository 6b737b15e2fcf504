"""Memory: what a lane holds of its own does not grow with the number of images."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import data, workspace

from raytl.sources.passing import at_once
from raytl.training import material

FEW, MANY = 1024, 3072
"""Both are several times what is augmented at once."""

_LANE = """
import json, sys, threading, time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from raytl.search.lanes.lane import _own_memory_bytes
from raytl.search.propose.features import pooled_features
from raytl.tasks import LabelledImages, TrainingData
from raytl.training.network import Network
from raytl.training.pools import PoolMaker
from raytl.training.workspace import Workspace, WorkspaceSettings

MODEL, CLASSES = "scratch:cnn-small", ("a", "b")


@dataclass(frozen=True)
class Drawn:
    number: int

    @property
    def name(self):
        return str(self.number)

    @property
    def digest(self):
        return f"{self.number:064x}"

    def open(self):
        return Image.new("RGB", (40, 40), (self.number % 256, self.number // 256 % 256, 7))


class Watch(threading.Thread):
    def __init__(self):
        super().__init__(daemon=True)
        self.peak, self.ended = 0, False

    def run(self):
        while not self.ended:
            self.peak = max(self.peak, _own_memory_bytes())
            time.sleep(0.001)


def peaks(count, root):
    found = {}

    def measure(name, side, count, cut=None, **views):
        images = LabelledImages("drawn", [Drawn(i) for i in range(count)], None, CLASSES, np.arange(count) % 2)
        settings = WorkspaceSettings(image_size=side, device="cpu", threads=1)
        space = Workspace(TrainingData("drawn", CLASSES, images, None, {}, channels=3), settings, root / name)
        model, weights = space.source_model(MODEL)
        watch = Watch()
        watch.start()
        if cut is None:
            pooled_features(space, MODEL, images)
        else:
            network = Network(model, CLASSES, cut, device=space.device)
            made = PoolMaker(space, network, weights, cached=cut > 0).make(images, images.labels, **views)
            for batch in made.batches(128):
                batch.float()
        watch.ended = True
        watch.join()
        found[name] = watch.peak, sum(path.stat().st_size for path in space.cache.root.glob("*.npy"))

    measure("pixels", 64, 2 * count, 0)
    measure("views", 64, count, 0, policy="flip", views=1)
    measure("activations", 32, count, 2)
    measure("all stages", 32, count, 5)
    measure("features for probes", 32, count)
    return found


print(json.dumps([peaks(int(count), Path(sys.argv[1]) / str(n)) for n, count in enumerate(sys.argv[2:])]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell a process's own memory")
def test_what_is_made_of_three_times_the_images_takes_no_more_memory(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _LANE, str(tmp_path), str(FEW), str(MANY)]
    # Freed memory goes back to the system at once.
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=env)
    assert done.returncode == 0, done.stderr
    few, many = json.loads(done.stdout)
    grown = {name: (peak - few[name][0], kept - few[name][1]) for name, (peak, kept) in many.items()}
    assert all(kept > 2**22 for _, kept in grown.values())
    # An array held once would take as much as is kept of it. What is known of each image, its name say, takes a little.
    assert {name: (peak, kept) for name, (peak, kept) in grown.items() if peak > kept / 3} == {}


def test_a_process_that_trains_on_a_processor_keeps_what_it_frees_for_all_its_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray runs trials in threads, whose own share of the C library's memory keeps no large blocks."""
    kept: list[tuple[int, int, bool]] = []
    monkeypatch.setattr(material, "keep_freed", lambda block, whole, together: kept.append((block, whole, together)))
    workspace(tmp_path, data())
    assert [together for _, _, together in kept] == [True]
    (block, whole, _) = kept[0]
    # What 16 images of 224 pixels come to in the widest layer of EfficientNet-Lite0.
    assert 16 * 96 * 112**2 * 4 <= block < whole


@pytest.mark.parametrize(
    ("device", "side", "many"),
    [
        *(("cuda", 96, 128), ("cuda", 224, 128), ("cuda", 320, 62), ("cuda", 448, 32), ("cuda", 4000, 1)),
        *(("cpu", 32, 64), ("cpu", 112, 64), ("cpu", 224, 16), ("cpu", 448, 4), ("cpu", 4000, 1)),
    ],
)
def test_as_many_pixels_pass_a_network_at_once_however_large_the_images(device: str, side: int, many: int) -> None:
    assert at_once(side, torch.device(device)) == many
    assert many == 1 or many * side**2 <= 128 * 224**2
