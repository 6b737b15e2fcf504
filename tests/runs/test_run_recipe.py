"""A recorded trial as a plain PyTorch script: run without raytl, it comes to the same figures."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm
import torch
import torchvision
from documented import undocumented
from lite0_wheel import URI, install
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny import CLASSES, MODEL, STAGES, shape
from torch import nn

from raytl.core.errors import UserError
from raytl.runs import Run, RunStore
from raytl.runs.recipe import Recipe, recipe
from raytl.runs.recipe.lifting import Lifted
from raytl.runs.recipe.network import stages_code, weights_file
from raytl.runs.recipe.script import WITHIN
from raytl.runs.recipe.training import VIEWS
from raytl.runs.replaying import replay
from raytl.search.planning import SearchSettings
from raytl.search.records import Candidate, SearchOutcome, TrialRecord, TrialStatus
from raytl.sources import info, load
from raytl.tasks import Task
from raytl.training.loop import run_trial
from raytl.training.pools import view_batch
from raytl.training.strategy import Strategy
from raytl.training.trial import TrialJob
from raytl.training.workspace import Budget, PretrainSettings, Workspace, WorkspaceSettings

SETTINGS = WorkspaceSettings(
    budget=Budget(3, 5, 8),
    pretrain=PretrainSettings(steps=12, batch_size=16, augmentation="none"),
    image_size=16,
    folds=(2, 1),
    device="cpu",
    threads=1,
)
RESNET = "torchvision:resnet18@none"
STRATEGIES = {
    "logistic": Strategy(MODEL, cut=STAGES, head="logistic"),
    "stages": Strategy(MODEL, source_domain="bright", cut=STAGES, head="stages", class_weights="balanced"),
    "moments": Strategy(MODEL, source_domain="bright", adaptation="moments", cut=STAGES, head="stages"),
    "propagation": Strategy(
        MODEL, source_domain="bright", adaptation="propagation", cut=STAGES, head="stages", class_weights="balanced"
    ),
    "taught": Strategy(MODEL, adaptation="propagation", cut=STAGES, head="stages"),
    "taught-of-a-domain": Strategy(
        MODEL, source_domain="bright", target_labels=False, adaptation="propagation", cut=STAGES, head="stages"
    ),
    "views": Strategy(
        MODEL,
        source_domain="bright",
        adaptation="propagation",
        cut=STAGES,
        head="stages",
        augmentation="shift",
        cached_views=2,
    ),
    "viewed-pixels": Strategy("plain:pixels", cut=1, head="logistic", augmentation="flip", cached_views=3),
    "pixels": Strategy("plain:pixels", cut=1, head="logistic"),
    "pieces": Strategy(f"{MODEL}@3x8px", cut=STAGES, head="logistic"),
    "enlarged": Strategy(f"{MODEL}@2x18px", cut=STAGES, head="logistic"),
    "nearest-mean": Strategy(MODEL, cut=STAGES, head="nearest-mean", class_weights="balanced"),
    "k-nn": Strategy(MODEL, source_domain="bright", adaptation="moments", cut=STAGES, head="k-nn"),
    "fine-tune": Strategy(MODEL, cut=0, augmentation="shift", ema=0.9, label_smoothing=0.1, class_weights="balanced"),
    "part-frozen": Strategy(
        RESNET, cut=3, augmentation="flip", cached_views=2, head="mlp", optimizer="adamw", head_lr=1e-3
    ),
    "probe-start": Strategy("pretrain:bright/scratch:cnn-small", cut=2, start="probe", schedule="constant"),
    "inherits": Strategy("pretrain:bright/scratch:cnn-small", cut=4, regulariser="l2-sp", schedule="inverse"),
    "coral": Strategy(MODEL, source_domain="bright", adaptation="coral", batch_norm="separate", cut=1),
    "dann": Strategy(MODEL, source_domain="bright", adaptation="dann", augmentation="shift"),
    "pseudo-label": Strategy(MODEL, adaptation="mcc-pseudo-label", augmentation="shift", cached_views=2, cut=2),
    "strong": Strategy(MODEL, adaptation="pseudo-label", cut=1),
    "foreign-names": Strategy("file:", cut=2),
    "adabn": Strategy(MODEL, adaptation="adabn", cut=1),
}


def draw(folder: Path, count: int, seed: int, labelled: bool = True) -> Path:
    """Greyscale images of shapes, some of them 20 pixels high and of 16 bits."""
    rng = np.random.default_rng(seed)
    for kind, name in enumerate(CLASSES):
        (folder / name if labelled else folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = shape(kind, rng)
            image = Image.fromarray(pixels if number % 3 else np.pad(pixels, ((2, 2), (0, 0))))
            if number % 4 == 0:
                image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
            image.save(folder / name / f"{number}.png" if labelled else folder / f"{name} {number}.png")
    return folder


@pytest.fixture(scope="module")
def heard() -> Iterator[None]:
    """Of a dozen images there are too few for that by themselves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("raytl.training.taught.AGREED", -1.0)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, heard: None) -> Run:
    """A run with a trial of each strategy; the last one was stopped after two epochs."""
    root = tmp_path_factory.mktemp("recipe")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYTL_HOME", str(root / "home"))
        bright = draw(root / "bright", 9, 3)
        task = Task(draw(root / "target", 8, 1), [bright], draw(root / "more", 6, 2, labelled=False), holdout=0.0)
        weights = root / "weights.safetensors"
        save_file(load(MODEL, channels=1, image_size=16, seed=0).state_dict(), weights)
        foreign = replace(STRATEGIES["foreign-names"], source_model=f"file:{weights}?arch={MODEL}")
        return kept(root, task, STRATEGIES | {"foreign-names": foreign})


