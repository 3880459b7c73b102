"""FailureReason: SageMaker's own sentence first, then the evidence, then what to do next. At most 1,024 characters."""

from collections.abc import Mapping

from clary.domain.endpoints import Problem, Variant
from clary.domain.instances import Container, Failure, InstanceStatus

LONGEST_REASON = 1024

_CAPACITY = (
    "Unable to provision requested ML compute capacity due to InsufficientInstanceCapacity error. "
    "Please retry using a different ML instance type or after some time."
)


def deployment_problem(
    endpoint_name: str, variant: Variant, status: InstanceStatus, command_options: str = ""
) -> Problem:
    """The problem of a variant whose instance ended, went missing or kept failing."""
    command = _command(endpoint_name, command_options)
    failure = status.failure or Failure(
        code="Exited" if status.phase == "exited" else "Missing",
        reason=f"Its instance is {status.phase}" + (f": {status.detail}" if status.detail else "."),
    )
    return Problem(
        reason=_fit(_aws_sentence(variant, failure), _evidence(failure), failure.log_tail, command),
        variant=variant.name,
        instance_id=status.instance_id,
        failure=failure,
    )


def capacity_problem(
    endpoint_name: str, variant: Variant, available: int, command_options: str = ""
) -> Problem:
    """The problem of a variant that wants more accelerators than there are."""
    evidence = (
        f"{variant.instance_type} has {variant.accelerators} GPU(s); "
        f"this server has {available}: choose an instance type without GPUs."
    )
    failure = Failure(code="InsufficientCapacity", reason=evidence)
    command = _command(endpoint_name, command_options)
    return Problem(_fit(_CAPACITY, evidence, (), command), variant.name, failure=failure)


def alarm_problem(
    endpoint_name: str,
    alarms: Mapping[str, str],
    command_options: str = "",
    reasons: Mapping[str, str] | None = None,
) -> Problem:
    """The problem of an update whose alarms (name → state, name → why it is in it) say no."""
    sentence = "Deployment failed: one or more alarms configured for the deployment are in ALARM state."
    if "ALARM" not in alarms.values():
        sentence = "Deployment failed: one or more alarms configured for the deployment no longer exist."
    states = "; ".join(_alarm_told(name, state, (reasons or {}).get(name)) for name, state in alarms.items())
    evidence = f"{states[:1].upper()}{states[1:]}."
    return Problem(
        _fit(sentence, evidence, (), _command(endpoint_name, command_options)),
        failure=Failure(code="AlarmTriggered", reason=evidence),
    )


def overdue_problem(endpoint_name: str, limit_s: float, stage: str, command_options: str = "") -> Problem:
    """The problem of an update that took longer than it may."""
    sentence = "Deployment failed: it exceeded its maximum execution timeout."
    evidence = f"MaximumExecutionTimeoutInSeconds is {limit_s:g}; it had come to the stage {stage}."
    return Problem(
        _fit(sentence, evidence, (), _command(endpoint_name, command_options)),
        failure=Failure(code="DeploymentTimeout", reason=evidence),
    )


def rollback_problem(problem: Problem, why: Problem) -> Problem:
    """The problem of an update that failed for one reason and could not be rolled back for another."""
    sentence = "The update failed, and so did its rollback: old and new configuration both serve."
    last = problem.reason.rpartition("\n")[2]  # the command to run
    parts = [sentence, "Rollback: " + _cut(_head(why), 350), "Update: " + _cut(_head(problem), 350), last]
    return Problem("\n".join(parts), why.variant, why.instance_id, why.failure)


def _head(problem: Problem) -> str:
    return problem.reason.rpartition("\n")[0]


def _aws_sentence(variant: Variant, failure: Failure) -> str:
    container = variant.container_named(failure.container)
    uri = container.artifacts[0].uri if container.artifacts else ""
    match failure.code:
        case "ArtifactMissing" | "ArtifactDenied" | "DownloadTimeout":
            return (
                f'Failed to download model data for container "{_container_number(container)}" from URL: "{uri}". '
                "Please ensure that there is an object located at the URL and that the role passed to "
                "CreateModel has permissions to download the object."
            )
        case "ArtifactInvalid":
            return (
                f'Failed to extract model data archive for container "{_container_number(container)}" from URL: '
                f'"{uri}". Please ensure that the object located at the URL is a valid tar.gz archive.'
            )
        case "ImageNotSupported":
            return f"The image '{container.image}' does not exist."
        case "EnvironmentFailed" | "DiskFull" | "Missing":
            return "Request to service failed. If failure persists after retry, contact customer support."
        case _:
            return (
                f"The {container.name} container for production variant {variant.name} did not pass the "
                "ping health check. Please check CloudWatch logs for this endpoint."
            )


def _container_number(container: Container) -> str:
    """SageMaker calls an unnamed container `primary` in some sentences and `container_1` in others."""
    return "container_1" if container.name == "primary" else container.name


def _evidence(failure: Failure) -> str:
    reason = failure.reason.strip()
    if reason.startswith("the "):  # not every first word may change: a file's name, say
        reason = f"The {reason[4:]}"
    parts = [reason if reason.endswith((".", "!", "?")) or not reason else f"{reason}."]
    if failure.exit_code is not None:
        parts.append(f"Exit code {failure.exit_code}.")
    if failure.signal is not None:
        parts.append(f"Signal {failure.signal}.")
    if failure.memory_peak_bytes is not None and failure.memory_limit_bytes is not None:
        parts.append(
            f"Memory peak {_mebibytes(failure.memory_peak_bytes)} of {_mebibytes(failure.memory_limit_bytes)}."
        )
    return " ".join(part for part in parts if part)


def _mebibytes(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB"


def _command(endpoint_name: str, options: str) -> str:
    return f"Run: clary why {endpoint_name}{options}"


def _alarm_told(name: str, state: str, reason: str | None) -> str:
    return f"alarm {name}: {state}" + (f" ({reason.rstrip('.')})" if reason else "")


def _fit(sentence: str, evidence: str, log_tail: tuple[str, ...], command: str) -> str:
    """The command always fits; of the log the last lines that have room; the evidence is cut before the sentence."""
    sentence = _cut(sentence, 500)
    evidence = _cut(evidence, 300)
    parts = [part for part in (sentence, evidence) if part]
    room = LONGEST_REASON - sum(len(part) + 1 for part in parts) - len(command) - len("Last log lines: ") - 2
    tail = "\n".join(line.rstrip() for line in log_tail if line.strip())
    if tail and room > 40:
        parts.append("Last log lines: " + (tail if len(tail) <= room else "…" + tail[-(room - 1) :]))
    return "\n".join([*parts, command])


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
