"""Types that many threads meet at once for the first time: in a process of its own, which may crash."""

import subprocess
import sys

_MANY_AT_ONCE = """
import dataclasses, sys, threading, typing
from clary.links.decoding import decode_json
sys.setswitchinterval(1e-6)
fields = [(f"f{n}", typing.Optional[int], dataclasses.field(default=None)) for n in range(40)]
for number in range(40):
    kind = dataclasses.make_dataclass(f"D{number}", fields, frozen=True)
    barrier, found = threading.Barrier(6), []
    def decode():
        barrier.wait()
        found.append(decode_json(b'{"f1": 1, "f39": 2}', kind))
    threads = [threading.Thread(target=decode) for _ in range(6)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert [(each.f1, each.f39) for each in found] == [(1, 2)] * 6
print("all right")
"""


def test_many_threads_may_decode_into_a_new_type_at_once() -> None:
    done = subprocess.run([sys.executable, "-c", _MANY_AT_ONCE], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "all right\n"), done.stderr
