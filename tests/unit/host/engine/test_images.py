"""Users' own images: when one is pulled, with whose credentials, and what is refused."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clary.domain.images import OwnImage
from clary.host.engine.api import EngineClient, EngineRefused, NotThere
from clary.host.engine.images import Images
from clary.host.engine.registries import credentials_for
from clary.host.failures import Refused


class FakeClient(EngineClient):
    """Holds some images, and pulls what a registry has."""

    def __init__(self, *held: str, registry: tuple[str, ...] = ()) -> None:
        super().__init__("/nowhere")
        self.held = set(held)
        self.registry = registry
        self.credentials = ""

    def image(self, name: str) -> dict[str, Any]:
        if name not in self.held:
            raise NotThere(404, f"no such image: {name}")
        return {"Id": "sha256:1", "RepoDigests": [], "Config": {"Labels": {"a": "b"}}}

    def pull(self, repository: str, tag: str, credentials: str, progress: Callable[[str], None]) -> None:
        self.credentials = credentials
        if (name := f"{repository}:{tag}") not in self.registry:
            raise EngineRefused(500, "manifest unknown")
        self.held.add(name)
        progress("Pulling")


def obtain(client: FakeClient, name: str, pull: str = "missing", **environ: str) -> str:
    return Images(client, pull, {"HOME": "/nowhere", **environ}).obtain(name, lambda text: None).resolved


def test_an_image_at_hand_is_not_pulled() -> None:
    assert obtain(FakeClient("mine:1"), "mine:1") == "mine@sha256:1"


def test_of_several_names_the_one_that_was_asked_for_is_shown() -> None:
    class Twice(FakeClient):
        def image(self, name: str) -> dict[str, Any]:
            digests = ["localhost/not-mine@sha256:1", "localhost/other@sha256:1", "localhost/mine@sha256:1"]
            return {**super().image(name), "RepoDigests": digests}

    assert obtain(Twice("mine:1"), "mine:1") == "localhost/mine@sha256:1"
    assert obtain(Twice("third:1"), "third:1") == "localhost/not-mine@sha256:1"


def test_a_missing_one_is_pulled_and_what_the_registry_says_is_told() -> None:
    assert obtain(FakeClient(registry=("r.io/mine:1",)), "r.io/mine:1") == "mine@sha256:1"
    with pytest.raises(
        Refused, match=r"'r\.io/mine:2' could not be pulled\. .*docker login.* manifest unknown"
    ):
        obtain(FakeClient(), "r.io/mine:2")


def test_always_pulls_and_never_does_not() -> None:
    with pytest.raises(Refused, match="could not be pulled"):
        obtain(FakeClient("mine:1"), "mine:1", "always")
    with pytest.raises(Refused, match="container_pull is never"):
        obtain(FakeClient(registry=("mine:1",)), "mine:1", "never")


def test_nothing_is_pulled_from_aws_but_a_local_image_of_that_name_serves() -> None:
    name = "111122223333.dkr.ecr.us-east-1.amazonaws.com/mine:1"
    assert obtain(FakeClient(name), name, "always") == "mine@sha256:1"
    with pytest.raises(Refused, match="nothing is pulled from AWS here"):
        obtain(FakeClient(registry=(name,)), name)
    assert "docker tag" in Images(FakeClient(), "missing", {}).look_up(name).refusal


def test_looking_one_up_pulls_nothing() -> None:
    client = FakeClient("mine:1", registry=("other:1",))
    assert Images(client, "missing", {}).look_up("mine:1") == OwnImage(
        resolved="mine@sha256:1", labels={"a": "b"}
    )
    assert Images(client, "missing", {}).look_up("other:1") == OwnImage()
    assert client.held == {"mine:1"}


def test_credentials_come_from_where_docker_login_puts_them(tmp_path: Path) -> None:
    auth = base64.b64encode(b"me:secret:1").decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"r.io": {"auth": auth}}}))
    client = FakeClient(registry=("r.io/mine:1",))
    obtain(client, "r.io/mine:1", DOCKER_CONFIG=str(tmp_path))
    assert json.loads(base64.urlsafe_b64decode(client.credentials)) == {
        "username": "me", "password": "secret:1", "serveraddress": "r.io",
    }  # fmt: skip
    assert credentials_for("elsewhere.io", {"DOCKER_CONFIG": str(tmp_path), "HOME": "/nowhere"}) == ""


def test_a_credential_helper_is_asked(tmp_path: Path) -> None:
    helper = tmp_path / "docker-credential-test"
    helper.write_text(
        '#!/bin/sh\nread host\necho "{\\"Username\\": \\"u\\", \\"Secret\\": \\"of $host\\"}"\n'
    )
    helper.chmod(0o755)
    (tmp_path / "config.json").write_text(json.dumps({"credHelpers": {"r.io": "test"}}))
    environ = {"DOCKER_CONFIG": str(tmp_path), "PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": "/nowhere"}
    found = json.loads(base64.urlsafe_b64decode(credentials_for("r.io", environ)))
    assert (found["username"], found["password"]) == ("u", "of r.io")