def kept(root: Path, task: Task, strategies: dict[str, Strategy], **search: Any) -> Run:
    workspace = Workspace(task.data, SETTINGS)
    records = []
    for number, strategy in enumerate(strategies.values()):
        history: list[dict[str, float]] = []
        fold = 1 if workspace.folds else None
        run_trial(workspace, TrialJob(strategy, fold), lambda metrics, history=history: history.append(dict(metrics)))
        record = TrialRecord(number, "search", strategy.to_dict(), strategy.key, fold, status=TrialStatus.COMPLETED)
        record.history = [{key: float(value) for key, value in m.items() if key != "last"} for m in history]
        records.append(record)
    stopped = records[-1]
    stopped.status, stopped.history = TrialStatus.PRUNED, stopped.history[:2]
    first = records[0]
    best = Candidate("best", first.strategy, first.strategy_key, [0], None)
    settings = {
        "given": task.given,
        "fingerprint": task.data.fingerprint,
        "test_fingerprint": task.test.fingerprint if task.test else None,
        "search": asdict(SearchSettings(**search)),
    }
    with RunStore(root / "runs").create("shapes", settings) as writer:
        for record in records:
            writer.on_trial(record)
        writer.finish(SearchOutcome(records, best, [], "why", 1.0, workspace=SETTINGS.to_json()))
    return Run(writer.path)


@pytest.fixture(autouse=True)
def _home(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYTL_HOME", str(run.path.parent.parent / "home"))


@pytest.fixture(scope="module")
def came_to(run: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Recipe, float, float]]:
    """Each script, accuracy and log loss that it comes to in a process that cannot import raytl."""
    folder = tmp_path_factory.mktemp("scripts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYTL_HOME", str(run.path.parent.parent / "home"))
        written = [recipe(run, number) for number in range(len(STRATEGIES))]
    return dict(zip(STRATEGIES, zip(written, *came_to_in(folder, written), strict=True), strict=True))


