"""Puts a script together: a trial's own data, source model, head and training, and nothing that it does without."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raytl.core.errors import UserError
from raytl.runs.recipe import pieces
from raytl.runs.recipe.convex import convex_code
from raytl.runs.recipe.data import Files
from raytl.runs.recipe.lifting import Lifted
from raytl.runs.recipe.network import stages_code, weights_file
from raytl.runs.recipe.training import training_code
from raytl.runs.replaying import recorded_job, recorded_trial, workspace_settings
from raytl.runs.resuming import read_task
from raytl.runs.run import Run
from raytl.runs.wording import strategy as in_words
from raytl.search.records import TrialRecord
from raytl.sources.heads import ZERO_SHOT
from raytl.training.loop import ACCUMULATION
from raytl.training.roles import held_out_for, recalibrated_index, sample_index, source_index, taught_index
from raytl.training.strategy import Strategy
from raytl.training.trial import Trial, prepare
from raytl.training.workspace import Workspace

WITHIN = 0.02
"""By how much a script's log loss, in nats, may differ from the trial's on one type of machine: batches are the same,
and sums are taken in another order."""


@dataclass(frozen=True)
class Recipe:
    """A trial as a script. recorded: the figures that it had, ``accuracy`` and ``log_loss`` on what it validates on."""

    run: str
    trial: int
    script: str
    recorded: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**vars(self), "tolerance": WITHIN}


def recipe(
    run: Run, number: int | None = None, moves: Mapping[str, str] | None = None, images: Path | None = None
) -> Recipe:
    """A trial of a run as a plain PyTorch script that trains the same without raytl.

    number: of the trial, None for the winner's first. moves: where its data is now, old places by new ones. images: a
    folder to write images to that are in no file of this machine. Raises UserError as a replay does, and for what no
    script can be written with.
    """
    record = recorded_trial(run, number)
    workspace = Workspace(read_task(run, "written as a script", moves).data, workspace_settings(run))
    fold = record.fold if workspace.folds else None
    strategy = Strategy.from_dict(record.strategy)
    if record.history[-1].get(ACCUMULATION, 1) > 1:
        raise UserError(
            f"run '{run.name}': trial {record.number} ran out of memory, and its batches went through in parts; no "
            "script is written of that"
        )
    if strategy.head == ZERO_SHOT:
        raise UserError(
            f"run '{run.name}': trial {record.number} learned nothing, its head is what a text tower makes of the "
            "class names; export it instead of a script"
        )
    trial = prepare(workspace, recorded_job(run, record, fold))
    files = _files(trial, images)
    recorded = _recorded(record, "target" if fold is not None else "source")
    lifted = Lifted(pieces.INSTEAD)
    model = trial.network.model
    body = stages_code(strategy.source_model, workspace.source_model(strategy.source_model)[0], workspace, lifted)
    write = convex_code if strategy.convex else training_code
    code = write(trial, len(record.history) and int(record.history[-1]["epoch"]), lifted, _inherited(trial))
    parts = [
        "\n\n".join(
            [_docstring(run, record, recorded), "from __future__ import annotations", "\n".join(_imports(lifted, code))]
        ),
        code.settings,
        *lifted.definitions,
        pieces.reading(model.preprocessing),
        f"def source_model() -> nn.ModuleDict:\n{textwrap.indent(pieces.SOURCE_DOC + body, '    ')}",
        *code.functions,
        code.main,
        "# --- the images " + "-" * 60,
        files.code(),
        'if __name__ == "__main__":\n    main()',
    ]
    return Recipe(run.name, record.number, "\n\n\n".join(part for part in parts if part) + "\n", recorded)


def _files(trial: Trial, exported: Path | None) -> Files:
    """The images of the roles that train, and those that the result is measured on."""
    data, workspace, strategy = trial.workspace.data, trial.workspace, trial.job.strategy
    files, fold = Files(exported), trial.job.fold
    roles = trial.roles.training
    if "target" in roles and data.target is not None:
        index = workspace.folds[fold][0] if fold is not None and workspace.folds else None
        files.add("target", data.target, index, data.classes)
    if "source" in roles and strategy.source_domain is not None:
        index = source_index(workspace, strategy)
        files.add("source", data.domain(strategy.source_domain), index, data.classes)
    if data.unlabelled is not None and trial.roles.unlabelled is not None:
        files.add("unlabelled", data.unlabelled, None if "unlabelled" in roles else recalibrated_index(workspace))
    if data.unlabelled is not None and trial.roles.taught is not None:
        files.add("taught", data.unlabelled, taught_index(workspace))
    if data.unlabelled is not None and trial.loss is not None and trial.loss.matches_moments and "source" in roles:
        index = sample_index(workspace, strategy, validates=trial.roles.validation is not None)
        files.add("unlabelled", data.unlabelled, index)
    held_out = held_out_for(workspace, strategy, trial.job.set_aside)
    if data.target is not None and trial.roles.validation is not None:
        files.add("validation", data.target, trial.roles.validation_index, data.classes)
    elif held_out is not None:
        files.add("validation", held_out, None, data.classes)
    else:
        raise UserError("there are no labelled images that it was not trained on, to hold a script's result against")
    if not roles:
        raise UserError(f"{strategy.source_model}: was tried as it is; there is no training to write a script of")
    return files


def _recorded(record: TrialRecord, role: str) -> dict[str, float]:
    """Accuracy and log loss of a trial at its last look, as far as they were kept."""
    last = record.history[-1]
    found = {"accuracy": last.get(f"{role}-accuracy"), "log_loss": last.get(f"{role}-log-loss")}
    return {name: value if name == "accuracy" else -value for name, value in found.items() if value is not None}


def _inherited(trial: Trial) -> str:
    """Lines that give the head what the source model's own knows of the classes; empty where it is new.

    A head that is solved for is the same from wherever it starts.
    """
    strategy = trial.job.strategy
    if not trial.network.inherits_head or strategy.start == "probe" or strategy.convex:
        return ""
    uri, workspace = trial.job.strategy.source_model, trial.workspace
    file = weights_file(uri, workspace)
    if file is None:
        raise UserError(f"source model '{uri}': its own head knows the classes, and a script cannot take that over")
    known = workspace.source_model(uri)[0].labels or ()
    rows = [known.index(name) for name in trial.classes]
    return (
        f"state = load_file({str(file)!r})  # its own head knows the classes\n"
        f'head.load_state_dict({{name: state[f"head.{{name}}"][{rows}] for name in ("weight", "bias")}})'
    )


def _imports(lifted: Lifted, code: pieces.Code) -> list[str]:
    """All imports, those of Python itself first."""
    text = "\n".join([code.settings, code.main, *code.functions])
    found = {*pieces.ALWAYS, *lifted.imports, *code.imports}
    if "nullcontext" in text:
        found.add("from contextlib import nullcontext")
    if "Callable" in text:
        found.add("from collections.abc import Callable")
    plain = sorted(line for line in found if line.startswith("import "))
    names: dict[str, set[str]] = {}
    for line in found - set(plain):
        module, _, what = line.removeprefix("from ").partition(" import ")
        names.setdefault(module, set()).update(what.split(", "))
    lines = [*plain, *(f"from {module} import {', '.join(sorted(what))}" for module, what in sorted(names.items()))]
    own = [line for line in lines if line.split()[1].partition(".")[0] in sys.stdlib_module_names]
    return [*own, "", *(line for line in lines if line not in own)]


def _docstring(run: Run, record: TrialRecord, recorded: dict[str, float]) -> str:
    figures = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in recorded.items())
    paragraphs = [
        f"Trial {record.number} of the search '{run.name}': {in_words(record.strategy)}.",
        f"Recorded after epoch {int(record.history[-1]['epoch'])}: {figures}. On the same type of machine the log loss "
        f"comes out within {WITHIN} of that: images, batches and seeds are the same. Elsewhere it is as near as "
        "another seed's. No test image is named here.",
        "Written by raytl, and does without it. To save the model: python train.py model.pt",
    ]
    text = "\n\n".join(textwrap.fill(paragraph, 118, break_long_words=False) for paragraph in paragraphs)
    return f'"""{text}\n"""'.replace("\\", "\\\\")
