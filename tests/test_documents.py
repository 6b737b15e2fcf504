"""The documents do not promise what is not there.

Every ``raytl`` line of a shell block is parsed by the real command line, options and all: most of them need images, a
cluster or an endpoint. The commands themselves run in tests/cli and tests/serving. Python blocks compile, and what they
name exists (tests/api runs the README's); the loss of extending.md is registered and used.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.main import get_command

import raytl
from raytl.cli.commands import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def commands() -> list[tuple[str, str]]:
    """Every command line of every shell block, with its page; comments and continuations taken away."""
    found = []
    for page in PAGES:
        for block in blocks(page, "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                words = re.sub(r"\s+#.*", "", line).strip()
                if words and not words.startswith("#"):
                    found.append((page.name, words))
    return found


RAYTL = [(page, line) for page, line in commands() if line.startswith("raytl ")]


def parse(arguments: list[str]) -> None:
    """Walk the real commands down to the one meant, and have it parse its arguments; nothing runs."""
    command = get_command(app)
    context = command.make_context("raytl", list(arguments))
    while hasattr(command, "commands"):
        _, command, arguments = command.resolve_command(context, arguments)
        context = command.make_context(command.name, list(arguments), parent=context)


@pytest.mark.parametrize(("page", "line"), RAYTL, ids=[f"{page}: {line}" for page, line in RAYTL])
def test_every_raytl_command_parses(page, line):
    words = shlex.split(re.split(r"\s[>|&]\s?", line)[0])
    parse(words[1:])


def test_a_wrong_option_would_be_found():
    with pytest.raises(typer.TyperException, match="--trails"):
        parse(["search", "--trails", "3"])


def test_the_pages_have_commands():
    assert {page for page, _ in RAYTL} >= {"README.md", "data.md", "source-models.md", "search-spaces.md", "json.md"}


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = {word for _, line in commands() if line.startswith("make ") for word in line.split()[1:]}
    assert named and named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_names_what_exists(page):
    for block in blocks(page, "python"):
        compile(block, page.name, "exec")
        for name in re.findall(r"\braytl\.([a-zA-Z_]+)\(", block):
            assert hasattr(raytl, name), name


def test_the_readme_is_two_screens_and_shows_the_report():
    text = (ROOT / "README.md").read_text()
    before_reference = text.split("## Performance")[0]
    assert len(before_reference.splitlines()) <= 90
    picture = ROOT / "docs" / "report.png"
    assert "docs/report.png" in text and picture.read_bytes()[:4] == b"\x89PNG" and picture.stat().st_size < 400_000


def test_the_loss_of_the_extending_page_works(tmp_path):
    """In a process of its own: a registry is for good."""
    (tmp_path / "mean_matching.py").write_text(blocks(ROOT / "docs" / "extending.md", "python")[0])
    (tmp_path / "use.py").write_text(
        "import torch, mean_matching\n"
        "from raytl import adaptation\n"
        "from raytl.adaptation.base import Views\n"
        "entry = adaptation.get('mean-matching')\n"
        "loss = mean_matching.MeanMatching(mean_matching.MeanMatchingConfig(), 4, 3)\n"
        "one, other = torch.zeros(5, 4), torch.ones(7, 4, requires_grad=True)\n"
        "value = loss(Views(one, torch.zeros(5, 3)), Views(other, torch.zeros(7, 3)), 0.5)\n"
        "value.backward()\n"
        "assert value.item() == 4 and other.grad.abs().sum() > 0, value\n"
    )
    done = subprocess.run([sys.executable, "use.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
