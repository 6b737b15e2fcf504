"""The five lines of the README, and what else the Python API promises."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from own_ray import own_ray
from PIL import Image

import raytl
from raytl import sources
from raytl.bundles import Reference
from raytl.core.errors import UserError
from raytl.runs import RunStore
from raytl.serving.ports import free_port

README = Path(__file__).parents[2] / "README.md"
SPACE = """\
image_size: 16
epochs: 2
grace_epochs: 1
batch_size: 16
space: {source_model: [scratch:cnn-small], head_lr: [0.03, 0.1], backbone_ratio: [1.0]}
"""
COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40)}


def picture(name: str, number: int) -> Image.Image:
    noise = np.random.default_rng(number).normal(0, 25, (16, 16, 3))
    return Image.fromarray((np.array(COLOURS[name]) + noise).clip(0, 255).astype(np.uint8))


def photos(root: Path, per_class: int = 8) -> Path:
    for name in COLOURS:
        (root / name).mkdir(parents=True)
        for number in range(per_class):
            picture(name, number + 100 * len(name)).save(root / name / f"{number}.png")
    return root


@pytest.fixture(autouse=True)
def _places(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAYTL_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RAYTL_STORAGE", raising=False)


def test_everything_public_is_there():
    assert all(callable(getattr(raytl, name)) for name in raytl.__all__)
    with pytest.raises(AttributeError, match="serach"):
        _ = raytl.serach


def test_search_is_the_function_whatever_was_imported_before():
    program = "import raytl.search.space, raytl; raytl.search(1, 2, 3)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "search() takes from 1 to 2 positional arguments but 3 were given" in done.stderr, done.stderr


def test_an_unknown_run_names_the_nearest(tmp_path):
    RunStore(tmp_path / "raytl-runs").create("flowers", {}).interrupt()
    with pytest.raises(UserError, match="did you mean 'flowers'"):
        raytl.open_run("flower")


def test_a_run_that_was_interrupted_opens_and_has_no_model(tmp_path):
    RunStore(tmp_path / "raytl-runs").create("flowers", {}).interrupt()
    run = raytl.open_run("flowers")
    assert run.status == "interrupted" and run.leaderboard().empty
    with pytest.raises(UserError, match=r"run 'flowers' has no model: .* raytl search --resume flowers$"):
        _ = run.best
    with pytest.raises(UserError, match="run 'flowers' has no model"):
        raytl.deploy("flowers")


def test_space_and_data_that_do_not_fit_leave_no_run_behind(tmp_path):
    task = raytl.Task(target=photos(tmp_path / "photos"))
    (tmp_path / "mine.yaml").write_text(SPACE.replace("scratch:cnn-small", "'pretrain:*/scratch:cnn-small'"))
    with pytest.raises(UserError, match="add --source-domain"):
        raytl.search(task, space="mine.yaml", name="none")
    assert not (tmp_path / "raytl-runs").exists()


def test_pretrain_writes_a_source_model_that_knows_the_classes(tmp_path):
    path, accuracy = raytl.pretrain(
        photos(tmp_path / "photos", 20), "scratch:cnn-small", tmp_path / "model", steps=60, image_size=16
    )
    assert path == tmp_path / "model" and accuracy >= 0.8
    from raytl.bundles import Bundle

    bundle = Bundle.load(path)
    assert bundle.labels == ("green", "red")
    (prediction,) = bundle.predict([picture("red", 999)])
    assert prediction.label == "red"


def test_pretrain_looks_at_once_where_it_is_to_write(tmp_path):
    """Before the data, of which there is none."""
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    for out, sentence in (("notes", "holds something else"), ("/dev/null/here", "cannot be written")):
        with pytest.raises(UserError, match=sentence):
            raytl.pretrain(tmp_path / "gone", "scratch:cnn-small", out)


def test_folders_whose_names_are_no_utf8_are_learned_from_and_written_to(tmp_path):
    odd = os.fsdecode(b"fotos-\xfc")
    path, _ = raytl.pretrain(photos(tmp_path / odd), "scratch:cnn-small", tmp_path / odd / "m\udcff", steps=2)
    assert json.loads((path / "model.json").read_bytes())["provenance"]["data"].endswith("fotos-\\xfc")
    assert sources.load(f"file:{path}", image_size=16).pretrained
    task = raytl.Task(target=tmp_path / odd, source_domain=[tmp_path / odd], holdout=0)
    assert task.name == "fotos-\\xfc" and list(task.given["source_domain"]) == ["fotos-\\xfc"]


@pytest.mark.slow
def test_the_readme_in_five_lines(tmp_path, capsys):
    """Word for word, but for a smaller space, fewer trials and a free port."""
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert len([line for line in code.splitlines() if line and "import" not in line]) == 5
    port = free_port()
    for original, smaller in [
        ('space="vision-small"', 'space="mine.yaml"'),
        ("trials=40", "trials=2, lanes=1"),
        ('deploy("model/")', f'deploy("model/", port={port}, max_replicas=1)'),
    ]:
        assert original in code
        code = code.replace(original, smaller)
    photos(tmp_path / "photos", 30)  # enough for a test split to be held out
    (tmp_path / "mine.yaml").write_text(SPACE)
    names: dict[str, object] = {}
    with own_ray(2):
        exec(compile(code, "README.md", "exec"), names)
        run, endpoint = names["run"], names["endpoint"]
        assert "best" in capsys.readouterr().out
        assert run.status == "finished" and run.best.test.value >= 0.5
        # The model holds what it answered for its training images, unless it is to go without them.
        assert len(Reference.read(Path("model")).examples) == 16
        assert Reference.read(run.best.export("bare", images=False)) is None
        picture("green", 998).save(tmp_path / "one.png")
        body = (tmp_path / "one.png").read_bytes()
        answer = httpx.post(f"{endpoint.url}/v1/predict", content=body, trust_env=False, timeout=60).json()
        assert answer["predictions"][0]["label"] == run.best.load().predict([body])[0].label
        assert not endpoint.detached
        assert raytl.undeploy() is True
