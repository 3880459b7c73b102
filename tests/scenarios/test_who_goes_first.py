"""Where processors are short, serving gets them first: an upload of gigabytes must not hold up invocations."""

from contextlib import suppress
from pathlib import Path

import psutil

from clary.links.processes import ProcessIdentity
from clary.testing.server import RunningServer


def test_control_gives_way_to_gateways_and_instances(server: RunningServer) -> None:
    control, gateway = server.process("control"), server.process("gateway-0")
    assert control is not None
    assert gateway is not None
    ours = psutil.Process().nice()  # the whole suite may have been told to give way
    assert psutil.Process(control.pid).nice() > psutil.Process(gateway.pid).nice() == ours
    assert _session_nice(control) in ("", "5")
    assert _session_nice(gateway) in ("", "0")


def test_an_upload_gives_way_to_the_rest_of_control(server: RunningServer) -> None:
    control = server.process("control")
    assert control is not None
    s3 = server.client("s3")
    s3.create_bucket(Bucket="large")
    s3.put_object(Bucket="large", Key="k", Body=bytes(1 << 20))
    main = psutil.Process(control.pid).nice()
    assert max(_thread_nices(control.pid)) > main


def _session_nice(process: ProcessIdentity) -> str:
    """`/autogroup-51 nice 10`; nothing where the kernel does not share out among sessions."""
    try:
        return Path(f"/proc/{process.pid}/autogroup").read_text().split()[-1]
    except OSError:
        return ""


def _thread_nices(pid: int) -> list[int]:
    nices = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # a thread that has ended meanwhile
            nices.append(int((task / "stat").read_text().rsplit(")", 1)[1].split()[16]))
    return nices
