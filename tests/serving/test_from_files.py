"""Changes of an endpoint that an operator began from the files in ``serve/``, which name a bundle and no version."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml
from listening import listening
from trials import variant

from raytl.core.errors import UserError
from raytl.serving import applying, changing, endpoint
from raytl.serving.applying import AppConfig, settings_of
from raytl.serving.http import create_http
from raytl.serving.ray_session import RaySession
from raytl.serving.service import Service
from raytl.serving.settings import ServingSettings, bundle_version

ROOT = Path(__file__).parents[2]


class OneReplica:
    """Serve with one application and one replica of it, which is this process."""

    def __init__(self, config: AppConfig, host: str, port: int, service: Service) -> None:
        self.host, self.port, self.service = host, port, service
        self.config = config

    @property
    def settings(self) -> dict[str, Any]:
        return settings_of(self.config)

    def configs(self) -> dict[str, AppConfig]:
        return {"raytl": self.config}

    def change(self, edit: Any) -> None:
        after = edit(self.configs())
        if after is not None:
            self.config = after["raytl"]
            asyncio.run(self.service.apply(ServingSettings.parse(self.settings)))

    def applications(self) -> dict[str, Any]:
        told = {"status": "RUNNING", "message": "", "deployments": {}, "deployed_app_config": self.config}
        return {"raytl": told}


@pytest.fixture
def first(bundles, tmp_path) -> Path:
    """What the file names, where it may be exported anew."""
    return Path(shutil.copytree(bundles["first"], tmp_path / "served"))


@pytest.fixture(params=["user_config", "args"])
def serve(request, first, monkeypatch) -> Iterator[OneReplica]:
    (config,) = yaml.safe_load((ROOT / "serve/one-machine.yaml").read_text())["applications"]
    if request.param == "args":
        del config["deployments"]
        config["args"] = {"bundle": str(first)}
    else:
        config["deployments"][0]["user_config"]["bundle"] = str(first)
    service = Service()
    asyncio.run(service.apply(ServingSettings.parse(settings_of(config))))
    session = RaySession(detached=True, head=None)
    with listening(create_http(service)) as (host, port):
        one = OneReplica(config, host, port, service)
        monkeypatch.setattr(changing, "_endpoint", lambda name: nullcontext((one, session, one.config)))
        monkeypatch.setattr(endpoint, "session", lambda start: nullcontext(session))
        monkeypatch.setattr(endpoint.Serve, "running", lambda: one)
        for module in (changing, endpoint):
            monkeypatch.setattr(module, "snapshot", lambda bundle, *_: bundle)
        for name in ("start_judge", "stop_judge"):  # actors of a cluster
            monkeypatch.setattr(changing, name, lambda *_: None)
        monkeypatch.setattr(changing, "figures_of", lambda trial: None)
        monkeypatch.setattr(applying, "drop_unused_snapshots", lambda serve: None)
        yield one
    service.close()


def test_a_version_is_tried_beside_it_and_taken_back(serve, first, bundles):
    changing.try_out(bundles["second"], canary=0.05, promote_after=500)
    assert serve.settings["version"] == bundle_version(first) and serve.settings["model"] == "served"
    assert serve.service.trial is not None and serve.service.live.name == "served"
    changing.rollback()
    assert serve.service.trial is None and serve.settings["last_trial"]["promoted"] is False


def test_what_takes_its_place_can_be_rolled_back(serve, first, bundles):
    endpoint.update(bundles["second"])
    assert serve.service.live.name == "second"
    assert [one["model"] for one in serve.settings["previous"]] == ["served"]
    changing.rollback()
    assert serve.service.live.version == bundle_version(first)


def test_no_other_bundle_is_taken_for_the_one_that_answers(serve, first, bundles, tmp_path):
    """Replicas that run go on with what they have loaded, whatever lies there by now."""
    answering = bundle_version(first)
    shutil.copytree(variant(bundles["first"], tmp_path / "anew"), first, dirs_exist_ok=True)
    with pytest.raises(UserError, match=r"does not say which version it serves, and .* does not hold that any more"):
        changing.try_out(bundles["second"])
    assert serve.service.live.version == answering and "candidate" not in serve.settings
    endpoint.update(bundles["second"])
    assert serve.service.live.name == "second" and not serve.settings["previous"]


def test_going_back_to_other_labels_is_refused_unless_told(serve, bundles, tmp_path):
    other = variant(bundles["first"], tmp_path / "permuted", permuted=True)
    endpoint.update(other, new_labels=True)
    with pytest.raises(UserError, match=r"in this order, and version .* add --new-labels if its callers know"):
        changing.rollback()
    assert serve.service.live.name == "permuted"
    changing.rollback(new_labels=True)
    assert serve.service.live.name == "served"
