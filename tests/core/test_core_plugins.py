"""Components from installed packages: found by their entry points in any process, and heard of where they fail."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from installed import install, run_python

from raytl.core.errors import UserError
from raytl.core.plugins import PluginWarning
from raytl.core.registry import Registry
from raytl.sources.base import Providers

ADD = "from plugs.registry import registry\nregistry.add('{name}', 7)\n"
PLUGIN = """
import numpy as np
from dataclasses import dataclass
from torch import nn
from raytl.adaptation.base import AdaptationConfig, AdaptationLoss, adaptation
from raytl.evaluation.validators import validator
from raytl.finetuning.regularisers import Regulariser, RegulariserConfig, regulariser
from raytl.sources.architectures.base import architecture, conv_norm_relu
from raytl.sources.providers.scratch import Scratch
from raytl.sources.base import provider
from raytl.sources.staging import Pool
from raytl.tasks.task import Role

@adaptation("mean-matching", config=AdaptationConfig, needs={Role.SOURCE_DOMAIN, Role.UNLABELLED})
class MeanMatching(AdaptationLoss):
    def forward(self, source, target, progress):
        return (source.features.mean(0) - target.features.mean(0)).square().sum()

@validator("margin", "unlabelled_probabilities")
def margin(probabilities):
    first, second = np.sort(probabilities, axis=1)[:, :-3:-1].T
    return float((first - second).mean())

@regulariser("feature-norm", config=RegulariserConfig)
class FeatureNorm(Regulariser):
    def __call__(self, features):
        return features.float().square().mean()

@architecture("cnn-tiny", image_size=32, min_size=16)
def cnn_tiny(channels):
    return [("stem", nn.Sequential(conv_norm_relu(channels, 8), Pool()))], 8

@provider("mine")
class Mine(Scratch):
    pass
"""
ENTRY_POINTS = """
[raytl.adaptation]
mean-matching = kit
[raytl.validators]
margin = kit:margin
[raytl.regularisers]
feature-norm = kit
[raytl.architectures]
cnn-tiny = kit
[raytl.providers]
mine = kit
"""
USE = """
from raytl import adaptation, sources
from raytl.evaluation import validators
from raytl.finetuning import regularisers
from raytl.sources.architectures.base import registry
from raytl.training import Strategy
assert adaptation.get("mean-matching").loss.__module__ == "kit"
assert {"mean-matching", "coral"} <= set(adaptation.names())
assert Strategy.from_dict({"source_model": "mine:cnn-tiny", "adaptation": "mean-matching", "adaptation.weight": 2.0})
assert "margin" in validators.names() and "feature-norm" in regularisers.names() and "cnn-tiny" in registry.names()
assert sources.load("scratch:cnn-tiny").feature_dim == sources.load("mine:cnn-tiny").feature_dim == 8
assert any(entry.uri == "scratch:cnn-tiny" for entry in sources.catalogue("mine"))
print("found")
"""
TRAIN = """
import sys, tiny
from pathlib import Path
from raytl.training import Strategy
from raytl.training.loop import run_trial
from raytl.training.trial import TrialJob
values = {"source_model": "mine:cnn-tiny", "adaptation": "mean-matching", "source_domain": "bright",
          "regulariser": "feature-norm"}
