"""Conformance suites: what a component must do before raytl can be trusted with it, to be run by pytest.

    from raytl.testing import AdaptationSuite

    class TestMine(AdaptationSuite):
        name = "mean-matching"

A class has the tests that apply to its component; where that is known only once they run, the others are skipped. One
that asks for what a component is rightly not meant to do is overridden in the class.
"""

import pytest

pytest.register_assert_rewrite(
    *(f"{__name__}.{suite}" for suite in ("adaptation", "regularisers", "sources", "validators"))
)

from raytl.testing.adaptation import AdaptationSuite  # noqa: E402  # their assertions are rewritten when imported
from raytl.testing.regularisers import RegulariserSuite  # noqa: E402
from raytl.testing.sources import ArchitectureSuite, SourceModelSuite  # noqa: E402
from raytl.testing.validators import ValidatorSuite  # noqa: E402

__all__ = ["AdaptationSuite", "ArchitectureSuite", "RegulariserSuite", "SourceModelSuite", "ValidatorSuite"]
