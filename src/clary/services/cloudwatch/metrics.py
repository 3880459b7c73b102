"""Reading metrics: GetMetricStatistics, GetMetricData and ListMetrics over the metric store."""

from collections.abc import Iterator, Sequence
from itertools import islice

from clary.domain.clock import Clock
from clary.domain.faults import Fault, not_supported
from clary.links.metrics import Dimensions
from clary.services import page_tokens
from clary.services.cloudwatch import statistics
from clary.services.cloudwatch.faults import bad_combination, bad_value, invalid, using_store
from clary.services.cloudwatch.periods import Span, at, check_times, span
from clary.services.cloudwatch.queries import Query, read_queries
from clary.telemetry.aggregates import Aggregate, Metric
from clary.telemetry.store import LISTED_S, MetricStore
from clary.wire.operations import Call, operation
from clary.wire.shapes import cloudwatch as shapes

MOST_STATISTICS_DATAPOINTS = 1440
MOST_DATAPOINTS = 100_800
LIST_PAGE = 500


class Metrics:
    def __init__(self, store: MetricStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    @operation("GetMetricStatistics")
    def get_metric_statistics(
        self, call: Call, request: shapes.GetMetricStatisticsInput
    ) -> shapes.GetMetricStatisticsOutput:
        plain, extended = request.get("Statistics", []), request.get("ExtendedStatistics", [])
        if not plain and not extended:
            raise bad_combination(
                "At least one of the parameters Statistics and ExtendedStatistics must be specified."
            )
        wanted = {name: statistics.find(name, bad_value) for name in (*plain, *extended)}
        check_times(request["StartTime"], request["EndTime"], bad_value)
        asked = span(
            request["StartTime"], request["EndTime"], request["Period"], self._clock.now(), bad_value
        )
        _check_size(asked)
        metric = _metric(call, request["Namespace"], request["MetricName"], request.get("Dimensions", []))
        with using_store():
            found = self._store.query(metric, asked.start, asked.end, asked.period, request.get("Unit"))
        datapoints = [
            _datapoint(seen, unit, {name: wanted[name](seen) for name in wanted}, extended)
            for unit, periods in found.items()
            for seen in periods
        ]
        return {"Label": request["MetricName"], "Datapoints": datapoints}

    @operation("GetMetricData")
    def get_metric_data(self, call: Call, request: shapes.GetMetricDataInput) -> shapes.GetMetricDataOutput:
        queries = read_queries(request["MetricDataQueries"], call.account)
        check_times(request["StartTime"], request["EndTime"], invalid)
        limit = _page_size(request)
        asked = {key: value for key, value in request.items() if key not in ("NextToken", "MaxDatapoints")}
        index, after = _data_position(request.get("NextToken"), asked, len(queries))
        results: list[shapes.MetricDataResult] = []
        for number in range(index, len(queries)):
            points = self._points(call, queries[number], request, after)
            page = list(islice(points, limit))
            rest = next(points, None)
            results.append(_result(queries[number], page, "Complete" if rest is None else "PartialData"))
            limit -= len(page)
            if rest is not None:
                position = [number, page[-1][0] if page else after]
                token = page_tokens.make(asked, position)
                return {"MetricDataResults": results, "NextToken": token, "Messages": []}
            after = None
        return {"MetricDataResults": results, "Messages": []}

    @operation("ListMetrics")
    def list_metrics(self, call: Call, request: shapes.ListMetricsInput) -> shapes.ListMetricsOutput:
        if request.get("IncludeLinkedAccounts") or request.get("OwningAccount", call.account) != call.account:
            raise not_supported("Listing metrics of other accounts")
        filters = request.get("Dimensions", [])
        since_s = 3 * 3600 if "RecentlyActive" in request else LISTED_S
        with using_store():
            found = self._store.metrics(
                call.account, call.region, request.get("Namespace"), request.get("MetricName"), since_s
            )
        asked = {key: value for key, value in request.items() if key != "NextToken"}
        after = _list_position(request.get("NextToken"), asked)
        matching = (
            metric
            for metric in sorted(found, key=_list_key)
            if _list_key(metric) > after and _fits(metric, filters)
        )
        page = list(islice(matching, LIST_PAGE + 1))
        output: shapes.ListMetricsOutput = {"Metrics": [_shape(metric) for metric in page[:LIST_PAGE]]}
        if len(page) > LIST_PAGE:
            output["NextToken"] = page_tokens.make(asked, _list_key(page[LIST_PAGE - 1]))
        return output

    def _points(
        self, call: Call, query: Query, request: shapes.GetMetricDataInput, after: int | None
    ) -> Iterator[tuple[int, float]]:
        """A query's values with their times, in the order asked for, those up to `after` left out."""
        asked = span(request["StartTime"], request["EndTime"], query.period, self._clock.now(), invalid)
        metric = _metric(call, query.namespace, query.name, query.dimensions)
        with using_store():
            found = self._store.query(metric, asked.start, asked.end, asked.period, query.unit)
        backwards = request.get("ScanBy", "TimestampDescending") == "TimestampDescending"
        merged = sorted((seen for periods in found.values() for seen in periods), key=lambda seen: seen.start)
        for seen in reversed(merged) if backwards else merged:
            if after is not None and (seen.start >= after if backwards else seen.start <= after):
                continue
            value = query.statistic(seen)
            if value is not None:
                yield seen.start, value


def _metric(call: Call, namespace: str, name: str, dimensions: Sequence[shapes.Dimension]) -> Metric:
    return Metric(call.account, call.region, namespace, name, _sorted(dimensions))


def _sorted(dimensions: Sequence[shapes.Dimension]) -> Dimensions:
    return tuple(sorted((dimension["Name"], dimension["Value"]) for dimension in dimensions))


def _check_size(asked: Span) -> None:
    if asked.most_periods > MOST_STATISTICS_DATAPOINTS:
        raise bad_combination(
            f"You have requested up to {asked.most_periods:,} datapoints, which exceeds the limit of"
            f" {MOST_STATISTICS_DATAPOINTS:,}. You may reduce the datapoints requested by increasing Period,"
            " or decreasing the time range."
        )


def _datapoint(
    seen: Aggregate, unit: str, values: dict[str, float | None], extended: Sequence[str]
) -> shapes.Datapoint:
    known = {name: value for name, value in values.items() if value is not None}
    point: shapes.Datapoint = {"Timestamp": at(seen.start), "Unit": unit}
    for name in ("SampleCount", "Sum", "Average", "Minimum", "Maximum"):
        if name in known and name not in extended:
            point[name] = known[name]
    if extended:
        point["ExtendedStatistics"] = {name: known[name] for name in extended if name in known}
    return point


def _page_size(request: shapes.GetMetricDataInput) -> int:
    limit = request.get("MaxDatapoints", MOST_DATAPOINTS)
    if not 1 <= limit <= MOST_DATAPOINTS:
        raise invalid(
            f"The value {limit} for parameter MaxDatapoints must be between 1 and {MOST_DATAPOINTS}."
        )
    return limit


def _result(query: Query, page: Sequence[tuple[int, float]], status: str) -> shapes.MetricDataResult:
    return {
        "Id": query.id,
        "Label": query.label,
        "Timestamps": [at(start) for start, _ in page],
        "Values": [value for _, value in page],
        "StatusCode": status,
    }


def _data_position(token: str | None, asked: object, queries: int) -> tuple[int, int | None]:
    """Which query to go on with, and after which time in it."""
    if token is None:
        return 0, None
    match page_tokens.read(token, asked):
        case [int(index), int() | None as after] if 0 <= index < queries:
            return index, after
    raise Fault("InvalidNextToken", "The next token specified is invalid.")


def _list_position(token: str | None, asked: object) -> list[object]:
    if token is None:
        return []
    match page_tokens.read(token, asked):
        case [str(namespace), str(name), list(dimensions)]:
            return [namespace, name, dimensions]
    raise bad_value("The next token specified is invalid.")


def _list_key(metric: Metric) -> list[object]:
    return [metric.namespace, metric.name, [list(pair) for pair in metric.dimensions]]


def _fits(metric: Metric, filters: Sequence[shapes.DimensionFilter]) -> bool:
    held = dict(metric.dimensions)
    return all(
        wanted["Name"] in held and wanted.get("Value", held[wanted["Name"]]) == held[wanted["Name"]]
        for wanted in filters
    )


def _shape(metric: Metric) -> shapes.Metric:
    return {
        "Namespace": metric.namespace,
        "MetricName": metric.name,
        "Dimensions": [{"Name": name, "Value": value} for name, value in metric.dimensions],
    }
