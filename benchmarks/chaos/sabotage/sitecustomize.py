"""Takes one guarantee away from a Clary that runs under the chaos experiments (CLARY_SABOTAGE names it).

Python imports this module at its start when its folder stands on PYTHONPATH, which only the experiments do. The
product itself has no such switch.
"""

import os
import sys
import threading
import time
from contextlib import suppress


def acks() -> None:
    """A route counts as taken before any gateway has it, and gateways hear of it late."""
    from clary.links import routes

    routes.RouteHub._settle = lambda self, version: None  # type: ignore[method-assign]
    send = routes.RouteHub._send

    def late(self: routes.RouteHub, member: routes._Member) -> None:
        original = routes.send_frame

        def slow(sock: object, payload: bytes) -> None:
            time.sleep(0.2)
            original(sock, payload)  # type: ignore[arg-type]

        routes.send_frame = slow  # type: ignore[assignment]
        send(self, member)

    routes.RouteHub._send = late  # type: ignore[method-assign]


def survival() -> None:
    """Every process ends when one of the others does, as if it could not work without it."""
    if not any(argument.startswith("clary.gateway") for argument in sys.orig_argv):
        return
    from pathlib import Path

    from clary.links import processes

    run_dir = Path(sys.orig_argv[sys.orig_argv.index("--settings") + 1]).parent

    def watch() -> None:
        known: set[processes.ProcessIdentity] = set()
        while True:
            found = [
                processes.alive(run_dir / f"{name}.pid.json") for name in ("control", "host", "supervisor")
            ]
            known |= {identity for identity in found if identity is not None}
            if any(not processes.is_alive(identity) for identity in known):
                os._exit(1)
            time.sleep(0.02)

    threading.Thread(target=watch, daemon=True).start()


def cleanup() -> None:
    """Stopping forgets the instances."""
    from clary.links import stopping

    stopping.stop_instances = lambda settings: None  # type: ignore[assignment]


def identity() -> None:
    """An instance's id is another one each time it is asked for, so a start that is repeated starts a second one."""
    import secrets

    from clary.domain import instances

    instances.instance_id = lambda *_: instances.InstanceId("i-" + secrets.token_hex(9)[:17])  # type: ignore[assignment]


def signatures() -> None:
    """Every signature is taken for right."""
    import hmac

    hmac.compare_digest = lambda a, b: True  # type: ignore[assignment]


if wanted := os.environ.get("CLARY_SABOTAGE"):
    with suppress(ImportError):  # a runtime environment's Python, where there is no Clary to sabotage
        globals()[wanted]()
