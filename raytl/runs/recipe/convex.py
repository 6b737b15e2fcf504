"""A head that is solved for, in a script: logistic regression on frozen features, by L-BFGS, or what is near."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np

from raytl.adaptation.moments import match_moments, match_places
from raytl.core.errors import UserError
from raytl.evaluation.place_probes import PLACE_STRENGTHS, solve_places
from raytl.runs.recipe import pieces
from raytl.runs.recipe.data import wrapped
from raytl.runs.recipe.lifting import Lifted
from raytl.runs.recipe.pieces import Code, block
from raytl.runs.recipe.views import VIEWS, policy_code, view_seeds
from raytl.sources.heads import StagesHead
from raytl.sources.model import read_stage
from raytl.sources.near_heads import NearestMeanHead, NeighboursHead
from raytl.training.convex import solve_head
from raytl.training.pools import view_batch
from raytl.training.roles import spread_source
from raytl.training.taught import Believed
from raytl.training.trial import Trial, trial_seed

SOLVE = '''\
def solve(features: Tensor, labels: Tensor, weights: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression on standardised features: weight (k, d) and bias (k,) for the raw ones.

    Minimises the weighted mean cross-entropy plus strength / 2 times the squared length of the weights; strengths were
    chosen by cross-validation on the training images.
    """
    x, share = features.double(), (weights / weights.sum()).double()
    mean = share @ x
    deviation = (share @ (x - mean).square()).sqrt()
    varies = deviation > 1e-6 * mean.abs().clamp(min=1e-6)
    # As if there were ten more images, in which each feature varies as the median one does.
    count, usual = 1 / share.square().sum(), deviation[varies].median() if varies.any() else 1.0
    scale = torch.where(varies, ((count * deviation**2 + 10 * usual**2) / (count + 10)).sqrt(), 1.0)
    scale = scale * (deviation / scale)[varies].square().sum().sqrt().clamp(min=1e-100)
    x = torch.where(varies, (x - mean) / scale, 0.0)
    weight = torch.zeros(len(CLASSES), x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(len(CLASSES), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=2000, tolerance_grad=1e-9, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = share @ F.cross_entropy(x @ weight.T + bias, labels, reduction="none")
        value = value + strength / 2 * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    weight, bias = weight.detach() / scale, bias.detach()
    return weight, bias - weight @ mean'''

PLAIN = "    weight, bias = solve(part, labels, weights, strength)"
BALANCED = "weights = weights / torch.bincount(labels, weights=weights)[labels]  # every class weighs the same"

_OF_EACH = """\
domain = torch.tensor(DOMAINS).repeat(len(x) // len(DOMAINS))
# Each domain has layers of its own, which learn a class that it lacks from the others.
own = [domain == number for number in range(1 + max(DOMAINS))]
members = [rows | ~torch.isin(labels, labels[rows]) for rows in own]"""


def convex_code(trial: Trial, epoch: int, lifted: Lifted, inherited: str) -> Code:
    """A script's own part for a trial whose head is solved for. Solves for it, so as to know the strengths."""
    strategy = trial.job.strategy
    seed = trial_seed(trial.workspace, trial.job)
    matched = trial.loss is not None and trial.loss.matches_moments
    balanced = strategy.class_weights == "balanced"
    solved = solve_head(trial.network, trial.roles, balanced=balanced, seed=seed, matched=matched)
    head = trial.network.model.head
    settings = pieces.common(trial.network.preprocessing, trial.classes)
    domains = _domains(trial, seed)
    if domains is not None:
        settings |= {"DOMAINS": domains}
    width, k = trial.network.model.feature_dim, len(trial.classes)
    views = strategy.cached_views if strategy.augmentation != "none" else 0
    own = "0" if "target" not in trial.roles.training else f"{1 + views} * len(TARGET)" if views else "len(TARGET)"
    even = BALANCED if balanced else ""
    if isinstance(head, StagesHead):
        placed = max(head.places) > 1
        if placed and not solved.all_teach:
            raise UserError(
                f"{strategy.source_model}: layers of its head that hear one place learned from some of the images, and "
                "no script can say which; take a trial with another head"
            )
        made = (
            f"{lifted.add(StagesHead)}({head.widths}, {k}, {head.members}{f', places={head.places}' if placed else ''})"
        )
        settings |= {"STRENGTHS": list(solved.strengths), "SHARES": list(solved.shares), "SHARPNESS": solved.sharpness}
        members = f"slice({own}), slice(None)" if head.members > 1 else "slice(None),"
        several = domains is not None and head.members > 1
        fit = block(
            f"head, everyone = {made}, (labels, weights)",
            _OF_EACH if several else f"members = [{members}]",
            "seen = [(part[rows], rows) for rows in members for part in x.split(head.widths, dim=1)]",
            "layers = zip(head.parts, seen, STRENGTHS, head.places * head.members, strict=True)",
            "for layer, (part, rows), strength, places in layers:",
            "    labels, weights = (values[rows] for values in everyone)",
            textwrap.indent(even, "    "),
            _solving(lifted, taught=solved.believed is not None) if placed else PLAIN,
            '    layer.load_state_dict({"weight": weight.float(), "bias": bias.float()})',
            "head.shares.copy_(torch.tensor(SHARES))  # what each layer has in the average, as was found",
            "head.sharpness.fill_(SHARPNESS)  # an average of probabilities is less sure than it could be",
        )
        shown = f", placed=number in {list(trial.network.model.placed)}" if placed else ""
        through = f"outputs += {lifted.add(read_stage)}(x, {head.reads!r}{shown})"
    elif isinstance(head, NearestMeanHead | NeighboursHead):
        settings |= {"SHARPNESS": solved.sharpness}
        made = f"{lifted.add(NearestMeanHead)}({width}, {k})"
        told = "head.sharpness.fill_(SHARPNESS)  # by images left out, as all that was chosen here"
        if isinstance(head, NeighboursHead):
            settings |= {"NEIGHBOURS": len(head.ranks), "DOUBT": float(head.doubt)}
            learned = sum(len(pool) for pool in trial.roles.training.values() if pool.labels is not None)
            if len(head.images) < learned:
                raise UserError(
                    f"{strategy.source_model}: of {learned} labelled images its k-nn head keeps {len(head.images)}, "
                    "and no script can say which; take a trial with another head"
                )
            made = f"{lifted.add(NeighboursHead)}({width}, {k}, len(x), NEIGHBOURS)"
            told += "\nhead.doubt.fill_(DOUBT)"
        fit = block(f"head = {made}", even, "head.place(x, labels, weights)", told)
        through = "outputs = [x]"
    else:
        settings |= {"STRENGTH": solved.strengths[0] if solved.strengths else 1.0}
        fit = block(
            f"head = nn.Linear({width}, {k})",
            even,
            "weight, bias = solve(x, labels, weights, STRENGTH)",
            'head.load_state_dict({"weight": weight.float(), "bias": bias.float()})',
        )
        through = "outputs = [x]"
    moved, of_each = "", "" if domains is None else f", np.tile(DOMAINS, {1 + views})"
    if matched and "source" in trial.roles.training:
        matching = f"{lifted.add(match_moments)}(x[{own}:], like{of_each})"
        if isinstance(head, StagesHead):
            shape = f"{head.widths}, {head.places}"
            matching = f"{lifted.add(match_places)}(x[{own}:], like, {shape}{of_each})"
        moved = f"""\
            like = torch.cat([features(stages, pixels(UNLABELLED)), x[:{own}]])
            x = torch.cat([x[:{own}], {matching}])"""
    if solved.believed is not None:
        settings |= {"BELIEVED": _pairs(solved.believed)}
        moved += """
            # What neighbours among them and a first head believe of images without labels, and how surely.
            x = torch.cat([x, features(stages, pixels(TAUGHT))])
            labels = torch.cat([labels, torch.tensor([label for label, _ in BELIEVED])])
            weights = torch.cat([weights, torch.tensor([weight for _, weight in BELIEVED]).double()])"""
    features = textwrap.dedent(f'''\
        @torch.inference_mode()
        def features(stages: nn.ModuleDict, images: Tensor) -> Tensor:
            """What the frozen stages make of the images, (n, d)."""
            found = []
            for batch in images.split(128):
                x, outputs = normalise(batch.to(device) / 255), []
                with half():
                    for number, stage in enumerate(stages.values()):
                        x = stage(x)
                        {through}
                found.append(torch.cat(outputs, dim=1).float().cpu())
            return torch.cat(found)''')
    roles = [role for role in trial.roles.training if role != "unlabelled"]
    data = labelled_code(trial, roles, seed)
    main = "\n".join(
        [
            "def main() -> None:",
            block(
                "stages = source_model().to(device).eval()",
                data,
                _seen_code(trial, roles, seed, lifted)
                if views
                else "x = features(stages, pixels([name for name, _ in images]))",
                textwrap.dedent(moved),
                textwrap.dedent(fit),
                "\ndef probabilities(names: list[str]) -> Tensor:",
                "    with torch.inference_mode():",
                "        return head(features(stages, pixels(names))).softmax(1)\n",
                pieces.EVALUATING,
                pieces.SAVING,
            ),
        ]
    )
    near = isinstance(head, NearestMeanHead | NeighboursHead)
    solving = [] if near else [SOLVE]
    if not views:
        return Code(pieces.constants(settings), main, [*solving, features])
    settings |= {"VIEW_BATCH": pieces.raw(f"{view_batch(trial.network.preprocessing.size)}  # augmented at once")}
    settings |= {"VIEWS": pieces.raw(f"{view_seeds(strategy.augmentation, views)}  # seeds")}
    imports = {"import math", "from collections.abc import Callable, Iterator"}
    return Code(pieces.constants(settings), main, [*solving, VIEWS, features], imports)


def _solving(lifted: Lifted, *, taught: bool) -> str:
    """Of a layer on places, and of another one. taught: whether its strength was not the last of several tried."""
    path = "[strength]" if taught else f"[each for each in {list(PLACE_STRENGTHS)} if each >= strength]"
    solve_it = f"{lifted.add(solve_places)}(part, labels, weights, len(CLASSES), places, path)"
    return "\n".join(
        [
            "    if places > 1:",
            f"        path = {path}",
            f"        weight, bias = {solve_it}",
            "    else:",
            textwrap.indent(PLAIN, "    "),
        ]
    )


def _domains(trial: Trial, seed: int) -> list[int] | None:
    """The number of the source domain of each image, where there are several and nothing of the target; else None."""
    labelled = [role for role, pool in trial.roles.training.items() if pool.labels is not None]
    sizes = trial.roles.domain_sizes
    if len(sizes) < 2 or labelled != ["source"]:
        return None
    kept = _kept(trial, "source", seed)
    return [int(number) for number in np.repeat(np.arange(len(sizes)), sizes)[kept]]


def _kept(trial: Trial, role: str, seed: int) -> np.ndarray:
    """Which images of a source domain, or of several, a head is solved for on."""
    labels = trial.roles.training[role].labels
    assert labels is not None
    return spread_source(labels.cpu().numpy(), len(trial.classes), seed, max(1, len(trial.roles.domain_sizes)))


def _seen_code(trial: Trial, roles: list[str], seed: int, lifted: Lifted) -> str:
    """``x``, and ``labels`` and ``weights`` of all versions of the images: as they are, then each view."""
    if "source" in roles and len(trial.roles.domain_sizes) > 1:  # of each by itself views are drawn
        raise UserError(
            f"no script draws the augmented views of several source domains ({trial.job.strategy.source_domain}); take "
            "a trial without augmentation"
        )
    found = []
    for role in roles:
        pool = trial.roles.training[role]
        assert pool.labels is not None
        rows = np.arange(len(pool.inputs)) if pool.rows is None else pool.rows.cpu().numpy()
        name = role.upper()
        if role != "target":
            kept = _kept(trial, role, seed)
            name, rows = (name, rows) if len(kept) == len(pool) else (role, rows[kept])
        found.append(f"    ({name}, {rows.tolist()}, {len(pool.inputs)}),  # which of how many images they are")
    return "\n".join(
        [
            policy_code(lifted, "augment", trial.job.strategy.augmentation),
            "x, labels, weights = [], [], []",
            "for role, rows, count in (",
            *found,
            "):",
            "    shown, times = pixels([name for name, _ in role]), 1 + len(VIEWS)",
            "    x += [features(stages, each) for each in (shown, *views(shown, augment, VIEWS, rows, count))]",
            "    labels += [torch.tensor([label for _, label in role])] * times",
            "    weights.append(torch.ones(len(role) * times).double() / (len(role) * times))",
            "x, labels, weights = torch.cat(x), torch.cat(labels), torch.cat(weights)",
        ]
    )


def _pairs(believed: Believed) -> Any:
    """(label, weight) of each image, as a script has them."""
    pairs = zip(believed.labels.tolist(), believed.weights.tolist(), strict=True)
    entries = wrapped([f"({label}, {weight:.6g})" for label, weight in pairs])
    return pieces.raw("\n".join(["[", *entries, "]"]))


def labelled_code(trial: Trial, roles: list[str], seed: int) -> str:
    """``images``, ``labels`` and ``weights`` of all labelled roles; each role weighs the same in sum."""
    lines = []
    parts = []
    for role in roles:
        name, pool = role.upper(), trial.roles.training[role]
        if role != "target" and pool.labels is not None:
            kept = _kept(trial, role, seed)
            if len(kept) < len(pool):
                lines += [
                    "kept = [  # of every class some: more would say no more",
                    *wrapped([str(index) for index in kept]),
                    "]",
                ]
                lines.append(f"{role} = [{name}[index] for index in kept]")
                name = role
        parts.append(name)
    return "\n".join(
        [
            *lines,
            f"images = {' + '.join(parts)}",
            "labels = torch.tensor([label for _, label in images])",
            f"weights = torch.cat([torch.ones(len(role)).double() / len(role) for role in ({', '.join(parts)},)])",
        ]
    )
