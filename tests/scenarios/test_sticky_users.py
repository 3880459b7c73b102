"""A user's story: a chat whose turns an instance remembers, and users who stay at one place, with real processes."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from clary.testing.server import RunningServer
from platform_models import archive, create, wait_for_status

SKLEARN = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3"
PAGE = Path(__file__).parents[2] / "docs" / "howto" / "sticky-sessions.md"


def script_of_the_page() -> bytes:
    """What the how-to shows is what runs here."""
    _, _, rest = PAGE.read_text().partition("A script takes part")
    return rest.partition("```python\n")[2].partition("```")[0].encode()


def test_H12_a_script_s_sessions_and_sticky_users(server: RunningServer) -> None:
    create(
        server,
        "chat",
        archive({"code/inference.py": script_of_the_page()}),
        Image=SKLEARN,
        Environment={"SAGEMAKER_MODEL_SERVER_WORKERS": "1"},
        instances=2,
    )
    wait_for_status(server, "chat", "InService")
    runtime = server.client("sagemaker-runtime")

    def say(body: str, session: str = "") -> Any:
        more = {"SessionId": session} if session else {}
        return runtime.invoke_endpoint(EndpointName="chat", Body=body, **more)

    opened = [say("hello", "NEW_SESSION") for _ in range(4)]
    assert {answer["Body"].read() for answer in opened} == {b'{"turns": 1}'}
    sessions = [answer["NewSessionId"].partition("; ")[0] for answer in opened]
    for turn in (2, 3):
        for session in sessions:
            assert say("go on", session)["Body"].read() == b'{"turns": %d}' % turn
    assert say("bye", sessions[0])["ClosedSessionId"] == sessions[0]
    with pytest.raises(ClientError, match="it was not opened here"):
        say("go on", "chat-0")
    if shutil.which("curl"):
        assert _curl(server, "user-1", sessions[1]).endswith("200")


def _curl(server: RunningServer, user: str, session: str) -> str:
    """As the how-to has it."""
    key = server.client("sts")._request_signer._credentials
    command = ["curl", "-s", "-w", "%{http_code}", "--aws-sigv4", "aws:amz:us-east-1:sagemaker"]
    command += ["--user", f"{key.access_key}:{key.secret_key}", "-H", f"X-Clary-Sticky-Key: {user}"]
    command += ["-H", "Content-Type: application/json", "-H", f"X-Amzn-SageMaker-Session-Id: {session}"]
    command += ["--data", "more", f"{server.url}/endpoints/chat/invocations"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
