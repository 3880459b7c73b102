"""Whether the disk has room for a start: asked before one, and when a process has ended that may have lacked it.

A server that is full of data can still be started, to delete some of it: what is kept back beside the objects for
deletions is given back for this. Where that is not enough the start is refused before anything is written, with what
is lacking; processes that run go on.
"""

from clary.blobs import reserve
from clary.links import free_room
from clary.settings import Settings

START_BYTES = 1 << 20
"""More than a first start writes: keys, certificates, the tables of an empty server, logs."""


def lacking(settings: Settings) -> str:
    """What to free, and where; nothing when there is room, or when the file system does not say."""
    try:
        free = free_room.free_bytes(settings.data_dir, is_root=free_room.is_machines_root())
    except OSError:  # it is gone, or does not answer: then this is not what is lacking
        return ""
    if free is None or free >= START_BYTES:
        return ""
    return (
        f"the disk of {settings.data_dir} has {free:,} bytes free, and a start needs {START_BYTES:,}: "
        f"free at least {START_BYTES - free:,} bytes there"
    )


def give_back(settings: Settings) -> None:
    """Only while no control runs: it holds this room, and takes it again when there is ample."""
    reserve.release(settings.objects_dir)
