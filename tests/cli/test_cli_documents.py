"""``--json`` prints one document, as docs/json.md says; without it, tables that fit 80 columns."""

from __future__ import annotations

import pytest
from documented import keys, undocumented
from photos import folder

from raytl import sources
from raytl.cli.output import Output
from raytl.cli.running import show_problems
from raytl.sources.checkpoint import write_checkpoint
from raytl.tasks import Problem, Severity


def test_the_page_covers_every_command():
    from typer.main import get_command

    from raytl.cli.commands import app

    names = set()
    for name, command in get_command(app).commands.items():
        names |= {f"{name} {below}" for below in getattr(command, "commands", {})} or {name}
    assert names == set(keys())


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("check", "photos"),
        ("doctor", ""),
        ("sources list", "scratch"),
        ("spaces list", ""),
        ("runs list", ""),
        ("cache list", ""),
        ("cache clear", "arrays --dry-run"),
        ("pretrain", "--data photos --out model --steps 3"),
    ],
)
def test_documents_are_as_documented(raytl, tmp_path, name, arguments):
    folder(tmp_path / "photos", 4)
    (tmp_path / "photos" / "daisy" / "note.png").write_text("no image")
    done = raytl(*name.split(), *arguments.split(), "--json")
    assert done.code == 0, done.err
    assert undocumented(name, done.document) == set()


def test_tables_fit_80_columns_and_hide_nothing(raytl, tmp_path):
    folder(tmp_path / "photos", 4)
    tables = ("check photos", "doctor", "sources list", "spaces list", "runs list", "cache list")
    for arguments in map(str.split, tables):
        done = raytl(*arguments)
        assert done.code == 0, done.err
        assert max(map(len, done.out.splitlines())) <= 80 or arguments == ["spaces", "list"]
        assert "…" not in done.out


def test_check_draws_a_page_and_takes_the_column_of_labels(raytl, tmp_path):
    folder(tmp_path / "photos", 4, flat=True)
    rows = [f"photos/{name}-{n}.png,{name},{n % 2}" for name in ("daisy", "poppy") for n in range(4)]
    (tmp_path / "t.csv").write_text("\n".join(["path,kind,side", *rows]))
    assert "--label kind" in raytl("check", "t.csv").out.replace("\n", " ")
    done = raytl("check", "t.csv", "--label", "side", "--html", "page.html")
    assert done.code == 0, done.err
    assert "wrote page.html" in done.out
    assert (tmp_path / "page.html").read_text().count("<h3>") == 2


def test_pretrain_takes_what_its_errors_advise(raytl, tmp_path):
    """Split, column of labels and folder of images, as search and check do."""
    folder(tmp_path / "photos", 4, flat=True)
    names = [f"{name}-{n}.png,{name},{n % 2},train" for name in ("daisy", "poppy") for n in range(4)]
    (tmp_path / "t.csv").write_text("\n".join(["path,kind,side,split", *names]))
    asked = raytl("pretrain", "--data", "t.csv", "--out", "model", "--images", "photos")
    assert asked.code == 2 and "--label kind" in asked.err.replace("\n", " ")
    more = ("--label", "kind", "--image-column", "path", "--split", "none", "--images", "photos", "--steps", "3")
    assert raytl("pretrain", "--data", "t.csv", "--out", "model", *more).code == 0


def test_pretrain_speaks_of_its_own_options(raytl, tmp_path):
    folder(tmp_path / "photos", 4, flat=True)
    done = raytl("pretrain", "--data", "photos", "--out", "model")
    assert done.code == 2 and "photos/: no labels for --data" in done.err and "--target" not in done.err
    for split, count in (("train", 4), ("test", 2)):
        folder(tmp_path / "parts" / split, count)
    folder(tmp_path / "parts" / "val", 1, flat=True)
    done = raytl("pretrain", "--data", "parts", "--out", "model", "--steps", "2")
    said = " ".join(done.err.split())
    assert done.code == 0, done.err
    assert "train (12 images) is what is learned from, test (6 images) not read; --split NAME takes one alone" in said
    assert "without labels; left out" in said and not any(f"--{role}" in said for role in ("test", "unlabelled"))


def test_what_is_not_shown_of_the_data_is_where_the_last_line_says(capsys):
    problems = [Problem(Severity.WARNING, "photos", f"problem {number}") for number in range(14)]
    show_problems(Output(as_json=False), problems, "the run's report")
    assert capsys.readouterr().err.splitlines()[-1] == "… and 2 more; the run's report lists them all"


def test_help_has_examples_for_every_command(raytl):
    from typer.main import get_command

    from raytl.cli.commands import app

    group = get_command(app)
    for name, command in group.commands.items():
        for path in [(name, below) for below in getattr(command, "commands", {})] or [(name,)]:
            done = raytl(*path, "--help")
            assert done.code == 0 and "Example" in done.out, path
            assert f"raytl {' '.join(path)}" in done.out


def test_version(raytl):
    from raytl import __version__

    assert raytl("--version").out == f"raytl {__version__}\n"


def test_names_in_brackets_are_shown_as_they_are(raytl, tmp_path):
    folder(tmp_path / "photos [red]", 2)
    assert "photos [red]/" in raytl("check", "photos [red]").out


@pytest.mark.parametrize("command", ["search", "quote", "sources rank"])
def test_what_is_not_known_to_allow_commercial_use_is_not_chosen_from(raytl, command, tmp_path):
    folder(tmp_path / "photos", 4)
    given = ("--target", "photos", "--set", "source_model=torchvision:resnet18", "--licence", "commercial")
    done = raytl(*command.split(), *given)
    assert done.code == 2
    assert "torchvision:resnet18: the licence of its weights (unknown) is not known to allow commercial use" in done.err


def test_a_bundle_is_told_about_by_its_uri(raytl, tmp_path):
    write_checkpoint(tmp_path / "m", sources.load("scratch:cnn-small"), {"provenance": {"licence": "CC-BY-NC-4.0"}})
    shown = raytl("sources", "list", f"file:{tmp_path / 'm'}")
    assert "CC-BY-NC-4.0" in shown.out and "images: 32 pixels" in shown.out
    gone = raytl("sources", "list", f"file:{tmp_path / 'gone'}")
    assert gone.code == 2 and "does not exist" in gone.err


def test_sources_can_be_listed_by_licence(raytl):
    done = raytl("sources", "list", "package:", "--licence", "commercial", "--json")
    assert [entry["licence"] for entry in done.document["sources"]] == ["Apache-2.0"]
    assert done.document["sources"][0]["preprocessing"]["interpolation"] == "bicubic"
    shown = raytl("sources", "list", "package:")
    assert "images: 224 pixels, bicubic, crop to 0.875" in shown.out
    refused = raytl("sources", "list", "torchvision:resnet18", "--licence", "commercial")
    assert refused.code == 2
    assert "no licence here is known to allow commercial use" in refused.err
