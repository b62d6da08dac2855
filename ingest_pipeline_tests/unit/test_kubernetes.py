"""deploy/kubernetes: the fields are Kubernetes', and a run's pod gets resources, grace period and no rights."""

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import dagster as dg
import pytest
import yaml
from dagster._config import process_config, resolve_to_config_type
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.launcher import LaunchRunContext
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster_k8s import K8sRunLauncher
from dagster_k8s.models import k8s_model_from_dict, k8s_snake_case_dict
from kubernetes import client

from ingest_pipeline.core.errors import SettingsError
from ingest_pipeline.orchestration.build import build_definitions
from ingest_pipeline.orchestration.tags import kubernetes_tags
from ingest_pipeline.settings import load_settings
from ingest_pipeline.streams import STREAMS

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
VALUES: dict[str, Any] = yaml.safe_load((FOLDER / "values.yaml").read_text())
RESOURCES = list(yaml.safe_load_all((FOLDER / "resources.yaml").read_text()))
(CODE,) = VALUES["dagster-user-deployments"]["deployments"]
LAUNCHER = VALUES["runLauncher"]["config"]["k8sRunLauncher"]
DEPLOYMENTS = {"code": CODE, "daemon": VALUES["dagsterDaemon"], "webserver": VALUES["dagsterWebserver"]}
MODELS = {
    "podSecurityContext": client.V1PodSecurityContext,
    "securityContext": client.V1SecurityContext,
    "resources": client.V1ResourceRequirements,
    "startupProbe": client.V1Probe,
    "readinessProbe": client.V1Probe,
    "livenessProbe": client.V1Probe,
}
KINDS = {
    "ConfigMap": client.V1ConfigMap,
    "Secret": client.V1Secret,
    "NetworkPolicy": client.V1NetworkPolicy,
    "PodDisruptionBudget": client.V1PodDisruptionBudget,
}
CHART = {  # keys of the chart that Kubernetes does not know
    *("name", "image", "codeServerArgs", "port", "includeConfigInLaunchedRuns", "envConfigMaps", "envSecrets"),
    *("volumes", "volumeMounts", "runCoordinator", "runMonitoring", "runRetries", "sensors", "service"),
}


def of_kubernetes(model: type, value: dict[str, Any]) -> Any:
    """The value as an object of the Kubernetes client, which refuses an unknown field."""
    return k8s_model_from_dict(model, k8s_snake_case_dict(model, value))


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_fields_of_the_deployments_are_those_of_kubernetes(name: str) -> None:
    deployment = DEPLOYMENTS[name]
    assert deployment.keys() - CHART == MODELS.keys() - ({"readinessProbe"} if name == "daemon" else set())
    for field, model in MODELS.items():
        value = {key: item for key, item in deployment.get(field, {}).items() if key != "enabled"}
        of_kubernetes(model, value)
    for volume in deployment["volumes"]:
        of_kubernetes(client.V1Volume, volume)
    for mount in deployment["volumeMounts"]:
        of_kubernetes(client.V1VolumeMount, mount)


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_deployments_have_no_root_and_no_rights(name: str) -> None:
    deployment = DEPLOYMENTS[name]
    assert deployment["podSecurityContext"]["runAsNonRoot"] is True
    assert deployment["securityContext"] == {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert deployment["image"]["tag"] != "latest"


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource["metadata"]["name"])
def test_resources_are_those_of_kubernetes(resource: dict[str, Any]) -> None:
    made = of_kubernetes(KINDS[resource["kind"]], resource)
    assert made.metadata.name == resource["metadata"]["name"]


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(Exception, match="podSelectors"):
        of_kubernetes(client.V1NetworkPolicy, {"spec": {"podSelectors": {}}})


def environment() -> dict[str, str]:
    """What a pod gets from the ConfigMap and the Secret that the values name."""
    named = {item["name"] for item in [*CODE["envConfigMaps"], *CODE["envSecrets"]]}
    used = [resource for resource in RESOURCES if resource["metadata"]["name"] in named]
    assert {resource["kind"] for resource in used} == {"ConfigMap", "Secret"}
    return {
        key: text
        for resource in used
        for key, text in {**resource.get("data", {}), **resource.get("stringData", {})}.items()
    }


def test_the_settings_are_valid_and_the_password_is_that_of_the_storage() -> None:
    settings = load_settings([stream.name for stream in STREAMS], environment())
    assert settings.for_job("price").run_memory == "512Mi"
    (storage,) = [
        resource for resource in RESOURCES if resource["metadata"]["name"] == VALUES["global"]["postgresqlSecretName"]
    ]
    assert storage["stringData"].keys() == {"postgresql-password"}


