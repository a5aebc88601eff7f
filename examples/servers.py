"""What all examples share: the servers, given by URL, or the embedded ones where none is given."""

import argparse
from contextlib import asynccontextmanager

from asearch.embedded import EmbeddedServers, embedded_servers


def parser(description):
    """--policy and --prm; without them, the embedded servers are started."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--policy", metavar="URL", help="policy server; none: the embedded servers")
    made.add_argument("--prm", metavar="URL", help="server of the process reward model")
    made.add_argument("-n", type=int, default=16, help="budget of a search (16)")
    return made


@asynccontextmanager
async def search_servers(options):
    """The policy and the PRM to search with."""
    if options.policy:
        yield EmbeddedServers(options.policy, options.prm)
    else:
        async with embedded_servers() as servers:
            yield servers
