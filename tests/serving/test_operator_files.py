"""What an operator deploys is valid by the schemas of the Ray that is installed, and names what raytl has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.serve.schema import ServeDeploySchema

from raytl.serving.app import build_app
from raytl.serving.ingress import PROXY_CHECKS, SWITCHES
from raytl.serving.settings import DEPLOYMENT, IMPORT_PATH, ServingSettings

ROOT = Path(__file__).parents[2]


def read(path: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / path).read_text())


def serve_config(path: str) -> dict[str, Any]:
    document = read(path)
    return yaml.safe_load(document["spec"]["serveConfigV2"]) if "spec" in document else document


@pytest.mark.parametrize(
    "path", ["serve/one-machine.yaml", "serve/gpu-autoscaling.yaml", "serve/kuberay-rayservice.yaml"]
)
class TestServeConfigs:
    def test_serve_accepts_it_and_knows_every_key(self, path):
        config = serve_config(path)
        parsed = ServeDeploySchema.model_validate(config).model_dump(exclude_unset=True, mode="json")
        # Serve's schemas ignore keys that they do not know: what was ignored is missing in what was parsed.
        assert missing_keys(config, parsed) == []

    def test_the_application_is_ours(self, path):
        (application,) = serve_config(path)["applications"]
        (deployment,) = application["deployments"]
        assert (application["import_path"], deployment["name"]) == (IMPORT_PATH, DEPLOYMENT)
        assert ServingSettings.parse(deployment["user_config"]).bundle.startswith("/")

    def test_it_says_where_it_listens(self, path):
        # Serve's own default in a config file is all interfaces; that must be somebody's decision.
        assert "host" in serve_config(path)["http_options"]


def missing_keys(given: Any, parsed: Any, where: str = "") -> list[str]:
    if isinstance(given, dict):
        return [
            problem
            for key, value in given.items()
            for problem in (missing_keys(value, parsed[key], f"{where}.{key}") if key in parsed else [f"{where}.{key}"])
        ]
    if isinstance(given, list):
        pairs = enumerate(zip(given, parsed, strict=True))
        return [problem for i, (a, b) in pairs for problem in missing_keys(a, b, f"{where}[{i}]")]
    return []


def test_one_machine_stays_on_loopback():
    assert serve_config("serve/one-machine.yaml")["http_options"]["host"] == "127.0.0.1"


def test_the_builder_takes_the_settings_as_args():
    deployment = build_app({"bundle": "/models/flowers", "max_images": 3})._bound_deployment
    assert deployment.name == DEPLOYMENT
    assert deployment.user_config == {"bundle": "/models/flowers", "max_images": 3}


KUBERAY = [f"serve/kuberay-{kind}.yaml" for kind in ("raycluster", "rayjob", "rayservice")]


@pytest.mark.parametrize("path", KUBERAY)
class TestKubeRay:
    def test_the_operator_accepts_it_and_knows_every_key(self, path):
        assert refused(read(path)) == []

    def test_what_it_would_not_know_is_found(self, path):
        document = read(path)
        cluster = next(
            part for part in (document["spec"].get("rayClusterSpec"), document["spec"].get("rayClusterConfig"),
                              document["spec"]) if part is not None and "headGroupSpec" in part
        )  # fmt: skip
        cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["imagge"] = "typo"
        cluster["authOptions"]["mode"] = "tocken"
        assert len(refused(document)) == 2


def refused(document: dict[str, Any]) -> list[str]:
    """What KubeRay's own schema has against a resource."""
    schemas = json.loads((Path(__file__).parent / "kuberay" / "schemas.json").read_text())
    assert document["apiVersion"] == "ray.io/v1"
    validator = jsonschema.Draft202012Validator(schemas["kinds"][document["kind"]] | {"$defs": schemas["$defs"]})
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]


@pytest.mark.parametrize("path", KUBERAY)
def test_kuberay_clusters_ask_for_a_token_and_run_this_ray(path):
    spec = read(path)["spec"]
    cluster = spec.get("rayClusterConfig") or spec.get("rayClusterSpec") or spec
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["rayVersion"] == ray.__version__
    assert cluster["enableInTreeAutoscaling"] is True


