"""Training in a script: the same batches in the same order, optimizer, schedule and losses."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from raytl import adaptation, finetuning
from raytl.core.seeding import derive_seed
from raytl.finetuning.domain_norm import running_statistics_kept
from raytl.finetuning.freezing import recalibrate_norm
from raytl.runs.recipe import pieces
from raytl.runs.recipe.convex import BALANCED, SOLVE, labelled_code
from raytl.runs.recipe.data import settings as settings_code
from raytl.runs.recipe.lifting import Lifted
from raytl.runs.recipe.pieces import Code, block, raw
from raytl.runs.recipe.views import VIEWS, policy_code, view_seeds
from raytl.sources.heads import MlpHead
from raytl.training.convex import solve_head
from raytl.training.pools import view_batch
from raytl.training.roles import STRONG_VIEW
from raytl.training.trial import Trial, trial_seed

BATCHES = '''\
def batches(size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless indices: shuffled passes over the images, with replacement where they are fewer than a batch."""
    order = torch.empty(0, dtype=torch.int64)
    while True:
        if size < BATCH:
            yield torch.randint(size, (BATCH,), generator=generator)
            continue
        while len(order) < BATCH:
            order = torch.cat([order, torch.randperm(size, generator=generator)])
        yield order[:BATCH]
        order = order[BATCH:]'''

GROUPS = '''\
def groups(module: nn.Module, lr: float, weight_decay: float) -> list[dict]:
    """Parameters of a module; norms and biases are not decayed."""
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    decayed = [p for name, p in named if p.ndim > 1 and not name.endswith("bias")]
    others = [p for name, p in named if p.ndim <= 1 or name.endswith("bias")]
    found = [(decayed, weight_decay), (others, 0.0)]
    return [{"params": params, "lr": lr, "peak": lr, "weight_decay": decay} for params, decay in found if params]'''

DRAW = '''\
def draw(views: list[Tensor], index: Tensor, generator: torch.Generator) -> Tensor:
    """One of the augmented versions for the whole batch."""
    return views[int(torch.randint(len(views), (), generator=generator))][index]'''

CLASS_WEIGHTS = '''\
def class_weights(labels: Tensor) -> Tensor:
    """Weights (k,) by which every class counts as much as the others."""
    counts = torch.bincount(labels, minlength=len(CLASSES)).float()
    present = counts > 0
    return torch.where(present, counts.sum() / (present.sum() * counts.clamp(min=1)), 0.0)'''

_AFTER = {
    "cosine": "0.5 * (1 + math.cos(math.pi * after))",
    "constant": "1.0",
    "inverse": "(1 + 10 * after) ** -0.75",
}


def training_code(trial: Trial, epoch: int, lifted: Lifted, inherited: str) -> Code:
    """A script's own part for a trial that trains. epoch: the last that it was looked at after.

    inherited: lines that take over the source model's own head; none where it is new.
    """
    return _Training(trial, epoch, lifted, inherited).code()


@dataclass
class _Training:
    trial: Trial
    epoch: int
    lifted: Lifted
    inherited: str

    def __post_init__(self) -> None:
        self.strategy = self.trial.job.strategy
        self.seed = trial_seed(self.trial.workspace, self.trial.job)
        self.roles = list(self.trial.roles.training)
        self.strong = self.trial.roles.strong is not None
        self.views = self.strategy.cached_views
        self.augments = self.strategy.augmentation != "none"
        # Frozen stages are run beforehand unless every batch is augmented anew.
        self.live = (self.augments or self.strong) and not self.views
        self.loss = self.trial.loss
        self.functions = [BATCHES, GROUPS, self._rate()]

    def code(self) -> Code:
        strategy, budget = self.strategy, self.trial.workspace.settings.budget
        batch = budget.batch_for(self.trial.roles.largest)
        settings = pieces.common(self.trial.network.preprocessing, self.trial.classes) | {
            "CUT": raw(f"{strategy.cut}  # stages frozen, of {len(self.trial.network.stages)}"),
            "EPOCHS": budget.epochs,
            "STEPS": raw(f"{self.trial.steps_per_epoch}  # of an epoch"),
            "BATCH": raw(f"{batch}  # images of each role"),
            "SEED": self.seed,
            "HEAD_LR": strategy.head_lr,
            "BACKBONE_LR": strategy.head_lr * strategy.backbone_ratio,
            "WEIGHT_DECAY": strategy.weight_decay,
            "WARMUP": raw(f"{strategy.warmup}  # share of the training"),
        }
        if self.views and (self.augments or self.strong):
            side = self.trial.network.preprocessing.size
            settings["VIEW_BATCH"] = raw(f"{view_batch(side)}  # images that are augmented at once")
        stopped = self.epoch < budget.epochs
        if stopped:
            settings["STOPPED_AFTER"] = raw(f"{self.epoch}  # epochs: others were better by then")
        main = [
            policy_code(self.lifted, "augment", strategy.augmentation) if self.augments else "",
            policy_code(self.lifted, "augment_strongly", STRONG_VIEW) if self.strong else "",
            "stages = source_model().to(device)",
            "torch.manual_seed(SEED)",
            self._head(),
            self._components(),
            "below = nn.Sequential(*list(stages.values())[:CUT]).requires_grad_(False).eval()",
            "above = nn.Sequential(*list(stages.values())[CUT:])",
            self._probe_start(),
            self._pools(),
            f"generator = torch.Generator().manual_seed({derive_seed(self.seed, 0)})",
            "streams = {role: batches(len(labels[role]), generator) for role in labels}",
            self._optimizer(),
            self._average() if strategy.ema else "",
            f"\nfor step in range({'STOPPED_AFTER' if stopped else 'EPOCHS'} * STEPS):",
            textwrap.indent(self._step(), "    "),
            self._end(),
            "",
            _PROBABILITIES,
            "",
            pieces.EVALUATING,
            pieces.SAVING,
        ]
        imports = {"import math", "from collections.abc import Iterator"}
        return Code(pieces.constants(settings), "def main() -> None:\n" + block(*main), self.functions, imports)

    # --- before the first step --------------------------------------------------------------------------------------

    def _rate(self) -> str:
        after = _AFTER[self.strategy.schedule]
        use = "    after = (progress - WARMUP) / (1 - WARMUP)\n" if "after" in after else ""
        return (
            "def rate(progress: float) -> float:\n"
            '    """Share of the peak learning rate at a share of the training."""\n'
            "    if progress < WARMUP:\n"
            "        return 0.01 + 0.99 * progress / WARMUP\n"
            f"{use}    return {after}"
        )

    def _head(self) -> str:
        width, k = self.trial.network.model.feature_dim, len(self.trial.classes)
        kind = self.lifted.add(MlpHead) if self.strategy.head == "mlp" else "nn.Linear"
        made = f"head = {kind}({width}, {k})"
        return "\n".join(line for line in (made, self.inherited, "head.to(device)") if line)

    def _components(self) -> str:
        strategy, lines = self.strategy, []
        width, k = self.trial.network.model.feature_dim, len(self.trial.classes)
        if self.loss is not None and not self.loss.gradient_free:
            entry = adaptation.get(strategy.adaptation)
            config = settings_code(strategy.adaptation_config or entry.config())
            self.lifted.imports |= {"from types import SimpleNamespace", "from dataclasses import dataclass"}
            lines.append(f"adapt = {self.lifted.add(entry.loss)}({config}, {width}, {k}).to(device)")
            self.lifted.add(adaptation.Views)
        if strategy.regulariser != "none":
            regulariser = finetuning.regularisers.get(strategy.regulariser)
            config = settings_code(strategy.regulariser_config or regulariser.config())
            self.lifted.imports.add("from types import SimpleNamespace")
            name = self.lifted.add(regulariser.regulariser)
            lines.append(f"regularise = {name}({config}, list(stages.values()), CUT)")
        return "\n".join(lines)

    def _probe_start(self) -> str:
        """The head solved for before anything is trained; its strength is found by doing so here."""
        if self.strategy.start != "probe":
            return ""
        balanced = self.strategy.class_weights == "balanced"
        solved = solve_head(self.trial.network, self.trial.roles, balanced=balanced, seed=self.seed)
        self.functions.append(SOLVE)
        return "\n".join(
            [
                "# The head begins as the best one on the source model's own features (LP-FT).",
                labelled_code(self.trial, [role for role in self.roles if role != "unlabelled"], self.seed),
                BALANCED if balanced else "",
                "above.eval()",
                "with torch.inference_mode():",
                "    shown = pixels([name for name, _ in images]).split(128)",
                "    x = torch.cat([above(below(normalise(batch.to(device) / 255))).float().cpu() for batch in shown])",
                f"weight, bias = solve(x.clone(), labels, weights, {solved.strengths[0]!r})",
                'head.load_state_dict({"weight": weight.float(), "bias": bias.float()})',
            ]
        )

    def _pools(self) -> str:
        """``pools``: what batches are drawn from by role; ``labels``, None where there are none."""
        lines = ["pools, labels = {}, {}"]
        if not self.live:
            lines = [
                "\n@torch.no_grad()",
                "def activations(images: Tensor) -> Tensor:",
                "    return torch.cat([below(normalise(batch.to(device) / 255)) for batch in images.split(128)])",
                "",
                *lines,
            ]
        for role in self.roles:
            name = role.upper()
            unlabelled = role == "unlabelled"
            names = name if unlabelled else f"[name for name, _ in {name}]"
            lines.append(self._pool(f'pools["{role}"]', names, role, self.strategy.augmentation, "augment"))
            if unlabelled and self.strong:
                lines.append(self._pool('pools["strong"]', names, role, STRONG_VIEW, "augment_strongly"))
            labels = (
                f"[None] * len({name})"
                if unlabelled
                else f"torch.tensor([label for _, label in {name}], device=device)"
            )
            lines.append(f'labels["{role}"] = {labels}')
        return "\n".join(lines)

    def _pool(self, place: str, names: str, role: str, policy: str, function: str) -> str:
        if self.live:
            return f"{place} = pixels({names}).to(device)"
        if policy == "none":
            return f"{place} = activations(pixels({names}))"
        seeds = view_seeds(policy, self.views)
        pool = self.trial.roles.training[role]
        rows = (
            f"list(range({len(pool)})), {len(pool)}"
            if pool.rows is None
            else f"{pool.rows.tolist()}, {len(pool.inputs)}"
        )
        if VIEWS not in self.functions:
            self.functions += [VIEWS, DRAW]
        return f"{place} = [activations(images) for images in views(pixels({names}), {function}, {seeds}, {rows})]"

    def _optimizer(self) -> str:
        strategy = self.strategy
        heads = ["head", *(["adapt"] if self.loss is not None and any(True for _ in self.loss.parameters()) else [])]
        decay = "WEIGHT_DECAY"
        if strategy.regulariser != "none":
            entry = finetuning.regularisers.get(strategy.regulariser)
            decay = "0.0" if entry.regulariser.replaces_weight_decay else decay
        parts = [f"*groups({name}, HEAD_LR, WEIGHT_DECAY)" for name in heads]
        parts.append(f"*groups(above, BACKBONE_LR, {decay})")
        made = {
            "sgd": "torch.optim.SGD(parameters, lr=HEAD_LR, momentum=0.9, nesterov=True)",
            "adamw": "torch.optim.AdamW(parameters, lr=HEAD_LR)",
        }[strategy.optimizer]
        return f"parameters = [{', '.join(parts)}]\noptimizer = {made}"

    def _average(self) -> str:
        return textwrap.dedent("""\
            # An average of the weights is what is evaluated in the end.
            live = [p for module in (above, head) for p in module.parameters() if p.requires_grad]
            live += [b for module in (above, head) for b in module.buffers() if b.is_floating_point()]
            average = [tensor.detach().clone() for tensor in live]""")

    # --- a step -----------------------------------------------------------------------------------------------------

    def _step(self) -> str:
        lines = [
            "progress = step / (EPOCHS * STEPS)",
            "above.train()",
            "head.train()",
            "for group in optimizer.param_groups:",
            '    group["lr"] = group["peak"] * rate(progress)',
            "inputs, known = {}, {}",
            "for role, stream in streams.items():",
            "    index = next(stream)",
        ]
        if self.strong:
            lines += [
                '    if role == "unlabelled":',
                f'        inputs["strong"] = {self._drawn("strong", strong=True)}',
            ]
        lines.append(f"    inputs[role] = {self._drawn('role')}")
        lines.append('    if role != "unlabelled":' if "unlabelled" in self.roles else "")
        lines.append(f"{'    ' if 'unlabelled' in self.roles else ''}    known[role] = labels[role][index]")
        lines += [*self._forward(), *self._loss(), "optimizer.zero_grad()", "loss.backward()", "optimizer.step()"]
        if self.strategy.ema:
            lines += [
                f"keep = min({self.strategy.ema}, (2 + step) / (11 + step))",
                "with torch.no_grad():",
                "    torch._foreach_lerp_(average, [tensor.detach() for tensor in live], 1 - keep)",
            ]
        return "\n".join(line for line in lines if line)

    def _drawn(self, role: str, *, strong: bool = False) -> str:
        pool = f'pools["{role}"]' if strong else "pools[role]"
        augments = self.augments or strong
        function = "augment_strongly" if strong else "augment"
        if self.live:
            shown = f"{pool}[index] / 255"
            return f"below(normalise({f'{function}({shown}, generator)' if augments else shown}))"
        return f"draw({pool}, index, generator)" if augments else f"{pool}[index]"

    def _forward(self) -> list[str]:
        if self.strategy.batch_norm == "separate" and "source" in self.roles and len(self.roles) + self.strong > 1:
            kept = self.lifted.add(running_statistics_kept)
            return [
                "parts = {}",
                "# Each domain is normalised by its own statistics; those that are kept follow the target.",
                'for domain in (["source"], [role for role in inputs if role != "source"]):',
                f'    with {kept}(list(stages.values())) if domain == ["source"] else nullcontext(), half():',
                "        features = above(torch.cat([inputs[role] for role in domain]))",
                "    features = features.float()",
                "    halves = zip(features.split(BATCH), head(features).split(BATCH), strict=True)",
                "    parts |= dict(zip(domain, halves, strict=True))",
            ]
        return [
            "with half():",
            "    features = above(torch.cat(list(inputs.values()))).float()",
            "halves = zip(features.split(BATCH), head(features).split(BATCH), strict=True)",
            "parts = dict(zip(inputs, halves, strict=True))  # features and logits of each role",
        ]

    def _loss(self) -> list[str]:
        strategy = self.strategy
        more = ""
        if strategy.class_weights == "balanced":
            self.functions.append(CLASS_WEIGHTS)
            more += ", weight=class_weights(labels[role])"
        if strategy.label_smoothing:
            more += f", label_smoothing={strategy.label_smoothing}"
        lines = [f"loss = sum(F.cross_entropy(parts[role][1], known[role]{more}) for role in known)"]
        if self.loss is not None and not self.loss.gradient_free:
            source = 'Views(*parts["source"], known["source"])' if "source" in self.roles else "None"
            strong = ', None, parts["strong"][1]' if self.strong else ""
            lines += [
                f'distance = adapt({source}, Views(*parts["unlabelled"]{strong}), progress)',
                "loss = loss + adapt.config.weight * distance",
            ]
        if strategy.regulariser != "none":
            lines.append(
                "loss = loss + regularise.config.weight * regularise(torch.cat([part[0] for part in parts.values()]))"
            )
        return lines

    # --- after the last step ----------------------------------------------------------------------------------------

    def _end(self) -> str:
        lines = []
        if self.strategy.ema:
            lines += [
                "with torch.no_grad():",
                "    for tensor, mean in zip(live, average, strict=True):",
                "        tensor.copy_(mean)",
            ]
        if self.loss is not None and self.loss.recalibrates_norm:
            name = self.lifted.add(recalibrate_norm)
            lines += [
                "# Batch norm takes its statistics from the unlabelled images (AdaBN).",
                "above.eval()",
                "shuffled = torch.randperm(len(UNLABELLED), generator=torch.Generator().manual_seed(0))",
                "unlabelled = pixels(UNLABELLED)",
                "shown = (below(normalise(unlabelled[index].to(device) / 255)) for index in shuffled.split(256))",
                f"{name}(list(stages.values()), CUT, shown)",
            ]
        return "\n".join(lines)


_PROBABILITIES = """\
@torch.inference_mode()
def probabilities(names: list[str]) -> Tensor:
    above.eval()
    head.eval()
    shown, found = (normalise(batch.to(device) / 255) for batch in pixels(names).split(256)), []
    for batch in shown:
        with half():
            features = above(below(batch))
        found.append(head(features.float()).softmax(1).cpu())
    return torch.cat(found)
"""
