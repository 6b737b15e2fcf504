"""A disk that takes no more, at every stage of a search: nothing that was tried is lost, and the test stays sealed."""

from __future__ import annotations

import json
import re
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from own_ray import own_ray
from PIL import Image

import raytl
from raytl.core.errors import NotWrittenError, UserError
from raytl.search.lanes.work import keep_files
from raytl.search.records import TrialRecord

SPACE = """\
image_size: 16
epochs: 2
grace_epochs: 1
batch_size: 16
space: {source_model: [scratch:cnn-small], head_lr: [0.03, 0.1], backbone_ratio: [1.0]}
"""
_, HARD = resource.getrlimit(resource.RLIMIT_FSIZE)


@pytest.fixture(scope="module", autouse=True)
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYTL_HOME", str(tmp_path_factory.mktemp("home")))
        with own_ray(2):
            yield


@pytest.fixture(autouse=True)
def no_limit() -> Iterator[None]:
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (HARD, HARD))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, rng = tmp_path_factory.mktemp("disk"), np.random.default_rng(0)
    for name, colour in {"red": (200, 40, 40), "green": (40, 200, 40)}.items():
        (root / "photos" / name).mkdir(parents=True)
        for number in range(10):
            pixels = np.array(colour) + rng.normal(0, 25, (16, 16, 3))
            picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            picture.save(root / "photos" / name / f"{number}.png")
    (root / "tiny.yaml").write_text(SPACE)
    return root / "photos"


class FullFrom:
    """From the first word of a phase on, the operating system takes next to nothing more of this process."""

    def __init__(self, phase: str) -> None:
        self._phase = phase

    def on_trial(self, record: TrialRecord) -> None: ...

    def on_phase(self, phase: str, detail: str) -> None:
        if phase == self._phase:
            resource.setrlimit(resource.RLIMIT_FSIZE, (64, HARD))


STAGES = {
    "search": "trials.jsonl: cannot be written",
    "refit": r"(the refitted model|trials.jsonl:) cannot be written",  # or a trial that is still running is first
    "choice": "model: cannot be written",
    "test": "trials.jsonl: cannot be written",
    "report": "trials.parquet: cannot be written",
}
"""Where the disk is full, and what the sentence says."""


def ended(run: raytl.Run) -> dict[int, tuple[str, float | None]]:
    return {r.number: (str(r.status), r.score) for r in run.records() if r.status in ("completed", "pruned")}


def test_a_model_that_the_disk_does_not_take_is_no_failed_strategy(tmp_path: Path) -> None:
    """The next best would be as big: the search has to end there."""
    with pytest.raises(NotWrittenError, match=r"refits/a: the refitted model cannot be written \(file too large\)\."):
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, HARD))
        try:
            keep_files(tmp_path / "refits" / "a", {"model.safetensors": bytes(1000)})
        finally:  # at once: where pytest writes to a file, it must not be the next whose file is too large
            resource.setrlimit(resource.RLIMIT_FSIZE, (HARD, HARD))


@pytest.mark.slow
def test_a_search_whose_disk_is_full_again_and_again_comes_to_its_end(photos: Path) -> None:
    space, store = photos.with_name("tiny.yaml"), photos.with_name("runs")
    before: dict[int, tuple[str, float | None]] = {}
    for phase, named in STAGES.items():
        full = [FullFrom(phase)]
        with pytest.raises(UserError) as said:
            if phase == "search":
                task = raytl.Task(photos, holdout=0.3)
                raytl.search(task, str(space), trials=2, lanes=1, name="mine", storage=store, listeners=full)
            else:
                raytl.resume("mine", storage=store, listeners=full)
        resource.setrlimit(resource.RLIMIT_FSIZE, (HARD, HARD))
        sentence = str(said.value)
        assert re.search(named, sentence) and "\n" not in sentence, phase
        assert sentence.endswith(f"Then go on, with all that was tried so far: raytl search --resume {store / 'mine'}")
        run = raytl.open_run("mine", store)
        assert run.status == "interrupted" and run.outcome is None and run.predictions() is None
        now = ended(run)
        assert before.items() <= now.items(), f"{phase}: lost a trial"
        before = now
        assert run.best.load().labels == ("green", "red"), phase  # the first model, or what was found since
    assert json.loads((run.bundle_path / "model.json").read_text())["metrics"]["test"] is None  # nobody has seen it
    run = raytl.resume("mine", storage=store)
    assert run.status == "finished" and before.items() <= ended(run).items()
    assert run.best.test is not None and run.predictions() is not None
    assert json.loads((run.bundle_path / "model.json").read_text())["metrics"]["test"]["value"] == run.best.test.value
    assert run.best.load().labels == ("green", "red")
    with pytest.raises(UserError, match="'mine' is finished; to go on with it, ask for more"):
        raytl.resume("mine", storage=store)


@pytest.mark.slow
def test_figures_are_final_though_the_process_died_before_it_could_say_so(photos: Path) -> None:
    run = raytl.open_run("mine", photos.with_name("runs"))  # finished above
    figure, before = run.best.test, [phase.phase for phase in run.phases()]
    assert before[-3:] == ["choice", "test", "report"]
    document = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps(document | {"status": "running", "ended": None}))
    again = raytl.resume("mine", storage=photos.with_name("runs"))
    assert again.status == "finished" and figure is not None
    told = again.summary()["chosen_before"]
    assert told["test_metric"] == figure.to_json()
    since = [phase.phase for phase in again.phases()[len(before) :]]
    assert since[-2:] == ["choice", "report"] and "test" not in since
    assert again.best.test == (figure if told["same"] else None)
