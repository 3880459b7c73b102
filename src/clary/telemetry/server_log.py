"""How the server's own processes write their logs: a constant sentence, then the fields of the event.

2026-11-21 07:04:11,315 INFO clary.links.routes gateway connected gateway=0 pid=4711
"""

import logging

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class FieldFormatter(logging.Formatter):
    """Adds what was given as `extra` behind the sentence, in the order given."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        fields = [f"{name}={_shown(value)}" for name, value in vars(record).items() if name not in _STANDARD]
        return " ".join([super().formatMessage(record), *fields])


def configure(level: str) -> None:
    """Sends every log line of this process to stderr, which the supervisor keeps in a file."""
    handler = logging.StreamHandler()
    handler.setFormatter(FieldFormatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # tells its plugins and its dialect at every start


def _shown(value: object) -> str:
    text = str(value)
    return repr(text) if not text or any(character in ' "\n\t=' for character in text) else text
