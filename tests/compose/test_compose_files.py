"""The compose files: valid for Compose itself where it is installed, and what they promise in any case."""

import itertools
import shutil
import subprocess

import pytest
import yaml

from asearch.cli import parser
from asearch_backends.embedded.__main__ import _server_parser
from asearch_backends.prm.__main__ import _parser as prm_parser
from compose.stack import BASE, COMPOSE, DIRECT, PROFILES, TWO_GPUS, services, settings, variables

OVERRIDES = [(), (DIRECT,), (TWO_GPUS, DIRECT)]
ALL = services()
SERVERS = [name for name in ALL if name != "models"]


def composer():
    """The command of Compose, whichever version there is; None where there is none."""
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    if (
        shutil.which("docker")
        and not subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode
    ):
        return ["docker", "compose"]
    return None


@pytest.fixture(scope="module")
def compose():
    command = composer()
    if command is None:
        pytest.skip("needs docker-compose, or docker with its compose plugin")
    return command


@pytest.mark.parametrize("overrides", OVERRIDES, ids=lambda names: "+".join(names) or "alone")
@pytest.mark.parametrize("profile", PROFILES)
def test_compose_takes_them_and_reads_what_we_read(compose, profile, overrides):
    files = [option for name in (BASE, *overrides) for option in ("-f", name)]
    command = [*compose, *files, "--env-file", "example.env", "--profile", profile, "config"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=COMPOSE, check=False)
    assert done.returncode == 0, done.stderr
    theirs = yaml.safe_load(done.stdout)["services"]
    for name, options in services(*overrides, profile=profile).items():
        for key in ("command", "image", "user"):
            assert theirs[name].get(key) == options.get(key), (name, key)
        given = {key: value or "" for key, value in (theirs[name].get("environment") or {}).items()}
        assert given == options.get("environment", {}), name


def test_example_env_names_every_variable_with_its_default():
    known = {name for name, _ in settings()}
    used = set().union(*(variables(name) for name in (BASE, DIRECT, TWO_GPUS)))
    defaults = dict(variables(BASE) | variables(DIRECT))
    assert {name for name, _ in used} - known == {"PIP_INDEX_URL", "PIP_TRUSTED_HOST", "POLICY_INPUT"}
    for name, value in settings():
        if name not in ("COMPOSE_FILE", "COMPOSE_PROFILES", "COMPOSE_PROJECT_NAME"):
            assert value == defaults[name], name


@pytest.mark.parametrize("name", ALL)
def test_no_service_has_more_rights_than_it_needs(name):
    service = ALL[name]
    assert service["user"].split(":")[0] == "2000"
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert all(str(volume).startswith("models:") for volume in service.get("volumes", []))


@pytest.mark.parametrize("name", SERVERS)
def test_every_server_is_watched_and_comes_back(name):
    assert ALL[name]["restart"] == "unless-stopped"
    check = ALL[name]["healthcheck"]
    assert check["test"][0] == "CMD"
    assert "/health" in " ".join(check["test"])
    assert check["retries"] >= 3
    assert ALL[name]["profiles"] in [[profile] for profile in PROFILES]


@pytest.mark.parametrize("profile", PROFILES)
def test_they_start_when_what_they_need_is_well(profile):
    stack = services(profile=profile)
    (proxy,) = [name for name in stack if name.startswith("proxy")]
    needs = stack[proxy]["depends_on"]
    assert needs == {name: {"condition": "service_healthy"} for name in stack if name.startswith(("policy", "prm"))}
    command = " ".join(stack[proxy]["command"])
    assert all(f"dns+http://{name}:8000" in command for name in needs)  # every replica of a scaled service
    if profile != "cpu":  # on a shared GPU one measures the free memory after the other
        (policy, prm) = sorted(needs)
        assert stack[prm]["depends_on"][policy] == {"condition": "service_healthy"}
        assert stack[policy]["depends_on"]["models"] == {"condition": "service_completed_successfully"}


def test_only_the_proxy_has_a_port_and_only_on_this_machine():
    for name, service in ALL.items():
        ports = service.get("ports", [])
        assert len(ports) == name.startswith("proxy"), name  # a fixed port could not be scaled
        assert all(port.startswith("127.0.0.1:") for port in ports)
        assert "container_name" not in service
    for service in services(DIRECT).values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def option(command, name):
    """The value of --name=value in a command."""
    (value,) = [word.split("=", 1)[1] for word in command if word.startswith(f"--{name}=")]
    return value


@pytest.mark.parametrize(
    ("policy", "share"), [("policy-vllm", "gpu-memory-utilization"), ("policy-tgi", "cuda-memory-fraction")]
)
def test_a_shared_gpu_is_shared(policy, share):
    prm = policy.replace("policy", "prm")
    assert ALL[policy]["environment"]["CUDA_VISIBLE_DEVICES"] == ALL[prm]["environment"]["CUDA_VISIBLE_DEVICES"]
    both = float(option(ALL[policy]["command"], share))
    both += float(option(ALL[prm]["command"], share)) if prm == "prm-vllm" else 0.72
    assert both <= 0.93


def test_two_gpus_change_nothing_but_where_and_how_much():
    pairs = services(TWO_GPUS)
    for policy, prm in (("policy-vllm", "prm-vllm"), ("policy-tgi", "prm-tgi")):
        assert pairs[policy]["environment"]["CUDA_VISIBLE_DEVICES"] == "0"
        assert pairs[prm]["environment"]["CUDA_VISIBLE_DEVICES"] == "1"
    for name, service in pairs.items():
        changed = [
            (a, b) for a, b in itertools.zip_longest(ALL[name].get("command", []), service.get("command", [])) if a != b
        ]
        assert all(a.split("=")[0] == b.split("=")[0] and "memory" in a for a, b in changed), name
        rest = {key for key in service if key not in ("command", "environment") and service[key] != ALL[name][key]}
        assert not rest


def test_official_images_are_pinned():
    assert ALL["policy-vllm"]["image"] == ALL["prm-vllm"]["image"] == "vllm/vllm-openai:v0.32.0"
    base = ALL["policy-tgi"]["build"]["args"]["TGI_IMAGE"]
    assert base in (COMPOSE / "Dockerfile.tgi").read_text()
    for name in {service["image"] for service in ALL.values()} | {base}:
        assert ":" in name.rsplit("/", 1)[-1]
        assert not name.endswith(":latest")


@pytest.mark.parametrize("name", SERVERS)
def test_our_own_programs_know_the_options_they_are_given(name):
    command = ALL[name]["command"]
    if command[0] == "asearch":
        parser().parse_args(command[1:])
    elif "asearch_backends.embedded" in command:
        _server_parser().parse_args(command[3:])
    elif name == "prm-tgi":  # its image begins with the program
        prm_parser().parse_args(command)
    else:
        assert name in ("policy-vllm", "prm-vllm", "policy-tgi")  # others' programs: see tests/vllm
