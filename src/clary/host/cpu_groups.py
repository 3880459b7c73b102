"""A CPU control group for each instance, where the host may make them: neighbours get processors by their vCPUs,
however many processes they start.

Without groups the kernel shares processors out among sessions or among processes, and an instance may start as many of
either as it likes. A group has a weight and no ceiling, so an idle processor stays free for whoever wants it.

The groups lie beside each other and beside the server's own processes. In a group for them all, an instance that has
taken its share would hold up the others.

The minder makes an instance's group and removes it (`clary.host.minder_cpu`), so none is ever left empty in between.
What it could not remove, because it was killed, is empty, and the host removes it: with the instance, and whenever a
host begins or ends. A group that was made a moment ago is empty too, until its instance is in: a sweep leaves those.
"""

import hashlib
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from clary.domain.instances import InstanceId, InstanceSpec
from clary.host.cgroups import PREFIX, SERVER, Ground
from clary.links import instances as files

YOUNG_S = 10.0
"""A minder has put its instance into the group by then, and a probe is over."""

log = logging.getLogger(__name__)


class CpuGroups:
    """The groups of one data directory's instances. Thread-safe: what there is stands in the kernel."""

    def __init__(
        self, ground: Ground, instances_dir: Path, cores: int, now: Callable[[], float] = time.time
    ) -> None:
        self.ground = ground
        self._cores = cores
        self._now = now
        # Ids are unique among the instances of one data directory.
        self._prefix = f"{PREFIX}{hashlib.sha256(os.fsencode(instances_dir)).hexdigest()[:12]}-"

    def plan(self, spec: InstanceSpec) -> files.CpuGroup | None:
        """What the instance's minder is to make; None where there are no groups."""
        if (ground := self.ground.group) is None:
            return None
        # What an instance of several containers has, they have together.
        vcpus = min(spec.vcpus, self._cores) / max(1, spec.member_count)
        group = ground.below(f"{self._prefix}{spec.instance_id}")
        return files.CpuGroup(str(group.directory), group.weight_file, group.weight(vcpus))

    def remove(self, id: InstanceId) -> None:
        """After the last of its processes."""
        if (ground := self.ground.group) is not None:
            _remove(ground.directory / f"{self._prefix}{id}")

    def sweep(self) -> None:
        """Removes what minders that were killed have left, of this data directory and of others that nobody uses."""
        if (ground := self.ground.group) is None:
            return
        try:
            groups = [each for each in ground.directory.iterdir() if each.name.startswith(PREFIX)]
        except OSError as error:
            log.warning("the CPU groups could not be listed", extra={"error": str(error)})
            return
        for group in groups:
            if group.name != SERVER and not self._is_young(group):
                _remove(group)

    def _is_young(self, group: Path) -> bool:
        """By the kernel's note of when it was made, which is never too early. The machine's clock may be put back."""
        try:
            return 0 <= self._now() - group.stat().st_mtime < YOUNG_S
        except OSError:
            return False  # it is gone


def _remove(group: Path) -> None:
    """The kernel keeps one that holds a process."""
    with suppress(OSError):
        group.rmdir()
