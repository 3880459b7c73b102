"""The routes in force, with the order of their changes. Pure bookkeeping: no lock, no file, no socket."""

from collections import OrderedDict
from collections.abc import Iterable

from clary.domain.routes import EndpointKey, EndpointRoute
from clary.links.route_messages import Change, Snapshot

FIRST_VERSION = 1


class RouteBook:
    """Every change gets the next version; `news` says what somebody at an older version lacks."""

    def __init__(self, routes: Iterable[EndpointRoute] = ()) -> None:
        self.version = FIRST_VERSION
        self._routes = {route.key: route for route in routes}
        # Each key's last change, oldest first. Withdrawn keys stay until everybody has heard of it.
        self._changes: OrderedDict[EndpointKey, int] = OrderedDict()
        self._identities = FIRST_VERSION  # the version that holds their newest change
        self._metrics_since_ms = 0

    def get(self, key: EndpointKey) -> EndpointRoute | None:
        return self._routes.get(key)

    def all(self) -> list[EndpointRoute]:
        return list(self._routes.values())

    def changed_in(self, key: EndpointKey) -> int:
        """The version that holds the key's newest change."""
        return self._changes.get(key, FIRST_VERSION)

    def put(self, route: EndpointRoute) -> int:
        self._routes[route.key] = route
        return self._note(route.key)

    def remove(self, key: EndpointKey) -> int:
        del self._routes[key]
        return self._note(key)

    def change_identities(self) -> int:
        """Users, keys or roles have changed: a version that everybody must apply."""
        self.version += 1
        self._identities = self.version
        return self.version

    def begin_metrics(self, since_ms: int) -> int:
        """What was seen before this moment counts no more: a version that everybody must apply."""
        self.version += 1
        self._metrics_since_ms = since_ms
        return self.version

    def news(self, since: int) -> Snapshot | Change:
        """What somebody at version `since` lacks; 0 is somebody who has nothing."""
        if since < FIRST_VERSION:
            routes = tuple(self._routes.values())
            return Snapshot(self.version, routes, self._identities, self._metrics_since_ms)
        put: list[EndpointRoute] = []
        removed: list[EndpointKey] = []
        for key in reversed(self._changes):
            if self._changes[key] <= since:
                break
            if key in self._routes:
                put.append(self._routes[key])
            else:
                removed.append(key)
        return Change(self.version, tuple(put), tuple(removed), self._identities, self._metrics_since_ms)

    def forget_withdrawn(self, known_to_all: int) -> None:
        """Drops what is kept about withdrawals that everybody has applied."""
        gone = [
            key
            for key, version in self._changes.items()
            if version <= known_to_all and key not in self._routes
        ]
        for key in gone:
            del self._changes[key]

    @property
    def withdrawn(self) -> int:
        """An upper bound of how many withdrawals are remembered."""
        return len(self._changes) - len(self._routes)

    def _note(self, key: EndpointKey) -> int:
        self.version += 1
        self._changes[key] = self.version
        self._changes.move_to_end(key)
        return self.version
