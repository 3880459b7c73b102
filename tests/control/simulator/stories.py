"""One story, and many: what happens to an endpoint, with the reconciler run whenever it is due, then calm."""

import functools
import logging
import multiprocessing
import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from clary.domain.statuses import is_in_progress
from clary.drivers.base import DriverError
from clary.reconcilers.endpoint import EndpointReconciler
from clary.store import Lease
from control.simulator.faults import Faults, Faulty, Killed
from control.simulator.guarantees import Guarantee, reconciler_without, taken_away
from control.simulator.laws import Broken
from control.simulator.outside import WatchedStore
from control.simulator.users import Users
from control.simulator.world import UID, World

STEPS = 45
CALM_STEPS = 500


@dataclass(frozen=True, slots=True)
class Report:
    """`broken` says which law was, or nothing; `verdicts` are those of the story's deployments, as they ended."""

    seed: int
    broken: str = ""
    verdicts: tuple[str, ...] = ()
    reconciled: int = 0
    trace: tuple[str, ...] = ()


def run(seed: int, *, without: Guarantee | None = None, faults: float = 0.03) -> Report:
    """One story. The same seed tells the same one."""
    story = Story(seed, faults, without)
    broken = ""
    with taken_away(without):
        try:
            story.tell()
        except Broken as error:
            broken = str(error)
    return Report(seed, broken, tuple(story.verdicts), story.reconciled, tuple(story.world.trace))


@dataclass
class Summary:
    """Of many stories."""

    seeds: int = 0
    broken: dict[int, str] = field(default_factory=dict)
    verdicts: Counter[str] = field(default_factory=Counter)
    reconciled: int = 0

    def add(self, report: Report) -> None:
        self.seeds += 1
        self.verdicts.update(report.verdicts)
        self.reconciled += report.reconciled
        if report.broken:
            self.broken[report.seed] = report.broken


def run_many(first: int, count: int, *, jobs: int = 1, without: Guarantee | None = None) -> Summary:
    """The seeds from `first` on, in so many processes."""
    summary = Summary()
    tell = functools.partial(_run_quietly, without)
    seeds = range(first, first + count)
    if jobs == 1:
        for seed in seeds:
            summary.add(tell(seed))
        return summary
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        for report in pool.imap_unordered(tell, seeds, chunksize=50):
            summary.add(report)
    return summary


def _run_quietly(without: Guarantee | None, seed: int) -> Report:
    was_disabled = logging.root.manager.disable
    logging.disable()
    try:
        return run(seed, without=without)
    finally:
        logging.disable(was_disabled)


class Story:
    def __init__(self, seed: int, faults: float, without: Guarantee | None) -> None:
        self._dice = random.Random(seed)
        self._faults = Faults(self._dice, faults)
        self.world = World(self._dice, self._faults, acknowledge=without != "acknowledged routes")
        self.verdicts: list[str] = []
        self.reconciled = 0
        self._users = Users(self.world)
        self._due: datetime | None = None
        self._attempts = 0  # since the reconciler was last heard to its end
        self._reconciler = self._make_reconciler(without)

    def tell(self) -> None:
        self._users.create()
        self._wish()
        for _ in range(STEPS):
            self._something_happens()
            self._reconcile_due()
            self._time_passes(self._dice.choice((0.0, 0.3, 1.0, 1.0, 4.0, 15.0)))
        self._calm_down()
        self.world.laws.at_rest()

    def _make_reconciler(self, without: Guarantee | None) -> EndpointReconciler:
        world, faults = self.world, self._faults
        return reconciler_without(without)(
            WatchedStore(world, world.laws, faults, world.note),  # type: ignore[arg-type]
            Faulty(world.driver, {"start", "inspect", "stop", "remove"}, DriverError, faults),
            Faulty(world.gateways, {"publish", "withdraw", "drain"}, RuntimeError, faults),
            world.clock,
            zones=3,
            tell=lambda endpoint, verdict: self.verdicts.append(verdict),
        )

    def _something_happens(self) -> None:
        match self._dice.randrange(8):
            case 0 | 1 | 2:
                self.world.instances_move()
                self._wish()
            case 3:
                if self.world.one_dies():
                    self._wish()
            case 4:
                self.world.an_alarm_changes()
            case 5 | 6:
                if self._users.ask():
                    self._wish()
            case _:
                self.world.requests_come_and_go()

    def _calm_down(self) -> None:
        """How long may it take until all is as it was asked for?"""
        self.world.calms_down()
        for _ in range(CALM_STEPS):
            self.world.gets_well()
            self._wish()
            if self._reconcile_due() is None and self._is_still():
                return
            self._time_passes(5.0)
        raise Broken("it does not converge")

    def _is_still(self) -> bool:
        phases = {status.phase for status in self.world.driver.list()}
        endpoint = self.world.endpoint
        return phases <= {"ready"} and (endpoint is None or not is_in_progress(endpoint.status))

    # The reconciler, when it is due

    def _wish(self) -> None:
        self._due = self.world.clock.now()

    def _reconcile_due(self) -> datetime | None:
        """Runs it as often as it is due now; when it is due next."""
        clock = self.world.clock
        for _ in range(30):
            if self._due is None or self._due > clock.now():
                break
            again_s = self._reconcile()
            self._due = None if again_s is None else clock.now() + timedelta(seconds=again_s)
        return self._due

    def _reconcile(self) -> float | None:
        self.reconciled += 1
        try:
            again_s = self._reconciler.reconcile(Lease("endpoint", UID, "", 0, 0))
        except (Killed, DriverError, RuntimeError) as error:
            self.world.note(f"interrupted: {error}")
            self._attempts += 1
            return min(60.0, 0.25 * 2.0 ** min(self._attempts, 4))
        self._attempts = 0
        return again_s

    def _time_passes(self, seconds: float) -> None:
        """In pieces, so that nothing that is due is passed over."""
        clock = self.world.clock
        until = clock.now() + timedelta(seconds=seconds)
        for _ in range(40):
            now = clock.now()
            if now >= until:
                break
            next_ = until if self._due is None else min(until, max(self._due, now + timedelta(seconds=0.05)))
            clock.advance((next_ - now) / timedelta(seconds=1))
            self._laws_look()
            self._reconcile_due()
        self._laws_look()

    def _laws_look(self) -> None:
        self.world.laws.time_passes(excused=self._attempts > 0)
