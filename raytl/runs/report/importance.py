"""Which settings decided whether a strategy was among the best."""

from __future__ import annotations

import warnings
from typing import Any

import optuna
import pandas as pd
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from raytl.runs.leaderboard import settings_columns

QUANTILE = 0.25
METHOD = "PED-ANOVA (Optuna), share of what makes a strategy one of the best quarter"
_LEAST_STRATEGIES = 12  # below, the best quarter is a handful and the figure is noise


def importance(board: pd.DataFrame) -> dict[str, float]:
    """Importance of each varied setting, summing to 1, largest first; empty where there are too few strategies.

    Conditional PED-ANOVA (Watanabe et al., 2023; its extension to hierarchical spaces, 2026): how much the density of a
    setting among the best quarter differs from its density among all. Settings that only some strategies have are
    judged among those. It looks at nothing but membership in the best quarter, so that pruned trials, whose scores are
    from fewer epochs, take part as "not as good as those that were trained to the end".
    board: as :func:`raytl.runs.leaderboard.leaderboard` makes it.
    """
    rows = board[board["score"].notna() & board["status"].isin(["completed", "pruned"])]
    spread = float(rows["score"].max() - rows["score"].min()) + 1.0 if len(rows) else 0.0
    spaces = {name: space for name in settings_columns(board) if (space := _space(name, rows[name])) is not None}
    if len(rows) < _LEAST_STRATEGIES or not spaces:
        return {}
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(direction="maximize")
        for _, row in rows.iterrows():
            values = {name: _value(row[name], space) for name, space in spaces.items() if _present(name, row[name])}
            score = float(row["score"]) - (spread if row["status"] == "pruned" else 0.0)
            used = {name: spaces[name] for name in values}
            study.add_trial(optuna.trial.create_trial(params=values, distributions=used, value=score))
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", UserWarning
            )  # all scores equal: importances are equal, and the chart says so
            evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=QUANTILE)
            found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    finally:
        optuna.logging.set_verbosity(verbosity)
    return {name: float(share) for name, share in found.items()}


def _present(name: str, value: Any) -> bool:
    """Component settings (dotted) are absent where their component is; for the others nothing is a value of its own."""
    return "." not in name or not pd.isna(value)


def _space(name: str, values: pd.Series) -> BaseDistribution | None:
    """The range that was tried, or None for a setting that did not vary."""
    known = values.dropna()
    varied = known.nunique() + ("." not in name and len(known) < len(values))
    if varied < 2:
        return None
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values) and len(known) == len(values):
        return _range(known)
    if "." in name and pd.api.types.is_numeric_dtype(known) and not pd.api.types.is_bool_dtype(known):
        return _range(known)
    return CategoricalDistribution(sorted({_word(value) for value in values if _present(name, value)}))


def _range(known: pd.Series) -> FloatDistribution:
    low, high = float(known.min()), float(known.max())
    return FloatDistribution(low, high, log=low > 0 and high / low >= 30)


def _value(value: Any, space: BaseDistribution) -> Any:
    return float(value) if isinstance(space, FloatDistribution) else _word(value)


def _word(value: Any) -> str:
    return "none" if pd.isna(value) else str(value)
