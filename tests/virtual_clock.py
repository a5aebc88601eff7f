"""An event loop whose clock jumps to the next timer: an hour of sleeps takes a millisecond, in the same order.

For code without sockets, threads and processes. When nothing can ever happen again the loop says so instead of hanging.

    from virtual_clock import run

    def test_it():
        run(scenario())
"""

import asyncio
import selectors


class Deadlock(RuntimeError):
    """Every task waits, and no timer will wake one."""


class VirtualClock(asyncio.SelectorEventLoop):
    """A loop in which waiting costs no time."""

    def __init__(self):
        super().__init__(_Jumping(self))
        self.now = 0.0

    def time(self):
        return self.now


class _Jumping(selectors.DefaultSelector):
    """Instead of waiting for a while, moves the clock forward by as much."""

    def __init__(self, loop):
        super().__init__()
        self._owner = loop

    def select(self, timeout=None):
        if timeout is None:
            raise Deadlock("nothing is scheduled: every task waits for something that cannot happen")
        # at least a step: a timer that is due in less than the clock's resolution must not be waited for for ever
        self._owner.now += max(timeout, 1e-9) if timeout > 0 else 0.0
        return super().select(0)


def run(coroutine):
    """Run a coroutine on a virtual clock; returns (its result, the seconds that passed there)."""
    with asyncio.Runner(loop_factory=VirtualClock) as runner:
        result = runner.run(coroutine)
        return result, runner.get_loop().time()
