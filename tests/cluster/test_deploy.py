"""The manifests of deploy/: valid against the API's schemas, and true to the library."""

import warnings
from pathlib import Path

import pytest
import yaml

from asearch.cli import parser

DEPLOY = Path(__file__).parents[2] / "deploy"
DOCUMENTS = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))


def of_kind(kind):
    return [document for document in DOCUMENTS if document["kind"] == kind]


@pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda document: f"{document['kind']} {document['metadata']['name']}"
)
def test_kubernetes_takes_it(document):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        validator = pytest.importorskip("kubernetes_validate")
        validator.validate(document, validator.latest_version(), strict=True)


def test_every_service_is_headless_and_finds_its_pods():
    pods = {tuple(d["spec"]["template"]["metadata"]["labels"].items()): d for d in of_kind("Deployment")}
    for service in of_kind("Service"):
        assert service["spec"]["clusterIP"] == "None"  # so that the name has the address of every replica
        (container,) = pods[tuple(service["spec"]["selector"].items())]["spec"]["template"]["spec"]["containers"]
        ports = [port["containerPort"] for port in container["ports"]]
        assert [port["port"] for port in service["spec"]["ports"]] == ports
        assert container["readinessProbe"]["httpGet"]["port"] in ports


def test_the_job_is_a_command_that_there_is_and_asks_the_services():
    (job,) = of_kind("Job")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    arguments = parser().parse_args(container["args"])
    names = {service["metadata"]["name"]: service["spec"]["ports"][0]["port"] for service in of_kind("Service")}
    assert arguments.policy == f"dns+http://policy:{names['policy']}"
    assert arguments.prm == f"dns+http://prm:{names['prm']}"
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert any(arguments.out.startswith(f"{path}/") for path in mounts)


def test_no_secret_is_written_down():
    for document in (*of_kind("Deployment"), *of_kind("Job")):
        for container in document["spec"]["template"]["spec"]["containers"]:
            for variable in container.get("env", ()):
                assert "TOKEN" not in variable["name"] or "valueFrom" in variable
