"""How much of a model's work may be done on the event loop. Nothing here takes time: the clock is the model's."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from raytl.bundles import Bundle
from raytl.serving import live
from raytl.serving.live import warmed
from raytl.serving.settings import ServingSettings


class Timed(Bundle):
    """A bundle that takes a millisecond for an image, or more, by a clock of its own."""

    now, ms_per_image, delays = 0.0, 1.0, ()

    def compute(self, images: np.ndarray, batch_size: int = 64) -> np.ndarray:
        delay, *self.delays = self.delays or [0.0]
        self.now += 0.001 * (len(images) * self.ms_per_image + delay)
        return super().compute(images, batch_size)


def quick(bundle, monkeypatch, **known) -> int:
    def read(path) -> Timed:
        model = Timed.load(path)
        for name in known.keys() & {"ms_per_image", "on_gpu"}:
            setattr(model, name, known[name])
        reference = model.reference

        def last(folder):  # what comes after it is what is timed
            found = reference(folder)
            found.check(model, str(folder))
            model.delays = known.get("delays", ())

        model.reference = last
        monkeypatch.setattr(live, "time", SimpleNamespace(perf_counter=lambda: model.now))
        return model

    return warmed(ServingSettings(bundle=str(bundle), max_batch_size=known.get("most", 64)), read).quick


def test_as_many_images_are_quick_as_are_computed_within_the_time(bundles, monkeypatch):
    assert quick(bundles["first"], monkeypatch) == 4  # eight would take 8 ms
    assert quick(bundles["first"], monkeypatch, ms_per_image=4.9) == 1
    assert quick(bundles["first"], monkeypatch, ms_per_image=5.1) == 0
    assert quick(bundles["first"], monkeypatch, ms_per_image=0.01, most=16) == 16


@pytest.mark.parametrize("delays", [(7, 0), (70, 7, 7, 7, 0), (3, 7, 0, 0)])
def test_what_others_do_on_the_machine_does_not_count(bundles, monkeypatch, delays):
    assert quick(bundles["first"], monkeypatch, delays=delays) == 4


def test_nothing_is_quick_where_a_gpu_is_waited_for(bundles, monkeypatch):
    assert quick(bundles["first"], monkeypatch, on_gpu=True) == 0
