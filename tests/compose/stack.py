"""The compose files as data, as Compose reads them: merged, with variables filled in."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "compose"
BASE, DIRECT, TWO_GPUS = "compose.yaml", "compose.direct.yaml", "compose.two-gpus.yaml"
PROFILES = ("cpu", "vllm", "tgi")
VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


def services(*overrides, environment=None, profile=None):
    """The services of the base file with overrides on top, as Compose merges what these files use: commands are
    replaced, environments and everything else that is a mapping are merged.
    """
    merged: dict = {}
    for name in (BASE, *overrides):
        document = yaml.safe_load((COMPOSE / name).read_text())
        for service, options in document["services"].items():
            merged[service] = merge(merged.get(service, {}), filled(options, environment or {}))
    return {name: options for name, options in merged.items() if profile is None or profile in options["profiles"]}


def merge(below, above):
    """Mappings key by key; anything else is replaced."""
    if isinstance(below, dict) and isinstance(above, dict):
        return {**below, **{key: merge(below.get(key), value) for key, value in above.items()}}
    return above


def filled(value, environment):
    """With variables replaced by their values, or their defaults."""
    if isinstance(value, dict):
        return {key: filled(item, environment) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item, environment) for item in value]
    if isinstance(value, str):
        return VARIABLE.sub(lambda match: environment.get(match[1]) or match[2] or "", value)
    return value


def variables(name):
    """The variables of a file: (name, default) pairs."""
    return set(VARIABLE.findall((COMPOSE / name).read_text()))


def settings():
    """The assignments of example.env, those that are commented out, too."""
    return re.findall(r"^#?([A-Z_]+)=(.*)$", (COMPOSE / "example.env").read_text(), re.MULTILINE)