def test_dagsters_settings_are_those_of_the_other_deployments() -> None:
    settings, daemon = yaml.safe_load((FOLDER.parent / "dagster.yaml").read_text()), VALUES["dagsterDaemon"]
    retention = {
        kind: {"purge_after_days": VALUES["retention"][kind]["purgeAfterDays"]} for kind in ("sensor", "schedule")
    }
    assert retention == settings["retention"]
    sensors = {"use_threads": daemon["sensors"]["useThreads"], "num_workers": daemon["sensors"]["numWorkers"]}
    assert sensors == settings["sensors"]
    monitoring = {
        "start_timeout_seconds": daemon["runMonitoring"]["startTimeoutSeconds"],
        "poll_interval_seconds": daemon["runMonitoring"]["pollIntervalSeconds"],
    }
    assert monitoring.items() <= settings["run_monitoring"].items()


KUBECONFIG = """
clusters: [{name: none, cluster: {server: "http://127.0.0.1:9"}}]
contexts: [{name: none, context: {cluster: none, user: none}}]
users: [{name: none, user: {}}]
current-context: none
"""


def launched(folder: Path, **environ: str) -> client.V1Job:
    """The Kubernetes job that the chart's launcher makes for a run of the job drain_price."""
    settings = load_settings([stream.name for stream in STREAMS], {**environment(), **environ})
    tags = build_definitions(STREAMS, settings).resolve_job_def("drain_price").run_tags
    (folder / "kubeconfig").write_text(KUBECONFIG)
    config = {
        "service_account_name": "dagster",
        "instance_config_map": "dagster-instance",
        "dagster_home": "/opt/dagster/dagster_home",
        "load_incluster_config": False,
        "kubeconfig_file": str(folder / "kubeconfig"),
        "image_pull_policy": LAUNCHER["imagePullPolicy"],
        "security_context": LAUNCHER["securityContext"],
        "run_k8s_config": {
            "pod_spec_config": LAUNCHER["runK8sConfig"]["podSpecConfig"],
            "job_spec_config": LAUNCHER["runK8sConfig"]["jobSpecConfig"],
        },
    }
    checked = process_config(resolve_to_config_type(K8sRunLauncher.config_type()), config)
    assert checked.value is not None, checked.errors
    api = Mock()
    launcher = K8sRunLauncher(**{**checked.value, "k8s_client_batch_api": api, "k8s_client_core_api": Mock()})
    location = {
        "env_config_maps": [item["name"] for item in CODE["envConfigMaps"]],
        "env_secrets": [item["name"] for item in CODE["envSecrets"]],
        **{"resources": CODE["resources"], "volumes": CODE["volumes"], "volume_mounts": CODE["volumeMounts"]},
    }
    pointer = ModuleCodePointer("ingest_pipeline.definitions", "defs")
    image = f"{CODE['image']['repository']}:{CODE['image']['tag']}"
    origin = RepositoryPythonOrigin("python", pointer, container_image=image, container_context={"k8s": location})
    with dg.DagsterInstance.local_temp(str(folder)) as instance:
        launcher.register_instance(instance)
        run = dg.DagsterRun("drain_price", tags=tags, job_code_origin=JobPythonOrigin("drain_price", origin))
        launcher.launch_run(LaunchRunContext(instance.add_run(run), None))
    job: client.V1Job = api.create_namespaced_job.call_args.kwargs["body"]
    return job


def test_the_pod_of_a_run_ends_politely_and_has_no_rights(tmp_path: Path) -> None:
    job = launched(tmp_path, PRICE_RUN_CPU="1500m", PRICE_RUN_MEMORY="1Gi")
    pod = job.spec.template.spec
    (container,) = pod.containers
    assert container.resources.requests == {"cpu": "1500m", "memory": "1Gi"}
    assert container.resources.limits == {"memory": "1Gi"}
    assert pod.termination_grace_period_seconds == 60
    assert pod.security_context.run_as_non_root is True
    assert container.security_context.read_only_root_filesystem is True
    assert container.security_context.capabilities.drop == ["ALL"]
    assert container.command is None, "the image's entry point passes SIGTERM on"
    assert container.args[:5] == ["python", "-m", "dagster", "api", "execute_run"]
    assert job.spec.backoff_limit == 0, "the sensor launches again, Kubernetes does not"
    assert {source.config_map_ref.name for source in container.env_from if source.config_map_ref} >= {"ingest-settings"}
    assert {source.secret_ref.name for source in container.env_from if source.secret_ref} == {"ingest-secrets"}
    assert "/tmp" in [mount.mount_path for mount in container.volume_mounts]
    policy = next(resource for resource in RESOURCES if resource["metadata"]["name"] == "ingest-runs")
    labels = job.spec.template.metadata.labels
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    budget = next(resource for resource in RESOURCES if resource["kind"] == "PodDisruptionBudget")
    assert not budget["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_a_job_without_settings_has_no_tag() -> None:
    settings = load_settings([stream.name for stream in STREAMS], {})
    assert kubernetes_tags(settings.for_job("price")) == {}


@pytest.mark.parametrize("text", ["512 Mi", "1,5", "-1", "Mi", "1e3Mi"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="PRICE_RUN_MEMORY must be a quantity of Kubernetes"):
        load_settings(["price"], {"PRICE_RUN_MEMORY": text})