space = tiny.workspace(Path(sys.argv[1]), tiny.data())
result = run_trial(space, TrialJob(Strategy.from_dict(values)), lambda metrics: None)
print(0 < result.metrics["margin"] <= 1, "margin" in result.history[0])
"""


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry[int]]:
    """A registry of the package ``plugs``, whose only own component is ``coral``."""
    folder = tmp_path / "plugs"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "registry.py").write_text(
        "from raytl.core.registry import Registry\nregistry = Registry('plug', 'plugs')\n"
    )
    (folder / "coral.py").write_text(ADD.format(name="coral"))
    monkeypatch.syspath_prepend(str(tmp_path))
    known = set(sys.modules)
    from plugs.registry import registry

    yield registry
    for name in set(sys.modules) - known:
        del sys.modules[name]


Install = Callable[..., None]


@pytest.fixture
def add(tmp_path: Path) -> Install:
    """Installs a package; call it before the first look-up."""

    def one(package: str, name: str, source: str, *, module: str = "") -> None:
        module = module or package.replace("-", "_")
        install(tmp_path, package, {module: source}, f"[raytl.plugs]\n{name} = {module}\n")

    return one


class TestRegistry:
    def test_holds_what_installed_packages_announce(self, registry: Registry[int], add: Install) -> None:
        assert registry.group == "raytl.plugs"
        add("my-plugs", "mine", ADD.format(name="mine"))
        assert registry.names() == ["coral", "mine"] and registry.get("mine") == 7

    def test_says_who_brought_what_is_not_built_in(self, registry: Registry[int], add: Install) -> None:
        add("my-plugs", "mine", ADD.format(name="mine"))
        registry.add("here", 8)
        found = {name: registry.brought_by(name) for name in [*registry.names(), "nowhere"]}
        here = f"module '{registry._origins['here']}'"
        assert found == {"coral": None, "mine": "package 'my-plugs'", "here": here, "nowhere": None}

    def test_one_that_cannot_be_imported_is_a_warning_and_an_error_for_who_asks_for_it(
        self, registry: Registry[int], add: Install
    ) -> None:
        add("my-plugs", "mine", ADD.format(name="half") + "import a_module_that_is_not_there")
        with pytest.warns(PluginWarning, match="plug 'mine' of package 'my-plugs' cannot be imported from my_plugs"):
            assert registry.names() == ["coral"]
        with pytest.raises(UserError, match=r"'my-plugs'.*No module named 'a_module_that_is_not_there'"):
            registry.get("mine")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert registry.get("coral") == 7

    def test_one_that_registers_another_name_says_so(self, registry: Registry[int], add: Install) -> None:
        add("my-plugs", "mine", ADD.format(name="other"))
        with pytest.warns(PluginWarning):
            assert registry.names() == ["coral"]
        with pytest.raises(UserError, match="registers no plug of that name; the entry point of my-plugs"):
            registry.get("mine")

    def test_a_built_in_name_is_an_error_that_names_both(self, registry: Registry[int], add: Install) -> None:
        add("my-plugs", "coral", ADD.format(name="coral"))
        for _ in range(2):
            with pytest.raises(UserError, match=r"'coral' of package 'my-plugs' has the name of .*plugs\.coral"):
                registry.names()

    def test_a_built_in_name_under_another_announcement_is_refused_too(
        self, registry: Registry[int], add: Install
    ) -> None:
        add("my-plugs", "mine", ADD.format(name="coral"))
        with pytest.warns(PluginWarning, match=r"'coral' is registered twice, by plugs\.coral and by my_plugs"):
            assert registry.names() == ["coral"]

    def test_two_packages_with_one_name_are_an_error_that_names_both(
        self, registry: Registry[int], add: Install
    ) -> None:
        add("my-plugs", "mine", ADD.format(name="mine"))
        add("your-plugs", "mine", ADD.format(name="mine"))
        with pytest.raises(
            UserError, match=r"'mine' of package '.*-plugs' has the name of 'mine' of package '.*-plugs'"
        ):
            registry.names()

    def test_one_that_was_imported_before_is_no_clash(
        self, registry: Registry[int], add: Install, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        add("my-plugs", "mine", ADD.format(name="mine"))
        import my_plugs  # noqa: F401  # as its own tests do

        assert registry.names() == ["coral", "mine"]


class TestProviders:
    def test_a_built_in_name_is_an_error_that_names_both(self, registry: Registry[int], add: Install) -> None:
        add("my-plugs", "coral", "")
        with pytest.raises(
            UserError, match=r"provider 'coral' of package 'my-plugs' has .* built-in one \(plugs\.coral"
        ):
            Providers("plugs", "raytl.plugs").names()

    def test_one_that_cannot_be_imported_is_listed_nowhere(self, registry: Registry[int], add: Install) -> None:
        add("my-plugs", "mine", "1 / 0")
        providers = Providers("raytl.sources.providers", "raytl.plugs")
        assert "mine" in providers.names()
        with pytest.raises(
            UserError, match=r"source model provider 'mine' of package 'my-plugs' cannot .*ZeroDivision"
        ):
            providers.get("mine")


def test_every_kind_of_component_works_from_an_installed_package_in_any_process(tmp_path: Path) -> None:
    install(tmp_path, "raytl-kit", {"kit": PLUGIN}, ENTRY_POINTS)
    done = run_python(tmp_path, "-c", USE)
    assert done.stdout == "found\n", done.stderr


def test_a_trial_of_nothing_but_such_components_trains_and_is_measured_by_them(tmp_path: Path) -> None:
    install(tmp_path, "raytl-kit", {"kit": PLUGIN}, ENTRY_POINTS)
    done = run_python(tmp_path, "-c", TRAIN, str(tmp_path))
    assert done.stdout == "True False\n", done.stderr  # after the last epoch only: it is not declared to be cheap


def test_the_catalogue_and_the_command_line_go_on_without_a_package_that_fails(tmp_path: Path) -> None:
    install(tmp_path, "raytl-kit", {"kit": "1 / 0"}, ENTRY_POINTS)
    done = run_python(
        tmp_path,
        "-c",
        "import sys; sys.argv = ['raytl', 'sources', 'list', 'scratch']; from raytl.cli import main; main()",
    )
    assert done.returncode == 0 and "scratch:cnn-small" in done.stdout, done.stderr
    assert "raytl: left out: source model provider 'mine' of package 'raytl-kit' cannot be imported" in done.stderr
    assert "Traceback" not in done.stderr and ".py:" not in done.stderr
