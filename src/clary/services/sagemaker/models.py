"""Models: an image, an artefact, an environment. They have no life: what is created is there until deleted."""

from collections.abc import Callable

from clary.domain.faults import validation
from clary.domain.resources import MODEL
from clary.services.sagemaker.access import arn, insert, require
from clary.services.sagemaker.containers import Images, ModelData, check_container, containers_of
from clary.services.sagemaker.listing import list_page
from clary.services.sagemaker.several_containers import check_together
from clary.store import Store
from clary.wire.operations import Call, operation
from clary.wire.shapes import sagemaker as shapes


class Models:
    def __init__(
        self,
        store: Store,
        new_id: Callable[[], str],
        images: Images,
        blobs: ModelData,
        why_not_isolated: Callable[[], str],
    ) -> None:
        self._why_not_isolated = why_not_isolated
        self._store = store
        self._new_id = new_id
        self._images = images
        self._blobs = blobs

    @operation("CreateModel")
    def create_model(self, call: Call, params: shapes.CreateModelInput) -> shapes.CreateModelOutput:
        containers = containers_of(params)
        check_together(params, containers)
        if params.get("EnableNetworkIsolation") and (why := self._why_not_isolated()):
            raise validation(f"EnableNetworkIsolation is not supported by this server: {why}")
        # Known names first: whoever repeats a call hears of the duplicate, whatever became of the artefact.
        with self._store.read() as tx:
            if tx.resources.find(call.account, call.region, MODEL.name, params["ModelName"]):
                raise MODEL.duplicate(arn(call, MODEL, params["ModelName"]))
        for container in containers:
            check_container(container, self._images, self._blobs, is_one_of_several=len(containers) > 1)
        spec = {name: value for name, value in params.items() if name != "Tags"}
        with self._store.write() as tx:
            model = insert(
                tx, call, MODEL, self._new_id(), params["ModelName"], spec, tags=params.get("Tags")
            )
        return {"ModelArn": model.arn}

    @operation("DescribeModel")
    def describe_model(self, call: Call, params: shapes.DescribeModelInput) -> shapes.DescribeModelOutput:
        with self._store.read() as tx:
            model = require(tx, call, MODEL, params["ModelName"])
        spec = model.spec_as(shapes.CreateModelInput)
        answer: shapes.DescribeModelOutput = {
            "ModelName": model.name,
            "ModelArn": model.arn,
            "CreationTime": model.created_at,
            "EnableNetworkIsolation": spec.get("EnableNetworkIsolation", False),
        }
        if "PrimaryContainer" in spec:
            answer["PrimaryContainer"] = spec["PrimaryContainer"]
        if "Containers" in spec:
            answer["Containers"] = spec["Containers"]
        if "InferenceExecutionConfig" in spec:
            answer["InferenceExecutionConfig"] = spec["InferenceExecutionConfig"]
        if "ExecutionRoleArn" in spec:
            answer["ExecutionRoleArn"] = spec["ExecutionRoleArn"]
        if "VpcConfig" in spec:
            answer["VpcConfig"] = spec["VpcConfig"]
        return answer

    @operation("ListModels")
    def list_models(self, call: Call, params: shapes.ListModelsInput) -> shapes.ListModelsOutput:
        items, more = list_page(self._store, call, MODEL, params)
        summaries: list[shapes.ModelSummary] = [
            {"ModelName": item.name, "ModelArn": item.arn, "CreationTime": item.created_at} for item in items
        ]
        answer: shapes.ListModelsOutput = {"Models": summaries}
        if more:
            answer["NextToken"] = more["NextToken"]
        return answer

    @operation("DeleteModel")
    def delete_model(self, call: Call, params: shapes.DeleteModelInput) -> None:
        """Endpoints that use it keep the copy they were made from."""
        with self._store.write(on_full_disk=True) as tx:
            tx.resources.delete(require(tx, call, MODEL, params["ModelName"]).uid)
