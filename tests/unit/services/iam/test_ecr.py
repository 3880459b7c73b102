"""ECR describes what the catalog knows."""

from typing import Any

import pytest
from botocore.exceptions import ClientError


def code(call: Any, **params: Any) -> str:
    with pytest.raises(ClientError) as refused:
        call(**params)
    return str(refused.value.response["Error"]["Code"])


def test_I02_repositories_and_images_are_the_catalog_s(account: Any) -> None:
    ecr = account.client("ecr")
    pages = ecr.get_paginator("describe_repositories").paginate(PaginationConfig={"PageSize": 1})
    repositories = {r["repositoryName"]: r for page in pages for r in page["repositories"]}
    uri = "123456789012.dkr.ecr.us-east-1.amazonaws.com/sagemaker-xgboost"
    assert repositories["sagemaker-xgboost"]["repositoryUri"] == uri
    named = ecr.describe_repositories(repositoryNames=["sagemaker-xgboost"], registryId="683313688378")
    assert named["repositories"][0]["repositoryUri"].startswith("683313688378.dkr.ecr.")
    image = ecr.describe_images(repositoryName="sagemaker-xgboost")["imageDetails"][0]
    asked = ecr.describe_images(repositoryName="sagemaker-xgboost", imageIds=[{"imageTag": "1.7-1"}])
    assert asked["imageDetails"][0]["imageTags"] == ["1.7-1"]
    assert asked["imageDetails"][0]["imageDigest"] == image["imageDigest"]
    listed = ecr.list_images(repositoryName="sagemaker-xgboost")["imageIds"]
    assert listed == [{"imageDigest": image["imageDigest"], "imageTag": image["imageTags"][0]}]


def test_I02_what_is_not_there_or_not_behind_it_is_refused(account: Any) -> None:
    ecr = account.client("ecr")
    assert code(ecr.describe_repositories, repositoryNames=["mine"]) == "RepositoryNotFoundException"
    assert code(ecr.describe_images, repositoryName="mine") == "RepositoryNotFoundException"
    digest = [{"imageDigest": "sha256:" + "0" * 64}]
    assert code(ecr.describe_images, repositoryName="sagemaker-xgboost", imageIds=digest) == (
        "ImageNotFoundException"
    )
    with pytest.raises(ClientError, match="GetAuthorizationToken is not supported by this server"):
        ecr.get_authorization_token()
    with pytest.raises(ClientError, match="CreateRepository is not supported by this server"):
        ecr.create_repository(repositoryName="mine")
