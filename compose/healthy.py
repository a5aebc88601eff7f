"""The health check of the containers: exit status 0 if a page answers with 200. (Slim images have no curl.)"""

# ruff: noqa: INP001, S310 - a script by itself; the URL is the compose file's

import sys
import urllib.request

try:
    with urllib.request.urlopen(sys.argv[1], timeout=10) as answer:
        healthy = answer.status == 200
except OSError as failure:
    sys.exit(f"{sys.argv[1]}: {failure}")
sys.exit(0 if healthy else 1)
