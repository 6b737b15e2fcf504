"""The documents do not promise what is not there.

Every ``raytl`` line of a shell block is parsed by the real command line, options and all: most of them need images, a
cluster or an endpoint. The commands themselves run in tests/cli and tests/serving. Python blocks compile, and what they
name exists (tests/api runs the README's); the loss of extending.md is registered and used.
"""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
import typer
from installed import install, run_python
from typer.main import get_command

import raytl
import raytl.testing
from raytl.cli.commands import app
from raytl.serving.tokens import hashed

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")),
    *sorted((ROOT / "docs").glob("*.md")),
]


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


def test_the_hash_of_a_token_is_made_as_the_page_says(tmp_path):
    page = (ROOT / "docs" / "deploying.md").read_text()
    (line,) = re.findall(r"`(tr [^`]*sha256sum)`", page)
    assert line in (ROOT / "serve" / "one-machine.yaml").read_text()
    (tmp_path / "token").write_text("0123456789abcdef\n")
    made = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert made.split()[0] == hashed("0123456789abcdef")


def test_the_loss_of_the_extending_page_passes_its_suite_from_an_installed_package(tmp_path):
    """In a process of its own: a registry is for good."""
    loss, suite = blocks(ROOT / "docs" / "extending.md", "python")
    (project,) = blocks(ROOT / "docs" / "extending.md", "toml")
    ((group, announced),) = tomllib.loads(project)["project"]["entry-points"].items()
    entry_points = "".join(f"{name} = {value}\n" for name, value in announced.items())
    install(tmp_path, "raytl-mean-matching", {"mean_matching": loss, "test_mine": suite}, f"[{group}]\n{entry_points}")
    done = run_python(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path / "test_mine.py"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^2\d passed in", done.stdout, flags=re.MULTILINE), done.stdout  # and none that does not apply


def test_the_extending_page_names_what_is_there():
    page = (ROOT / "docs" / "extending.md").read_text()
    rows = re.findall(r"^\| [a-z ]+ \| `([\w.]+)` \| `([\w/]+)` \| `(raytl\.\w+)` \| `(\w+)`", page, flags=re.MULTILINE)
    assert len(rows) == 5
    for decorator, folder, group, suite in rows:
        module, _, name = decorator.rpartition(".")
        assert callable(getattr(importlib.import_module(module), name)) and (ROOT / folder).is_dir()
        assert group.removeprefix("raytl.") == Path(folder).name and suite in raytl.testing.__all__
