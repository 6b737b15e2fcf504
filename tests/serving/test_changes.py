"""New versions beside the old: through Ray Serve, one session for the module, under requests all the while."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import ray
from documented import undocumented
from test_deploy import free_port
from trials import Traffic, until, variant

from raytl.bundles import export_bundle
from raytl.core.errors import UserError
from raytl.serving import Endpoint, deploy, look, promote, rollback, rotate_token, try_out, undeploy
from raytl.serving.settings import bundle_version
from raytl.sources import load

pytestmark = pytest.mark.slow  # a Ray session and Serve take half a minute on two busy cores


@pytest.fixture(scope="module")
def endpoint(bundles) -> Iterator[Endpoint]:
    ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield deploy(bundles["first"], port=free_port(), max_replicas=1)
    undeploy()
    ray.shutdown()


@pytest.fixture(scope="module")
def variants(bundles, tmp_path_factory) -> dict[str, Path]:
    """The first bundle under other names."""
    folder = tmp_path_factory.mktemp("variants")
    names = ("again", "permuted")
    return {name: variant(bundles["first"], folder / name, permuted=name == "permuted") for name in names}


@pytest.fixture
def command(capsys) -> Callable[..., str]:
    """Runs a command of raytl in this process, whose Ray session it finds, and returns what it says."""
    from typer.main import get_command

    from raytl.cli.commands import app
    from raytl.cli.output import Output

    def run(*arguments: str) -> str:
        capsys.readouterr()
        Output.for_arguments(list(arguments))
        get_command(app)(list(arguments), prog_name="raytl", standalone_mode=False)
        return capsys.readouterr().out

    return run


def serving(endpoint: Endpoint) -> str:
    return httpx.get(f"{endpoint.url}/healthz", trust_env=False).json()["model"]


def test_rollback_puts_the_one_before_back_and_drops_no_request(endpoint, bundles, variants, png):
    with Traffic().to(endpoint, png) as traffic:
        time.sleep(0.3)
        deploy(bundles["second"], port=int(endpoint.url.rpartition(":")[2]), max_replicas=1)
        deploy(variants["again"], port=int(endpoint.url.rpartition(":")[2]), max_replicas=1)
        back = rollback()
        assert (back.version, serving(endpoint)) == (bundle_version(bundles["second"]), "second")
        rollback()
        assert serving(endpoint) == "first"
        rollback(to=bundle_version(variants["again"])[:6])
        assert serving(endpoint) == "again"
        rollback(to=bundle_version(bundles["first"]))
        time.sleep(0.3)
    assert traffic.failed == []
    assert traffic.models[0] == "first" == traffic.models[-1] and set(traffic.models) >= {"first", "second", "again"}
    assert sorted(one["model"] for one in look()["previous"]) == ["again", "second"]
    with pytest.raises(UserError, match="'nothing' is not the beginning of exactly one earlier version"):
        rollback(to="nothing")


def test_other_labels_are_refused_unless_told(endpoint, bundles, tmp_path):
    model = load("scratch:cnn-small", channels=1, image_size=32, seed=0)
    model.replace_head(2, ("iris", "poppy"), "linear")
    other = export_bundle(tmp_path / "other", model, metrics={}, provenance={})
    port = int(endpoint.url.rpartition(":")[2])
    for attempt in (lambda: deploy(other, port=port), lambda: try_out(other)):
        with pytest.raises(UserError, match=r"daisy, poppy, rose, tulip, and the new model with iris, poppy.*--new-la"):
            attempt()
    assert serving(endpoint) == "first"
    deploy(other, port=port, max_replicas=1, new_labels=True)
    assert serving(endpoint) == "other"
    rollback()
    assert serving(endpoint) == "first"


def test_a_shadow_answers_nobody_and_as_good_a_one_takes_over(endpoint, variants, png, command):
    with Traffic().to(endpoint, png) as traffic:
        tried = try_out(variants["again"], promote_after=100, max_slowdown=20)
        assert tried.candidate == bundle_version(variants["again"])
        known = until(lambda known: (known["comparison"] or {}).get("compared", 0) > 0)
        assert undocumented("endpoint status", known) == set()
        shown = command("endpoint", "status")
        assert "on trial (shadow)" in shown and tried.candidate in shown and tried.version in shown
        assert known["candidate"]["share"] == 0 and known["comparison"]["candidate"]["answered"] == 0
        before = len(traffic.models)
        assert set(traffic.models[:before]) == {"first"}
        known = until(lambda known: known["candidate"] is None)
        time.sleep(1)
    assert traffic.failed == []
    assert known["last_trial"]["promoted"] and "not worse" in known["last_trial"]["why"]
    assert known["last_trial"]["compared"] >= 100 and known["last_trial"]["disagreement"]["value"] == 0
    assert traffic.models[-1] == "again" == serving(endpoint)
    assert undocumented("endpoint status", known) == set()
    assert "was promoted: after" in command("endpoint", "status")
    assert f"answers with version {tried.version}" in command("rollback")
    assert serving(endpoint) == "first"


def test_permuted_labels_never_answer_more_than_their_share_and_are_taken_back(endpoint, variants, png):
    with Traffic().to(endpoint, png) as traffic:
        try_out(variants["permuted"], canary=0.2, promote_after=50, max_slowdown=20)
        known = until(lambda known: known["candidate"] is None)
        time.sleep(1)
    assert traffic.failed == []
    answered = Counter(traffic.models)
    assert 0 < answered["permuted"] <= 0.2 * sum(answered.values())
    assert not known["last_trial"]["promoted"] and "names another label in 100.0%" in known["last_trial"]["why"]
    assert set(traffic.models[-10:]) == {"first"} and serving(endpoint) == "first"


def test_people_can_promote_and_take_back(endpoint, bundles, variants):
    with pytest.raises(UserError, match="has no version on trial"):
        promote()
    try_out(variants["again"], canary=0.5)
    with pytest.raises(UserError, match="serves this very version"):
        try_out(bundles["first"])
    assert rollback().candidate == "" and serving(endpoint) == "first"
    assert look()["last_trial"]["promoted"] is False
    try_out(variants["again"], canary=0.5)
    assert promote().version == bundle_version(variants["again"]) and serving(endpoint) == "again"
    assert rollback().version == bundle_version(bundles["first"])


def test_a_bundle_that_fails_its_reference_predictions_is_not_tried(endpoint, bundles, tmp_path):
    broken = Path(shutil.copytree(bundles["first"], tmp_path / "broken"))
    manifest = json.loads((broken / "model.json").read_text())
    manifest["temperature"] = 9.0
    (broken / "model.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="fails its own reference predictions"):
        try_out(broken, canary=0.5)
    assert look()["candidate"] is None


def test_a_token_is_asked_for_and_changed_without_a_restart(endpoint, bundles, png, monkeypatch, tmp_path):
    monkeypatch.setenv("RAYTL_HOME", str(tmp_path))
    port = int(endpoint.url.rpartition(":")[2])
    with pytest.raises(UserError, match="asks for no token"):
        rotate_token()
    file = Path(deploy(bundles["first"], port=port, max_replicas=1, token=True).token_file)
    assert oct(file.stat().st_mode & 0o777) == "0o600"

    def ask(token: str | None) -> int:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return httpx.post(f"{endpoint.url}/v1/predict", content=png(0), headers=headers, trust_env=False).status_code

    old = file.read_text().strip()
    assert (ask(None), ask("wrong"), ask(old)) == (401, 401, 200)
    health = httpx.get(f"{endpoint.url}/healthz", trust_env=False)
    assert (health.status_code, health.json()) == (200, {"status": "ok"})
    assert old not in json.dumps(look())
    rotate_token()
    new = file.read_text().strip()
    assert new != old and (ask(old), ask(new)) == (401, 200)
    # Deployed again it keeps its token, asked for or not.
    assert deploy(bundles["second"], port=port, max_replicas=1).token_file == str(file)
    assert (ask(None), ask(new)) == (401, 200)
