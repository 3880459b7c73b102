"""Which REST operation a request means: method, path template, query and headers against the model's routes.

S3 is why this is more than a dictionary: its operations share paths and differ by a fixed query name (`?uploads`), by
a required query parameter (`uploadId`) or by a required header (`x-amz-copy-source`). The most demanding route that
a request satisfies is meant: UploadPartCopy before UploadPart before PutObject. A route that does not know such a name
is not meant by a request that has it: `DELETE /bucket/key?acl` is no DeleteObject.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl

# More pairs than any operation has members; a longer query is not worth splitting.
_MAX_QUERY_PAIRS = 1000


@dataclass(frozen=True, slots=True)
class RestRoute:
    """One operation's route. A segment `{Name}` takes one path segment, a last `{Name+}` everything that is left."""

    operation: str
    method: str
    segments: tuple[str, ...]
    fixed_query: tuple[tuple[str, str], ...]
    required_query: frozenset[str]
    optional_query: frozenset[str]
    required_headers: frozenset[str]
    is_deprecated: bool

    @classmethod
    def parse(
        cls,
        operation: str,
        *,
        method: str,
        request_uri: str,
        required_query: Collection[str] = (),
        optional_query: Collection[str] = (),
        required_headers: Collection[str] = (),
        is_deprecated: bool = False,
    ) -> "RestRoute":
        path, _, query = request_uri.partition("?")
        return cls(
            operation,
            method,
            split_template(path),
            tuple(parse_qsl(query, keep_blank_values=True)),
            frozenset(required_query),
            frozenset(optional_query),
            frozenset(required_headers),
            is_deprecated,
        )

    @property
    def rank(self) -> tuple[int, int, bool]:
        """Routes of higher rank are tried first."""
        literals = sum(not segment.startswith("{") for segment in self.segments)
        demands = len(self.fixed_query) + len(self.required_query) + len(self.required_headers)
        return literals, demands, not self.is_deprecated

    @property
    def query_names(self) -> set[str]:
        """Every query name that this route has a use for."""
        return {name for name, _ in self.fixed_query} | self.required_query | self.optional_query

    def demands_are_met(self, query: Mapping[str, Sequence[str]], headers: Collection[str]) -> bool:
        """Whether the query and the header names hold what this route asks for."""
        return (
            self.required_headers.issubset(headers)
            and self.required_query <= query.keys()
            and all(name in query and (not value or value in query[name]) for name, value in self.fixed_query)
        )


class RestRouter:
    """The routes of one service, the most demanding first."""

    def __init__(self, routes: Collection[RestRoute]) -> None:
        self._by_method: dict[str, list[RestRoute]] = {}
        for route in sorted(routes, key=lambda route: route.rank, reverse=True):
            self._by_method.setdefault(route.method, []).append(route)
        self._selectors = {method: _selectors(method, routes) for method in self._by_method}

    def match(self, method: str, path: str, query: str, headers: Collection[str]) -> str | None:
        """The operation's name; None when no route fits."""
        given = _query_values(query)
        selected = self._selectors.get(method, frozenset()) & given.keys()
        for route in self._by_method.get(method, ()):
            if route.demands_are_met(given, headers) and bind_path(route.segments, path) is not None:
                # The routes are in order: what the best one has no use for, the others have none for either.
                return None if selected - route.query_names else route.operation
        return None


def split_template(path: str) -> tuple[str, ...]:
    """The segments of a path template: `/{Bucket}/{Key+}` is two."""
    return tuple(segment for segment in path.split("/") if segment)


def bind_path(segments: tuple[str, ...], path: str) -> dict[str, str] | None:
    """The labels' values, still percent-encoded, or None when the path does not fit. No label may be empty.

    One slash at the end is ignored, as S3 ignores it after a bucket; within a `{Name+}` every slash counts.
    """
    bound: dict[str, str] = {}
    rest = path.removeprefix("/")
    for segment in segments:
        if segment.endswith("+}"):
            part, rest = rest, ""
        else:
            part, _, rest = rest.partition("/")
        if segment.startswith("{"):
            bound[segment.strip("{+}")] = part
        elif segment != part:
            return None
        if not part:
            return None
    return None if rest else bound


def _selectors(method: str, routes: Collection[RestRoute]) -> frozenset[str]:
    """The query names that tell routes apart: any `?acl`, and where something is changed also `uploadId`."""
    bare = {name for route in routes for name, value in route.fixed_query if not value}
    if method in ("GET", "HEAD"):
        return frozenset(bare)
    return frozenset(bare.union(*(route.required_query for route in routes if route.method == method)))


def _query_values(query: str) -> dict[str, list[str]]:
    given: dict[str, list[str]] = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_MAX_QUERY_PAIRS)
    except ValueError:
        return given
    for name, value in pairs:
        given.setdefault(name, []).append(value)
    return given
