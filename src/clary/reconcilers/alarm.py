"""Keeps the state of every alarm what its metric says, and sets in motion what an alarm does in it.

One thread looks at all alarms, because most of the time there is nothing to see: a look that finds no new data of an
alarm's metric and no window that could have moved costs a dictionary look-up, and nothing is written but changes of a
state. A change, its history and its actions are one transaction over the row's version, so several controls, and one
that is killed at any instruction, do each once. Nothing is remembered that rows and metrics do not say again.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import cast

from clary.domain.alarm_evaluation import Timing
from clary.domain.alarms import ALARM_KIND, AlarmSpec, AlarmStatus
from clary.domain.clock import Clock
from clary.reconcilers.alarm_verdicts import Change, Watched, composite_change, metric_change, watched
from clary.store import Resource, Store, Transaction
from clary.store.alarms import AlarmAction, change_state, repeat_actions, repeated_actions
from clary.telemetry.store import MetricStore, MetricsUnavailable

log = logging.getLogger(__name__)

REPEATED_EVERY_S = {"fast": 5.0, "aws": 60.0}
"""How often the actions are fired that are fired as long as a state lasts."""

_LOOK_EVERY_S = 1.0
_READ_AGAIN_S = 10.0
_DEEPEST = 10
_TOGETHER = 20

Write = Callable[[Transaction], None]


class AlarmWatch:
    """Runs on a thread from `start` to `stop`. Tests call `look` instead."""

    def __init__(
        self,
        store: Store,
        metrics: MetricStore,
        clock: Clock,
        actions: Sequence[AlarmAction],
        timing: Timing = "fast",
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._actions = actions
        self._timing: Timing = timing
        self._watched: dict[str, Watched] = {}
        self._mark = -1
        self._read_at = float("-inf")
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="alarms", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def look(self) -> None:
        """One look at all alarms."""
        now = self._clock.now()
        self._read(now)
        self._apply(self._metric_changes(now), now)
        for _ in range(_DEEPEST):  # a composite alarm may ask for composite ones
            self._read(now)
            changes = self._composite_changes(now)
            if not changes:
                break
            self._apply(changes, now)
        self._repeat(now)

    def _run(self) -> None:
        wait_s = _LOOK_EVERY_S
        while not self._stopping.wait(wait_s):
            began = self._clock.monotonic()
            try:
                self.look()
            except Exception:  # the next look starts from the rows again
                log.exception("looking at the alarms failed")
            # However many alarms there are, at most a fifth of the time goes into them.
            wait_s = max(_LOOK_EVERY_S, 4 * (self._clock.monotonic() - began))

    def _read(self, now: datetime) -> None:
        """The alarms as they are; only those are read whose version is another one."""
        mark = self._store.changes.mark()
        is_old = now.timestamp() - self._read_at >= _READ_AGAIN_S  # another control may have written
        if mark == self._mark and not is_old:
            return
        with self._store.read() as tx:
            versions = tx.resources.versions(ALARM_KIND)
            changed = [uid for uid, version in versions.items() if self._version(uid) != version]
            alarms = [alarm for uid in changed if (alarm := tx.resources.get(uid)) is not None]
        self._mark, self._read_at = mark, now.timestamp()  # only now: what could not be read is read again
        for uid in [uid for uid in self._watched if uid not in versions]:
            del self._watched[uid]
        for alarm in alarms:
            self._watched[alarm.uid] = watched(alarm, self._is_repeating(alarm))

    def _version(self, uid: str) -> int:
        known = self._watched.get(uid)
        return -1 if known is None else known.alarm.version

    def _is_repeating(self, alarm: Resource) -> bool:
        status = cast(AlarmStatus, alarm.status)
        return bool(repeated_actions(alarm.spec_as(AlarmSpec), status, self._actions))

    def _metric_changes(self, now: datetime) -> list[Change]:
        changes = []
        for each in self._watched.values():
            if each.rule is not None:
                continue
            try:
                change = metric_change(each, self._metrics, now, self._timing)
            except MetricsUnavailable as error:
                log.warning("alarms cannot be evaluated now", extra={"error": str(error)})
                break
            except Exception:  # one alarm must not keep the others from being looked at
                log.exception("an alarm could not be evaluated", extra={"alarm": each.alarm.arn})
                continue
            if change is not None:
                changes.append(change)
        return changes

    def _composite_changes(self, now: datetime) -> list[Change]:
        composites = [each for each in self._watched.values() if each.rule is not None]
        if not composites:
            return []
        by_arn = {each.alarm.arn: each for each in self._watched.values()}
        changes = (composite_change(each, by_arn, now) for each in composites)
        return [change for change in changes if change is not None]

    def _apply(self, changes: Sequence[Change], now: datetime) -> None:
        def writing(change: Change) -> Write:
            return lambda tx: self._write(tx, change, now)

        self._write_all([(change.alarm, writing(change)) for change in changes])
        for change in changes:
            log.info("an alarm's state changed", extra={"alarm": change.alarm.arn, "state": change.status})

    def _write(self, tx: Transaction, change: Change, now: datetime) -> None:
        current = tx.resources.get(change.alarm.uid)
        if current is not None and current.version == change.alarm.version:
            change_state(tx, current, change.status, change.reason, change.reason_data, now, self._actions)

    def _repeat(self, now: datetime) -> None:
        every_s = REPEATED_EVERY_S[self._timing]
        due = [
            each
            for each in self._watched.values()
            if each.is_repeating and now.timestamp() - each.repeated_at >= every_s
        ]

        def firing(alarm: Resource) -> Write:
            return lambda tx: repeat_actions(tx, alarm, now, self._actions)

        self._write_all([(each.alarm, firing(each.alarm)) for each in due])
        for each in due:
            each.repeated_at = now.timestamp()

    def _write_all(self, writes: Sequence[tuple[Resource, Write]]) -> None:
        """Many to a transaction, as each costs the disk's confirmation; one by one where that fails."""
        for first in range(0, len(writes), _TOGETHER):
            self._write_group(writes[first : first + _TOGETHER])

    def _write_group(self, group: Sequence[tuple[Resource, Write]]) -> None:
        try:
            with self._store.write() as tx:
                for _, write in group:
                    write(tx)
        except Exception as error:
            if len(group) > 1:
                for each in group:
                    self._write_group([each])
                return
            alarm = group[0][0]
            log.error("an alarm's change was not written", extra={"alarm": alarm.arn}, exc_info=error)
            if alarm.uid in self._watched:
                self._watched[alarm.uid].is_empty = False  # it is evaluated again, data or not
