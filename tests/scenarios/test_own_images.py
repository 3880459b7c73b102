"""A user's story: an image made of a requirements file, while the server runs."""

import subprocess
import sys
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from clary.testing.server import RunningServer
from platform_models import archive, create, wait_for_status

SCRIPT = b"""
import inflection
def model_fn(model_dir):
    return inflection.titleize
def input_fn(data, content_type):
    return data.decode()
def predict_fn(data, model):
    return model(data)
def output_fn(prediction, accept):
    return prediction
"""

# Under a name of ECR's nothing is pulled, whether there is a container engine or not.
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/titles:1"


def clary(server: RunningServer, *words: str) -> str:
    command = [sys.executable, "-P", "-m", "clary", "image", *words, "--data-dir", str(server.data_dir)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_H04_an_image_of_requirements_serves_at_once(server: RunningServer, tmp_path: Path) -> None:
    sagemaker = server.client("sagemaker")
    files = archive({"code/inference.py": SCRIPT})
    with pytest.raises(ClientError, match="titles"):
        create(server, "own-image", files, Image=IMAGE)
    (tmp_path / "requirements.txt").write_text("inflection==0.5.1\n")
    assert "with inflection==0.5.1" in clary(
        server, "make", "titles", "-r", str(tmp_path / "requirements.txt")
    )
    create(server, "own-image", files, Image=IMAGE)
    [image] = wait_for_status(server, "own-image", "InService")["ProductionVariants"][0]["DeployedImages"]
    assert image["SpecifiedImage"] == IMAGE
    assert image["ResolvedImage"].startswith("clary/sklearn:")
    answer = server.client("sagemaker-runtime").invoke_endpoint(
        EndpointName="own-image", ContentType="text/plain", Body=b"monthly_active_users"
    )
    assert answer["Body"].read() == b"Monthly Active Users"
    [listed] = server.client("ecr").describe_repositories(repositoryNames=["titles"])["repositories"]
    assert listed["repositoryName"] == "titles"
    sagemaker.delete_endpoint(EndpointName="own-image")
    clary(server, "remove", "titles")
    with pytest.raises(ClientError, match="titles"):
        create(server, "own-image-2", files, Image=IMAGE)