def test_kuberay_pods_have_the_fast_request_path():
    groups = read("serve/kuberay-rayservice.yaml")["spec"]["rayClusterConfig"]
    for group in (groups["headGroupSpec"], *groups["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        values = {entry["name"]: entry["value"] for entry in container["env"]}
        assert {name: values.get(name) for name in SWITCHES | PROXY_CHECKS} == SWITCHES | PROXY_CHECKS
        assert values["RAY_SERVE_HAPROXY_BINARY_PATH"].endswith("/bin/raytl-haproxy")


def test_the_environment_file_sets_what_deploy_sets():
    lines = (ROOT / "serve" / "haproxy.env").read_text().splitlines()
    values = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    told = {name: values.get(name, "").strip("'") for name in SWITCHES | PROXY_CHECKS}
    assert told == SWITCHES | PROXY_CHECKS


@pytest.mark.parametrize("path", ["cluster.yaml", "cluster-onpremise.yaml"])
class TestClusters:
    def test_the_launcher_accepts_it(self, path):
        schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
        # As `ray up` does: of one's own machines it makes the node types.
        cluster = prepare_config(read(path))
        jsonschema.validate(cluster, schema)
        validate_config(cluster)

    def test_no_nightly_ray_and_no_open_dashboard(self, path):
        cluster = read(path)
        commands = " ".join(cluster["setup_commands"] + cluster["head_setup_commands"])
        assert "ray-wheels" not in commands and f"ray[default]=={ray.__version__.rpartition('.')[0]}.*" in commands
        start = " ".join(cluster["head_start_ray_commands"])
        assert "--dashboard-host=127.0.0.1" in start and "0.0.0.0" not in start

    def test_the_token_is_there_before_ray_is_and_for_its_owner_only(self, path):
        cluster = read(path)
        assert "~/.ray/auth_token" in cluster["file_mounts"]
        assert "chmod 600 ~/.ray/auth_token" in cluster["setup_commands"]

    def test_jobs_find_the_python_that_raytl_is_in(self, path):
        cluster = read(path)
        for command in (cluster["head_start_ray_commands"][-1], cluster["worker_start_ray_commands"][-1]):
            assert 'PATH="$HOME/raytl/bin:$PATH" ray start' in command


def test_gpu_workers_are_spot_and_come_and_go():
    worker = read("cluster.yaml")["available_node_types"]["gpu-spot"]
    assert worker["min_workers"] == 0 < worker["max_workers"]
    assert worker["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}


def test_as_many_replicas_fit_a_gpu_node_as_share_its_gpu():
    (application,) = serve_config("serve/gpu-autoscaling.yaml")["applications"]
    asked = application["deployments"][0]["ray_actor_options"]
    kuberay = read("serve/kuberay-raycluster.yaml")["spec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]
    for cpus in (
        read("cluster.yaml")["available_node_types"]["gpu-spot"]["resources"]["CPU"],
        int(kuberay["resources"]["limits"]["cpu"]),
    ):
        assert cpus / asked["num_cpus"] >= 1 / asked["num_gpus"] == 4


def test_a_job_on_kubernetes_does_not_keep_its_gpus_after_its_end():
    """ttlSecondsAfterFinished is how long the cluster stays; the object stays whatever it says."""
    spec = read("serve/kuberay-rayjob.yaml")["spec"]
    assert spec["shutdownAfterJobFinishes"] is True and not spec.get("ttlSecondsAfterFinished")


def test_an_endpoint_on_kubernetes_needs_no_feature_that_is_off_by_default():
    strategy = read("serve/kuberay-rayservice.yaml")["spec"]["upgradeStrategy"]
    assert strategy == {"type": "NewCluster"}


def test_searches_on_clusters_whose_gpu_nodes_come_later_ask_for_gpus():
    for path in ("cluster.yaml", "serve/kuberay-raycluster.yaml", "serve/kuberay-rayjob.yaml"):
        lines = (ROOT / path).read_text().splitlines()
        commands = [line for line in lines if "raytl submit" in line or "raytl search" in line]
        assert commands and all("--gpus-per-trial 1" in command for command in commands), path


def test_names_of_images_that_the_head_must_be_allowed_to_read_come_with_the_command_that_allows_it():
    text = (ROOT / "cluster.yaml").read_text()
    for told in (text, (ROOT / "docs" / "clusters.md").read_text()):
        assert ("resolve:ssm:" in told) == ("AmazonSSMReadOnlyAccess" in told)
