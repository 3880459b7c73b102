import logging

from clary.telemetry.server_log import FieldFormatter


def test_fields_follow_the_sentence() -> None:
    record = logging.makeLogRecord(
        {"msg": "gateway connected", "levelname": "INFO", "gateway": 0, "why": "a b"}
    )
    assert (
        FieldFormatter("%(levelname)s %(message)s").format(record)
        == "INFO gateway connected gateway=0 why='a b'"
    )


def test_a_plain_sentence_stays_as_it_is() -> None:
    assert FieldFormatter("%(message)s").format(logging.makeLogRecord({"msg": "ready"})) == "ready"
