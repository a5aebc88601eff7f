"""Both embedded checkpoints on real vLLM servers, until standard input ends. Run by the Python of the vLLM environment.

Prints one JSON line with the URLs when both are ready.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "vllm"))
from vllm_servers import MODELS, vllm_server

# Memory for 128 solutions of full length, and no prompt computed in parts: with a seed that ends vLLM 0.32's CPU engine
# ("CPU Generator does not use offset").
OPTIONS = ("--num-gpu-blocks-override", "4096", "--no-enable-chunked-prefill", "--max-num-batched-tokens", "8192")


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers end, too
    os.environ["VLLM_SERVER_DEV_MODE"] = "1"  # for /reset_prefix_cache
    with (
        tempfile.TemporaryDirectory() as logs,
        vllm_server(MODELS / "policy", "asearch-policy", Path(logs), *OPTIONS) as policy,
        vllm_server(MODELS / "prm", "asearch-prm", Path(logs), *OPTIONS) as prm,
    ):
        print(json.dumps({"policy": policy.url, "prm": prm.url}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
