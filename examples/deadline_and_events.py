"""Plain asyncio: follow a search while it runs, and take what there is when the time is over.

python examples/deadline_and_events.py --seconds 2
"""

import asyncio
from contextlib import aclosing

from servers import parser, search_servers

import asearch

QUESTION = r"What is $7 \cdot (12 - 5) + 8 - 3 \cdot 4$?"


async def solve(servers, n, seconds):
    """Search within the deadline, and print every step as it is scored."""
    events = asearch.stream(
        asearch.BeamSearch(n=n, width=4), servers.policy, servers.prm, QUESTION, budget=asearch.Budget(seconds=seconds)
    )
    async with aclosing(events):  # whoever leaves the loop early cancels the search
        async for event in events:
            if isinstance(event, asearch.Scored) and event.path.score > 0.5:
                step = " ".join(event.path.step.text.split())
                print(f"{event.usage.seconds:6.2f} s  {event.path.score:.3f}  {step}")
            if isinstance(event, asearch.Stopped):
                return event.result
    raise RuntimeError("a search always stops")


async def main():
    arguments = parser(__doc__)
    arguments.add_argument("--seconds", type=float, default=5, help="deadline (5)")
    options = arguments.parse_args()
    async with search_servers(options) as servers:
        result = await solve(servers, options.n, options.seconds)
    print(f"\n{QUESTION}\nanswer: {result.answer}, score {result.score}, stopped by {result.stopped_by or 'itself'}")


if __name__ == "__main__":
    asyncio.run(main())
