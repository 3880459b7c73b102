"""Alarms, read: DescribeAlarms, DescribeAlarmsForMetric and what became of them (DescribeAlarmHistory)."""

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

from clary.domain.alarms import ALARM_KIND, AlarmSpec
from clary.domain.faults import Fault, not_supported
from clary.services import page_tokens
from clary.services.cloudwatch.alarm_views import composite_alarm, metric_alarm
from clary.services.cloudwatch.alarms import arn_of, child_names
from clary.services.cloudwatch.faults import bad_combination, invalid
from clary.store import PageQuery, Resource, Store, Transaction
from clary.store.alarm_history import HistoryQuery
from clary.store.alarms import find_alarm
from clary.wire.operations import Call, operation
from clary.wire.shapes import cloudwatch as shapes

PAGE = 50
HISTORY_PAGE = 100

_AT_ONCE = 200
_TYPES = ("MetricAlarm", "CompositeAlarm")

Fits = Callable[[Resource, AlarmSpec], bool]


class AlarmLists:
    def __init__(self, store: Store) -> None:
        self._store = store

    @operation("DescribeAlarms")
    def describe_alarms(self, call: Call, request: shapes.DescribeAlarmsInput) -> shapes.DescribeAlarmsOutput:
        asked = {key: value for key, value in request.items() if key not in ("NextToken", "MaxRecords")}
        limit, after = request.get("MaxRecords", PAGE), _position(request.get("NextToken"), asked)
        with self._store.read() as tx:
            found = list(islice(self._asked(tx, call, request, after), limit + 1))
        output: shapes.DescribeAlarmsOutput = {"MetricAlarms": [], "CompositeAlarms": []}
        for alarm in found[:limit]:
            if "ParentsOfAlarmName" in request:
                output["CompositeAlarms"].append({"AlarmName": alarm.name, "AlarmArn": alarm.arn})
            elif alarm.spec_as(AlarmSpec).rule:
                output["CompositeAlarms"].append(composite_alarm(alarm))
            else:
                output["MetricAlarms"].append(metric_alarm(alarm))
        if len(found) > limit:
            output["NextToken"] = page_tokens.make(asked, found[limit - 1].name)
        return output

    @operation("DescribeAlarmsForMetric")
    def describe_alarms_for_metric(
        self, call: Call, request: shapes.DescribeAlarmsForMetricInput
    ) -> shapes.DescribeAlarmsForMetricOutput:
        dimensions = tuple(sorted((d["Name"], d["Value"]) for d in request.get("Dimensions", [])))
        statistic = request.get("Statistic") or request.get("ExtendedStatistic")

        def fits(_: Resource, spec: AlarmSpec) -> bool:
            return (
                (spec.namespace, spec.metric) == (request["Namespace"], request["MetricName"])
                and spec.dimensions == dimensions
                and statistic in (None, spec.statistic)
                and request.get("Period") in (None, spec.period_s)
                and request.get("Unit") in (None, spec.unit)
            )

        with self._store.read() as tx:
            found = list(_all(tx, call, "", fits))
        return {"MetricAlarms": [metric_alarm(alarm) for alarm in found]}

    @operation("DescribeAlarmHistory")
    def describe_alarm_history(
        self, call: Call, request: shapes.DescribeAlarmHistoryInput
    ) -> shapes.DescribeAlarmHistoryOutput:
        if "AlarmContributorId" in request:
            raise not_supported("The member AlarmContributorId of DescribeAlarmHistory")
        asked = {key: value for key, value in request.items() if key not in ("NextToken", "MaxRecords")}
        limit = request.get("MaxRecords", HISTORY_PAGE)
        query = HistoryQuery(
            account=call.account,
            region=call.region,
            alarm=request.get("AlarmName", ""),
            alarm_types=_alarm_types(request),
            type=request.get("HistoryItemType", ""),
            since=request.get("StartDate"),
            until=request.get("EndDate"),
            descending=request.get("ScanBy", "TimestampDescending") == "TimestampDescending",
            limit=limit + 1,
            after=_history_position(request.get("NextToken"), asked),
        )
        with self._store.read() as tx:
            found = tx.alarm_history.page(query)
        output: shapes.DescribeAlarmHistoryOutput = {
            "AlarmHistoryItems": [
                {
                    "AlarmName": item.alarm,
                    "AlarmType": item.alarm_type,
                    "Timestamp": item.at,
                    "HistoryItemType": item.type,
                    "HistorySummary": item.summary,
                    "HistoryData": item.data,
                }
                for item in found[:limit]
            ]
        }
        if len(found) > limit:
            output["NextToken"] = page_tokens.make(asked, found[limit - 1].position)
        return output

    def _asked(
        self, tx: Transaction, call: Call, request: shapes.DescribeAlarmsInput, after: str
    ) -> Iterator[Resource]:
        """The alarms that a DescribeAlarms is about, by name."""
        family = [name for name in ("ChildrenOfAlarmName", "ParentsOfAlarmName") if name in request]
        if family:
            if set(request) - {*family, "NextToken", "MaxRecords"} or len(family) > 1:
                raise bad_combination(f"With {family[0]}, only MaxRecords and NextToken are allowed.")
            yield from _family(tx, call, request, after)
            return
        if "AlarmNames" in request and "AlarmNamePrefix" in request:
            raise bad_combination("AlarmNames and AlarmNamePrefix are mutually exclusive.")
        if "AlarmNames" in request:
            named = (find_alarm(tx, call.account, call.region, n) for n in sorted(set(request["AlarmNames"])))
            there = (alarm for alarm in named if alarm is not None and alarm.name > after)
            yield from (alarm for alarm in there if _fits(request, alarm, alarm.spec_as(AlarmSpec)))
            return
        yield from _all(tx, call, after, lambda alarm, spec: _fits(request, alarm, spec))


