"""Deploying a winner by itself: where its figure is beyond doubt, and on trial only where a model is served already."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from raytl.api.models import Run, deploy, open_run
from raytl.core.errors import UserError
from raytl.evaluation import metrics
from raytl.evaluation.intervals import Interval
from raytl.evaluation.metrics import Metric
from raytl.runs import wording
from raytl.runs.parts import PARTS
from raytl.runs.run import interval
from raytl.serving import Endpoint, served, try_out
from raytl.serving.settings import bundle_version

CANARY = 0.05
"""Share of an endpoint's requests that a winner answers while it is on trial."""
PROMOTE_AFTER = 500
"""Compared requests after which it takes over where it is not worse."""
_FORM = re.compile(r"\s*([a-z0-9-]+)\s*(>=|<=)\s*([0-9.]+)\s*(%?)\s*")
_TRANSFERRED = ("source-model", "adaptation", "source-domain")


@dataclass(frozen=True)
class Condition:
    """What a model must reach, such as ``balanced-accuracy>=0.9``; of a loss, ``log-loss<=0.3``.

    bound: in the metric's own units (0.9, not 90).
    """

    metric: Metric
    bound: float

    @classmethod
    def parse(cls, text: str, metric: str | None = None) -> Condition:
        """From a user's words. metric: what the search goes by, where that was said too.

        Raises UserError for another form, an unknown metric, a bound that says nothing, or two metrics.
        """
        found = _FORM.fullmatch(text)
        if found is None:
            raise UserError(f"--deploy-when {text}: write it like balanced-accuracy>=0.9")
        named, sign, number, percent = metrics.get(found[1]), found[2], found[3], found[4]
        if metric is not None and metrics.get(metric) is not named:
            raise UserError(
                f"--deploy-when {text}: the search goes by {metrics.get(metric).name}, whose interval is the one that "
                "is known; ask for that, or leave --metric out"
            )
        if (sign == ">=") != named.higher_is_better:
            better = ">=" if named.higher_is_better else "<="
            raise UserError(f"--deploy-when {text}: {named.title} is to be {better} something")
        try:
            bound = float(number) / (100 if percent else 1)
        except ValueError:
            raise UserError(f"--deploy-when {text}: '{number}' is no number") from None
        if not named.limits[0] <= bound <= named.limits[1]:
            low, high = named.limits
            raise UserError(f"--deploy-when {text}: {named.title} lies between {low:g} and {high:g}")
        return cls(named, bound)

    def refusal(self, summary: dict[str, Any]) -> str | None:
        """Why the winner of a run is not to be deployed, in one sentence, or None where nothing speaks against it.

        summary: :meth:`raytl.runs.run.Run.summary`. It is the worse end of the 95 % interval that must reach the bound:
        on the test images where there are any, else that of the estimate corrected for the choice. Where a threshold
        decides, and the metric goes by what is decided, it is that of the decisions; without test images, by which
        alone these are judged fairly, the worse of the two.
        """
        best = summary["best"]
        if best is None or summary["status"] != "finished":
            return "not deployed: the search did not come to its end"
        if summary["metric"] != self.metric.name:
            return f"not deployed: the run goes by {metrics.get(summary['metric']).title}, not {self.metric.title}"
        for control in summary["controls"]:
            if control["part"] in _TRANSFERRED and control["verdict"] == "harm":
                return f"not deployed: {PARTS[control['part']].what.lower()} did harm; see the report for by how much"
        known = _figure(summary, self.metric)
        share = self.metric.share
        asked = f"the {wording.value(self.bound, share=share)} that --deploy-when asks for"
        if known is None:
            return f"not deployed: there are no labelled images to hold the model against {asked}"
        figure = f"{self.metric.title} {wording.value(known.value, share=share)}"
        figure += f" (95 % interval {wording.limits(known, share=share)})"
        worse = known.low if self.metric.higher_is_better else known.high
        if self._reaches(worse):
            return None
        if self._reaches(known.value):
            return (
                f"not deployed: {figure} is too wide an interval to tell that the model reaches {asked}; more labelled "
                "images make it narrower"
            )
        return f"not deployed: {figure} does not reach {asked}"

    def _reaches(self, value: float) -> bool:
        return value >= self.bound if self.metric.higher_is_better else value <= self.bound


def _figure(summary: dict[str, Any], metric: Metric) -> Interval | None:
    """What is known of the winner as it will answer; None where nothing is."""
    best, point = summary["best"], summary.get("operating_point")
    known = interval(best["test_metric"]) or interval(best["validation_metric"])
    if point is None or not metric.by_label or "metric" not in point:  # it is missing in runs of before
        return known
    if point.get("test"):
        return interval(point["test"]["metric"])
    decided = interval(point["metric"])
    return min((one for one in (known, decided) if one is not None), key=lambda one: one.low, default=None)


def deploy_when(
    run: Run | str | os.PathLike[str],
    condition: Condition | str,
    *,
    storage: str | os.PathLike[str] | None = None,
    name: str = "raytl",
    canary: float = CANARY,
    promote_after: int = PROMOTE_AFTER,
    notice: Callable[[str], None] | None = None,
    **options: Any,
) -> Endpoint:
    """Deploy the winner of a run if its figure is beyond doubt: ``deploy_when(run, "balanced-accuracy>=0.9")``.

    Where an endpoint of that name answers, the winner goes on trial beside its model, with the share ``canary`` of the
    requests, and takes over after ``promote_after`` compared ones if it is not worse (0: when somebody promotes it).
    All else of the endpoint stays; where the winner is served or on trial already, so does that, and another's trial
    goes on.
    Otherwise an endpoint is started, with ``options`` as in :func:`raytl.deploy`. notice: as there, in either case.
    Raises UserError that says in one sentence why it is not deployed.
    """
    opened = run if isinstance(run, Run) else open_run(os.fspath(run), storage)
    asked = Condition.parse(condition) if isinstance(condition, str) else condition
    refusal = asked.refusal(opened.summary())
    if refusal is not None:
        raise UserError(refusal)
    bundle = opened.best.bundle_path
    there = served(name)
    if there is None:
        return deploy(bundle, name=name, notice=notice, **options)
    version = bundle_version(bundle)
    if version in (there.version, there.candidate):
        return there
    if there.candidate:  # one after the other, or a quiet endpoint would never be done with any
        raise UserError(
            f"not deployed: version {there.candidate} is on trial at '{name}'; see raytl endpoint status, and end that "
            "with raytl endpoint promote or raytl rollback"
        )
    return try_out(bundle, name=name, canary=canary, promote_after=promote_after, notice=notice)
