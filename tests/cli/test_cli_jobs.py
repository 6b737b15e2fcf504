"""``submit`` beside ``search``: the same options, and what is said before anything is sent."""

from __future__ import annotations

import inspect

import pytest
from photos import folder, space
from typer.main import get_command

from raytl.cli.commands import app
from raytl.cli.options import given_options
from raytl.cli.searching import search

NOBODY = ("--address", "http://127.0.0.1:9")


def context(*arguments: str):
    command = get_command(app).commands["submit"]
    return command.make_context("submit", list(arguments))


def test_every_option_of_a_search_is_one_of_its_submission():
    commands = get_command(app).commands
    theirs, ours = (
        {option.name: (option.opts, option.help, option.multiple) for option in commands[name].params}
        for name in ("search", "submit")
    )
    assert set(theirs) <= set(ours) and "options" not in ours
    assert {name for name in theirs if theirs[name] != ours[name]} == {"address", "storage"}


def test_what_was_given_is_passed_on_and_defaults_are_not():
    given = given_options(
        context("--target", "photos", "--source-domain", "a", "--source-domain", "b", "--no-warm-start", "--seed", "0"),
        inspect.signature(search).parameters,
    )
    assert given == {"target": "photos", "source_domain": ["a", "b"], "warm_start": False, "seed": 0}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["submit", "--target", "photos", "--time-budget", "soon"], "--time-budget soon: give a time above zero"),
        (["submit", "--resume", "flowers", "--target", "photos"], "leave out --target"),
        (["submit", "--trails", "3"], "no such option: --trails"),
        (["submit", "--target", "photos", "--deploy-when", "fast"], "write it like balanced-accuracy>=0.9"),
        (["search", "--target", "photos", "--deploy-when", "accuracy<=1"], "accuracy is to be >= something"),
        (["search", "--target", "photos", "--canary", "5%"], "--canary says how a winner is tried; give --deploy-when"),
        (["submit", "--resume", "flowers", "--promote-after", "9"], "--promote-after says how a winner is tried"),
        (
            ["search", "--target", "photos", "--deploy-when", "accuracy>=0.9", "--canary", "100%"],
            "--canary 100%: give a share above 0 and below 100 %",
        ),
        (["submit", "--target", "photos"], "nobody answers at http://127.0.0.1:9"),
        (["fetch", "flowers"], "nobody answers at http://127.0.0.1:9"),
        (["jobs", "follow", "flowers"], "nobody answers at http://127.0.0.1:9"),
        (["jobs", "list", "--address", "ray://head:10001"], "give the dashboard of the cluster's head"),
    ],
)
def test_mistakes_are_one_sentence(raytl, tmp_path, monkeypatch, arguments, sentence):
    folder(tmp_path / "photos", 2)
    space(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    done = raytl(*arguments, *([] if "--address" in arguments or "search" in arguments else NOBODY))
    assert done.code == 2 and sentence in done.err, done.err
    assert done.err.count("\n") == 1