def _all(tx: Transaction, call: Call, after: str, fits: Fits) -> Iterator[Resource]:
    """The alarms behind a name, by name without regard to case, that fit."""
    query = PageQuery(call.account, call.region, ALARM_KIND, "name", False, _AT_ONCE, (after.lower(),))
    while True:
        page = tx.resources.page(query)
        for item in page:
            alarm = tx.resources.get(item.uid)
            if alarm is not None and fits(alarm, alarm.spec_as(AlarmSpec)):
                yield alarm
        if len(page) < _AT_ONCE:
            return
        query = PageQuery(
            call.account, call.region, ALARM_KIND, "name", False, _AT_ONCE, query.position(page[-1])
        )


def _fits(request: shapes.DescribeAlarmsInput, alarm: Resource, spec: AlarmSpec) -> bool:
    prefix = request.get("ActionPrefix", "")
    return (
        spec.type in _alarm_types(request)
        and alarm.name.startswith(request.get("AlarmNamePrefix", ""))
        and request.get("StateValue", alarm.status) == alarm.status
        and (not prefix or any(arn.startswith(prefix) for arn in _every_action(spec)))
    )


def _every_action(spec: AlarmSpec) -> tuple[str, ...]:
    return spec.alarm_actions + spec.ok_actions + spec.insufficient_data_actions


def _family(
    tx: Transaction, call: Call, request: shapes.DescribeAlarmsInput, after: str
) -> Iterator[Resource]:
    name = request.get("ChildrenOfAlarmName") or request["ParentsOfAlarmName"]
    alarm = find_alarm(tx, call.account, call.region, name)
    if alarm is None:
        raise invalid(f"The alarm {arn_of(call, name)} does not exist.")
    if "ParentsOfAlarmName" in request:
        yield from _all(tx, call, after, lambda parent, _: name in child_names(parent))
        return
    for child in sorted(child_names(alarm), key=lambda each: (each.lower(), each)):
        found = find_alarm(tx, call.account, call.region, child)
        if found is not None and child.lower() > after.lower():
            yield found


def _alarm_types(request: Mapping[str, Any]) -> tuple[str, ...]:
    """Metric alarms alone where nothing is said, as on AWS."""
    types = tuple(request.get("AlarmTypes", ("MetricAlarm",)))
    for each in types:
        if each not in (*_TYPES, "LogAlarm"):
            raise invalid(f"The value {each} for parameter AlarmTypes must be one of [{', '.join(_TYPES)}].")
    return types


def _position(token: str | None, asked: object) -> str:
    if token is None:
        return ""
    match page_tokens.read(token, asked):
        case str(name):
            return name
    raise Fault("InvalidNextToken", "The next token specified is invalid.")


def _history_position(token: str | None, asked: object) -> tuple[int, int] | None:
    if token is None:
        return None
    match page_tokens.read(token, asked):
        case [int(at), int(number)]:
            return at, number
    raise Fault("InvalidNextToken", "The next token specified is invalid.")
