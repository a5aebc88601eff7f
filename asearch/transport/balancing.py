"""Which replica a request goes to: the one that holds its prefix, or the least loaded. No HTTP in here.

A server's prefix cache is worth more than an even load as long as the load is not very uneven: what a path has said so
far is in the cache of the replica that wrote (or scored) it, and costs a prefill anywhere else. So a request goes where
the longest known beginning of its path went, and leaves it only when that replica is much busier than the least busy,
or has no room while another has. SGLang's router balances in the same way (cache-aware, until the imbalance passes an
absolute and a relative threshold).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from asearch.concurrency import Limiter

# Chosen by simulation (benchmarks/simulation, 125 problems at n = 256 on four replicas, and 500 on 16): the PRM of REBASE
# computes 8 to 17 % more tokens than it must with (65,536, 1/32, 1.5), and 3 % with these. Looser still, replicas stand idle.
REMEMBERED = 2**18  # beginnings whose replica is known; the oldest are forgotten
SLACK = 1 / 4  # of a replica's limit: a difference in load that is never worth a lost prefix
RATIO = 2.0  # how many times busier than the least busy replica a path's own may be, beyond the slack


class Place(Protocol):
    """A replica, as far as balancing goes."""

    up: bool
    served: int  # sequences sent there so far

    @property
    def limiter(self) -> Limiter: ...


P = TypeVar("P", bound=Place)


class Trail(Generic[P]):
    """The beginnings of a path, longest first, by key; and where its request went in the end.

    Args:
        beginnings: makes the hashes of the prompt's beginnings; they are made only as far as it takes to find a known one.
    """

    __slots__ = ("beginnings", "went")

    def __init__(self, beginnings: Callable[[], Iterable[int]]) -> None:
        self.beginnings = beginnings
        self.went: P | None = None


class Balancer(Generic[P]):
    """Knows which replica holds which beginnings."""

    def __init__(self) -> None:
        self._homes: dict[int, P] = {}

    def choose(
        self,
        places: Sequence[P],
        trail: Trail[P] | None = None,
        *,
        units: int = 1,
        besides: Collection[P] = (),
        queued: Callable[[P], int] | None = None,
    ) -> P:
        """The replica for a request; remembers it as the place of the path.

        Args:
            places: all replicas, at least one. Where none is up, those that are down are tried.
            trail: what is known of the path.
            units: sequences asked for.
            besides: replicas that have failed this request just now.
            queued: sequences that are on their way to a replica and have not come to its limiter.
        """
        if len(places) == 1:
            return places[0]
        able = eligible(places, besides)
        best = min(able, key=lambda place: (load(place, queued), place.served))
        chosen = best
        if trail is not None:
            home, longest = self._home(trail)
            if home is not None and home in able and not self._too_busy(home, best, units, queued):
                chosen = home
            if longest is not None:
                self.remember([longest], chosen)
            trail.went = chosen
        return chosen

    def _home(self, trail: Trail[P]) -> tuple[P | None, int | None]:
        """The replica that holds the longest known beginning of a path, and the key of the whole."""
        longest = None
        for key in trail.beginnings():
            longest = key if longest is None else longest
            home = self._homes.get(key)
            if home is not None:
                return home, longest
        return None, longest

    def remember(self, keys: Iterable[int], place: P) -> None:
        """Beginnings that a replica holds from now on."""
        for key in keys:
            self._homes.pop(key, None)
            self._homes[key] = place
        while len(self._homes) > REMEMBERED:
            del self._homes[next(iter(self._homes))]

    def forget(self, place: P) -> None:
        """A replica that is gone, or has been started anew, holds nothing."""
        self._homes = {key: home for key, home in self._homes.items() if home is not place}

    @staticmethod
    def _too_busy(home: P, best: P, units: int, queued: Callable[[P], int] | None) -> bool:
        if home is best:
            return False
        if load(home, queued) > RATIO * load(best, queued) + SLACK:
            return True
        return not home.limiter.has_room(units) and best.limiter.has_room(units)


def eligible(places: Sequence[P], besides: Collection[P] = ()) -> Sequence[P]:
    """Those that may be sent to: up and not just tried; failing that up; failing that, all there are."""
    alive = [place for place in places if place.up]
    return [place for place in alive if place not in besides] or alive or places


def load(place: P, queued: Callable[[P], int] | None = None) -> float:
    """Sequences at a replica and on their way there, as a share of its limit; one that is paused counts as full."""
    limiter = place.limiter
    busy = limiter.load if queued is None else limiter.load + queued(place) / limiter.limit
    return busy + 1.0 if limiter.paused else busy
