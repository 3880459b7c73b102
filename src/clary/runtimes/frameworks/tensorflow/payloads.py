"""What comes to `/invocations`, as the JSON that TensorFlow Serving's REST API takes.

The container's rules: JSON that has `instances`, `inputs` or `examples` goes on as it is; values one after the other
are rows; any other JSON is a row, or rows when it is a list of lists. Of CSV each line is a row, whose values are
numbers or quoted texts as they stand, and all texts when the first one of the body is neither.
"""

import re

from clary.runtimes.contract import UnsupportedMediaType

JSON, JSON_LINES, JSONS, CSV = "application/json", "application/jsonlines", "application/jsons", "text/csv"
_SERVING = re.compile(rb'"(instances|inputs|examples)"\s*:')
_ONE_AFTER_ANOTHER = re.compile(rb"[}\]]\s*[\[{]")
_ROWS = re.compile(rb"\s*\[\s*\[")
_PLAIN_FIELD = re.compile(rb'\s*("|[+-]?(\d|\.\d)[\d.eE+-]*\s*(,|\r?\n|$))')


def kind_of(content_type: str | None) -> str:
    """The content type without its parameters. Raises `UnsupportedMediaType`."""
    kind = (content_type or "").partition(";")[0].strip().lower()
    if kind not in (JSON, JSON_LINES, JSONS, CSV):
        raise UnsupportedMediaType(f"Unsupported Media Type: {content_type or 'Unknown'}")
    return kind


def to_serving_json(kind: str, body: bytes) -> bytes:
    if kind == CSV:
        return _from_csv(body)
    if _SERVING.search(body):
        return body
    if _ONE_AFTER_ANOTHER.search(body):
        return _wrap(b",".join(line for line in map(bytes.strip, body.splitlines()) if line))
    return b'{"instances":%b}' % body if _ROWS.match(body) else _wrap(body)


def answer_type(accept: str | None) -> str:
    """The content type of the answer, which is one JSON object whatever it is called."""
    wanted = [each.strip() for each in (accept or "").split(",")]
    return wanted[0] if JSON in wanted or JSON_LINES in wanted else JSON


def _from_csv(body: bytes) -> bytes:
    quotes = not _PLAIN_FIELD.match(body)
    return _wrap(b",".join(_row(line, quotes) for line in map(bytes.strip, body.splitlines()) if line))


def _row(line: bytes, quotes: bool) -> bytes:
    several = b"," in line
    if quotes:
        line = line.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b",", b'","')
        line = b'"%b"' % line
    return b"[%b]" % line if several else line


def _wrap(rows: bytes) -> bytes:
    return b'{"instances":[%b]}' % rows
