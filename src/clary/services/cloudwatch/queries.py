"""The queries of GetMetricData, checked. Only plain metrics so far: expressions are refused by name."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from clary.domain.faults import not_supported
from clary.services.cloudwatch import statistics
from clary.services.cloudwatch.faults import invalid
from clary.telemetry.statistics import Statistic
from clary.wire.shapes import cloudwatch as shapes

MOST_QUERIES = 500

_ID = re.compile(r"[a-z][a-zA-Z0-9_]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Query:
    """One metric to read, as asked for."""

    id: str
    label: str
    namespace: str
    name: str
    dimensions: Sequence[shapes.Dimension]
    period: int
    statistic: Statistic
    unit: str | None


def read_queries(asked: Sequence[shapes.MetricDataQuery], account: str) -> list[Query]:
    """The queries whose data is wanted, in order."""
    if len(asked) > MOST_QUERIES:
        raise invalid(f"The collection MetricDataQueries must not have a size greater than {MOST_QUERIES}.")
    if len({query["Id"] for query in asked}) < len(asked):
        raise invalid("The values for parameter id in MetricDataQueries are not unique.")
    queries = [_read(f"MetricDataQueries.member.{n}", query, account) for n, query in enumerate(asked, 1)]
    return [query for query, wanted in zip(queries, asked) if wanted.get("ReturnData", True)]


def _read(where: str, asked: shapes.MetricDataQuery, account: str) -> Query:
    if not _ID.fullmatch(asked["Id"]):
        raise invalid(
            f"The value {asked['Id']} for parameter {where}.Id is not matching the expected pattern {_ID.pattern}."
        )
    if "Expression" in asked and "MetricStat" in asked:
        raise invalid(
            f"The parameters {where}.Expression and {where}.MetricStat are mutually exclusive"
            " and you have specified both."
        )
    if "Expression" in asked:
        raise not_supported(f"The metric expression {asked['Expression']!r} of GetMetricData")
    if "MetricStat" not in asked:
        raise invalid(f"Either {where}.MetricStat or {where}.Expression must be specified.")
    if asked.get("AccountId", account) != account:
        raise not_supported("Reading metrics of other accounts")
    return _read_stat(where, asked, asked["MetricStat"])


def _read_stat(where: str, asked: shapes.MetricDataQuery, stat: shapes.MetricStat) -> Query:
    metric = stat["Metric"]
    for member in ("Namespace", "MetricName"):
        if not metric.get(member):
            raise invalid(f"The parameter {where}.MetricStat.Metric.{member} is required.")
    label = asked.get("Label", metric["MetricName"])
    if "${" in label:
        raise not_supported(f"The dynamic label {label!r}")
    return Query(
        id=asked["Id"],
        label=label,
        namespace=metric["Namespace"],
        name=metric["MetricName"],
        dimensions=metric.get("Dimensions", []),
        period=stat["Period"],
        statistic=statistics.find(stat["Stat"], invalid),
        unit=stat.get("Unit"),
    )
