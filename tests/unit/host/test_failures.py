"""What of a log goes into a failure."""

from clary.host import failures

CRASH = [
    "2026-11-21T07:17:02.542Z INFO loading xgboost-model, 6525 bytes",
    "Fatal Python error: Segmentation fault",
    "",
    "Current thread 0x00007f8c6b297b80 (most recent call first):",
    *(f'  File "/somewhere/frame_{number}.py", line {number} in call' for number in range(40)),
    "  ...",
    "",
    "Extension modules: uvloop.loop, numpy.linalg._umath_linalg (total: 2)",
]


def test_Z01_of_a_crash_report_only_the_head_is_shown() -> None:
    told = failures.printable(CRASH)
    assert told[0] == CRASH[0]
    assert told[1] == "Fatal Python error: Segmentation fault"
    assert told[-1] == '  File "/somewhere/frame_2.py", line 2 in call'


def test_Z01_what_follows_a_crash_report_is_shown() -> None:
    assert failures.printable([*CRASH, "the parent has noticed"])[-1] == "the parent has noticed"


def test_Z01_other_lines_are_shown_as_they_are_but_empty_ones() -> None:
    lines = [
        "Traceback (most recent call last):",
        '  File "inference.py", line 1, in <module>',
        "KeyError: 'a'",
    ]
    assert failures.printable([*lines[:2], "", *lines[2:], " "]) == tuple(lines)
    assert failures.printable([str(number) for number in range(100)]) == tuple(map(str, range(80, 100)))
