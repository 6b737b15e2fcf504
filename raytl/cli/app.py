"""The ``raytl`` command, its groups, and the options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from raytl import __version__
from raytl.cli.output import Output
from raytl.cli.shares import parse_holdout
from raytl.core.errors import UserError

app = typer.Typer(
    name="raytl",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)
sources_app = typer.Typer(help="Source models that a search can start from.", no_args_is_help=True)
runs_app = typer.Typer(help="Searches on disk.", no_args_is_help=True)
jobs_app = typer.Typer(help="Searches that were submitted to a cluster.", no_args_is_help=True)
spaces_app = typer.Typer(help="Search spaces that come with raytl.", no_args_is_help=True)
cache_app = typer.Typer(help="What raytl keeps so as not to make or fetch it again.", no_args_is_help=True)
endpoint_app = typer.Typer(help="A served model and its versions.", no_args_is_help=True)
app.add_typer(endpoint_app, name="endpoint")
app.add_typer(sources_app, name="sources")
app.add_typer(runs_app, name="runs")
app.add_typer(jobs_app, name="jobs")
app.add_typer(spaces_app, name="spaces")
app.add_typer(cache_app, name="cache")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, everything else on stderr.")]
Storage = Annotated[
    str | None,
    typer.Option(metavar="DIR|URI", help="Folder or URI of runs (default RAYTL_STORAGE or ./raytl-runs)."),
]
Seed = Annotated[int, typer.Option(metavar="N", help="All randomness comes from it.")]
READ = "a folder, a table, an export of labels or an archive of these (zip, tar), local or at a URI"
Target = Annotated[
    str | None, typer.Option(metavar="PATH", help="Labelled images of the domain the model is for: " + READ + ".")
]
SourceDomain = Annotated[
    list[str] | None,
    typer.Option(metavar="PATH", help="Labelled images of another domain; may be given several times."),
]
Unlabelled = Annotated[str | None, typer.Option(metavar="PATH", help="Images of the target domain without labels.")]
Test = Annotated[
    str | None,
    typer.Option(metavar="PATH", help="Labelled images for the final test (default: its own, or see --holdout)."),
]
Space = Annotated[
    str, typer.Option(metavar="NAME|FILE", help="A shipped search space (see 'raytl spaces list') or a YAML file.")
]


class Licence(StrEnum):
    """What weights are wanted for."""

    COMMERCIAL = "commercial"


AllowedLicence = Annotated[
    Licence | None,
    typer.Option("--licence", help="Only weights whose licence surely allows that; unknown ones do not."),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Narrow the space: cut=0, adaptation=mcc, epochs=5."),
]
Holdout = Annotated[
    float | None,
    typer.Option(
        parser=parse_holdout,
        metavar="SHARE",
        help="Share of the target to test on, 0 for none (default: 0.2 where the median class has 30 images or more).",
    ),
]
Lanes = Annotated[int | None, typer.Option(min=1, metavar="N", help="Trials at a time (default: as many as fit).")]
GpusPerTrial = Annotated[
    float,
    typer.Option(
        min=0, metavar="N", show_default=False,
        help="1, or a fraction to share a GPU (default: one each where there are any, or what --lanes leaves).",
    ),
]  # fmt: skip
ClusterAddress = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="HOST:PORT",
        help="Head of the Ray cluster that this machine is a node of, usually port 6379 (default RAY_ADDRESS, else a "
        "Ray of its own). Not the dashboard, as for submit.",
    ),
]
Verbose = Annotated[bool, typer.Option("--verbose", help="Let Ray speak.")]
Split = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="The one split to learn from; 'none' where folders named train or test are classes."
    ),
]
ImagesFolder = Annotated[
    str | None, typer.Option("--images", metavar="DIR", help="Folder that the paths in a table count from.")
]
LabelColumn = Annotated[
    str | None,
    typer.Option(
        "--label",
        metavar="COLUMN",
        help="Column of a table that holds the labels; 'filename' takes those of a folder from its files' names.",
    ),
]
ImageColumn = Annotated[
    str | None, typer.Option("--image-column", metavar="COLUMN", help="Column of a table that holds the images.")
]
GroupBy = Annotated[
    str | None,
    typer.Option(
        "--group-by",
        metavar="COLUMN|REGEX",
        help="What images belong together, on one side of every split: a column of a table; what the brackets of a "
        r"pattern find in their paths, such as 'patient(\d+)'; 'folder'; or 'none' for each on its own.",
    ),
]
ClassesOf = Annotated[
    str | None,
    typer.Option(
        "--classes-of", metavar="NAME", help="Without target labels: the source domain whose classes are to be learned."
    ),
]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="Bundle, or a run by name, folder or URI.")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="Name, folder or URI of a run.")]

Moved = Annotated[
    list[str] | None,
    typer.Option(metavar="OLD=NEW", help="The run's data, or a folder above it, is in NEW now."),
]


def narrowed(assignments: list[str] | None, licence: Licence | None) -> list[str]:
    """What narrows the space: ``--set``, and ``--licence``, which is a setting of it."""
    return [*(assignments or []), *([f"licence={licence.value}"] if licence is not None else [])]


def read_moves(given: list[str] | None) -> dict[str, str]:
    """Old places of data by new ones, as ``--moved`` gives them. Raises UserError."""
    pairs = [text.partition("=") for text in given or []]
    wrong = next((text for text, (old, _, new) in zip(given or [], pairs, strict=True) if not old or not new), None)
    if wrong is not None:
        raise UserError(f"--moved {wrong}: give OLD=NEW, two paths")
    return {old: new for old, _, new in pairs}


def _version(wanted: bool) -> None:
    if wanted:
        Output.current.say(f"raytl {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Transfer-learning search on Ray: from a few labelled images to a served model.

    [bold]To see it work:[/bold]  raytl demo

    [bold]Your own images:[/bold]  raytl check photos/, then raytl search --target photos/

    Every command takes --json, and --help with examples.
    """
