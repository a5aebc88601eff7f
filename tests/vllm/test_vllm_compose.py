"""What the compose files ask of vLLM: its own parser takes every option."""

import pytest
import yaml

from compose.stack import BASE, TWO_GPUS, services

pytestmark = pytest.mark.vllm


@pytest.mark.parametrize("files", [(), (TWO_GPUS,)], ids=[BASE, TWO_GPUS])
@pytest.mark.parametrize("name", ["policy-vllm", "prm-vllm"])
def test_options_are_vllms(name, files):
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    service = services(*files)[name]
    assert service["entrypoint"] == ["vllm", "serve"]
    given = make_arg_parser(FlexibleArgumentParser()).parse_args(service["command"])
    assert given.model_tag == service["command"][0]
    if name == "policy-vllm":
        assert given.default_chat_template_kwargs == yaml.safe_load('{"date_string": "26 Jul 2024"}')
        assert given.generation_config == "vllm"