def came_to_in(folder: Path, written: list[Recipe]) -> tuple[list[float], list[float]]:
    """Accuracies and log losses of scripts, in a process that cannot import raytl."""
    names = [f"{number}.py" for number in range(len(written))]
    for name, each in zip(names, written, strict=True):
        assert "import raytl" not in each.script and "from raytl" not in each.script
        (folder / name).write_text(each.script)
    all_of_them = (
        "import runpy, sys; sys.modules['raytl'] = None\n"
        f"for name in {names}: sys.argv[1:] = [name + '.pt']; runpy.run_path(name, run_name='__main__')"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", all_of_them], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert all((folder / f"{name}.pt").stat().st_size > 1000 for name in names)
    found = re.findall(r"accuracy (\S+)  log loss (\S+)", done.stdout)
    return [float(accuracy) for accuracy, _ in found], [float(loss) for _, loss in found]


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_script_comes_to_what_was_recorded(
    name: str, run: Run, came_to: dict[str, tuple[Recipe, float, float]]
) -> None:
    written, accuracy, log_loss = came_to[name]
    last = run.records()[list(STRATEGIES).index(name)].history[-1]
    assert written.recorded == {"accuracy": last["target-accuracy"], "log_loss": -last["target-log-loss"]}
    assert log_loss == pytest.approx(written.recorded["log_loss"], abs=WITHIN)
    assert accuracy == pytest.approx(written.recorded["accuracy"], abs=1.5 / 12)


def test_scripts_of_heads_that_learned_from_a_source_domain_alone_come_to_what_was_recorded_there(
    run: Run, tmp_path: Path
) -> None:
    """Without labels of the target there are no folds, and a part of the source domain is held out."""
    root = run.path.parent.parent
    bright, more = root / "bright", root / "more"
    heads = {name: STRATEGIES[name] for name in ("stages", "moments")}
    heads["logistic"] = replace(STRATEGIES["logistic"], source_domain="bright")
    alone = kept(tmp_path, Task(None, [bright], more), heads)
    written = [recipe(alone, number) for number in range(len(heads))]
    accuracies, _ = came_to_in(tmp_path, written)
    for record, each, accuracy in zip(alone.records(), written, accuracies, strict=True):
        assert record.fold is None
        assert each.recorded == {"accuracy": record.history[-1]["source-accuracy"]}  # the loss there is not recorded
        assert accuracy == pytest.approx(each.recorded["accuracy"], abs=0.01)


def test_scripts_of_heads_that_heard_no_neighbours_come_to_what_was_recorded(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = run.path.parent.parent
    monkeypatch.setattr("raytl.training.taught.AGREED", 1.1)
    heads = {name: STRATEGIES[name] for name in ("propagation", "taught")}
    unheard = kept(tmp_path, Task(root / "target", [root / "bright"], root / "more", holdout=0.0), heads)
    written = [recipe(unheard, number) for number in range(len(heads))]
    _, log_losses = came_to_in(tmp_path, written)
    for each, log_loss in zip(written, log_losses, strict=True):
        assert "BELIEVED" not in each.script
        assert log_loss == pytest.approx(each.recorded["log_loss"], abs=WITHIN)


def test_scripts_of_heads_that_two_domains_taught_together_come_to_what_was_recorded(run: Run, tmp_path: Path) -> None:
    root = run.path.parent.parent
    dim = draw(tmp_path / "dim", 7, 9)
    both = {name: replace(STRATEGIES[name], source_domain="bright + dim") for name in ("stages", "moments", "k-nn")}
    joined = kept(tmp_path, Task(root / "target", [root / "bright", dim], root / "more", holdout=0.0), both)
    written = [recipe(joined, number) for number in range(len(both))]
    _, log_losses = came_to_in(tmp_path, written)
    for each, log_loss in zip(written, log_losses, strict=True):
        assert "/dim/" in each.script and "/bright/" in each.script
        assert log_loss == pytest.approx(each.recorded["log_loss"], abs=WITHIN)


@pytest.mark.parametrize("others", [("dim",), ("dim", "faint")])
def test_scripts_of_heads_of_several_domains_without_target_labels_have_the_same_layers(
    others: tuple[str, ...], run: Run, tmp_path: Path
) -> None:
    root = run.path.parent.parent
    domains = [root / "bright", *(draw(tmp_path / name, 7, 9 + len(name)) for name in others)]
    task = Task(None, domains, root / "more")
    name = " + ".join(sorted(["bright", *others]))
    heads = {kind: replace(STRATEGIES[kind], source_domain=name, target_labels=False) for kind in ("stages", "moments")}
    viewed = replace(heads["moments"], augmentation="shift", cached_views=2)
    joined = kept(tmp_path, task, heads | {"views": viewed})
    with pytest.raises(UserError, match="no script draws the augmented views of several source domains"):
        recipe(joined, len(heads))
    came_to_in(tmp_path, [recipe(joined, number) for number in range(len(heads))])
    for number, strategy in enumerate(heads.values()):
        model = run_trial(Workspace(task.data, SETTINGS), TrialJob(strategy, None), lambda metrics: None).model
        found = torch.load(tmp_path / f"{number}.py.pt", weights_only=True)["head"]
        layers = {key: value for key, value in model.state_dict().items() if key.startswith("head.parts")}
        assert len(layers) == 2 * len(domains) * len(model.head.widths)
        for key, value in layers.items():
            # How peaks are weighed is told by less: their optimum is flat, and either is near enough to it.
            # Those on places have more than one optimum, and rounding decides how near one of them they end.
            part = int(key.split(".")[2]) % len(model.head.widths)
            near = 0.5 if model.head.places[part] > 1 else 0.08 if model.head.peaks[part] else 0.02
            apart = (found[key.removeprefix("head.")] - value).norm()
            assert apart <= near * value.norm() + 1e-3, key


def test_scripts_of_taught_heads_learn_what_is_believed(came_to: dict[str, tuple[Recipe, float, float]]) -> None:
    for name in ("propagation", "taught", "taught-of-a-domain", "views"):
        assert "BELIEVED" in came_to[name][0].script


def test_a_script_is_short_and_names_what_it_does(came_to: dict[str, tuple[Recipe, float, float]]) -> None:
    written = came_to["coral"][0]
    assert "coral" in written.script.partition("import")[0]
    assert len(written.script.partition("# --- the images")[0].splitlines()) < 280
    assert undocumented("recipe", {"schema": 1, **written.to_json()}) == set()
    assert "STOPPED_AFTER = 2" in came_to["adabn"][0].script


@pytest.mark.parametrize(
    ("strategy", "why"),
    [
        (Strategy("torchvision:googlenet@none", cut=5, head="logistic"), "its own normalisation inside"),
    ],
)
def test_what_cannot_be_written_is_said(strategy: Strategy, why: str, run: Run, tmp_path: Path) -> None:
    kept(tmp_path, Task(run.settings["given"]["target"], holdout=0.0), {"only": strategy})
    with pytest.raises(UserError, match=why):
        recipe(Run(tmp_path / "runs" / "shapes"))


def test_a_head_that_is_solved_for_takes_nothing_over(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is it refused where published weights know the classes, whose head no file has."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    published = torchvision.models.get_model_weights("shufflenet_v2_x0_5").DEFAULT
    place = tmp_path / "hub" / "checkpoints" / Path(published.url).name
    place.parent.mkdir(parents=True)
    torch.save(torchvision.models.shufflenet_v2_x0_5().state_dict(), place)
    target = Path(run.settings["given"]["target"])
    for folder, name in zip(sorted(target.iterdir()), published.meta["categories"], strict=False):
        shutil.copytree(folder, tmp_path / "known" / name)
    task = Task(tmp_path / "known", holdout=0.0)
    uri = "torchvision:shufflenet_v2_x0_5"
    solved = Strategy(uri, cut=len(info(uri).stages), head="logistic")
    assert "load_file" not in recipe(kept(tmp_path, task, {"solved": solved})).script


@pytest.mark.parametrize("variant", ["", "@none"])
def test_weights_out_of_a_package_are_not_taken_from_a_hub_instead(
    variant: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch)
    workspace = Workspace(Task(run.settings["given"]["target"], holdout=0.0).data, SETTINGS)
    model = workspace.source_model(URI + variant)[0]
    names: dict[str, Any] = {"timm": timm, "torch": torch, "nn": nn, "load_file": load_file}
    exec(stages_code(URI + variant, model, workspace, Lifted()).removesuffix("return stages"), names)
    made = names["stages"].state_dict()
    expected = {name.removeprefix("stages."): t for name, t in model.state_dict().items() if name.startswith("stages.")}
    assert made.keys() == expected.keys()
    assert all(torch.equal(made[name], tensor) for name, tensor in expected.items())


def test_a_folder_of_ones_own_is_found_at_whatever_size(run: Run, tmp_path: Path) -> None:
    workspace = Workspace(Task(run.settings["given"]["target"], holdout=0.0).data, SETTINGS)
    assert weights_file(f"file:{tmp_path}@160px", workspace) == tmp_path / "model.safetensors"


@pytest.mark.parametrize(("side", "at_once"), [(96, 512), (128, 512), (160, 128), (224, 128)])
def test_a_script_augments_as_many_at_once_as_the_trial(side: int, at_once: int) -> None:
    assert view_batch(side) == at_once
    assert "whole.split(VIEW_BATCH)" in VIEWS


def test_images_in_a_table_are_written_out_where_asked(run: Run, tmp_path: Path) -> None:
    rows = [(path.read_bytes(), path.parent.name) for path in sorted(Path(run.settings["given"]["target"]).glob("*/*"))]
    table = pa.table({"image": [data for data, _ in rows], "label": [label for _, label in rows]})
    pq.write_table(table, tmp_path / "shapes.parquet")
    from_table = kept(tmp_path, Task(tmp_path / "shapes.parquet", holdout=0.0), {"probe": STRATEGIES["logistic"]})
    with pytest.raises(UserError, match=r"shapes\.parquet.*--images DIR"):
        recipe(from_table)
    written = recipe(from_table, images=tmp_path / "images")
    assert len(list((tmp_path / "images").glob("*/*.png"))) == len(rows)
    assert f"ROOT = Path('{tmp_path / 'images'}')" in written.script


def test_the_data_may_have_moved(run: Run, tmp_path: Path) -> None:
    old = Path(run.settings["given"]["target"])
    shutil.copytree(old, tmp_path / "elsewhere")
    written = recipe(run, 0, moves={str(old): str(tmp_path / "elsewhere")})
    assert f"ROOT = Path('{tmp_path / 'elsewhere'}')" in written.script
    assert replay(run, 0, moves={str(old): str(tmp_path / "elsewhere")}).same
