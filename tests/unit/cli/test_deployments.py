"""`clary deployments`, `clary why` and `clary status`: what a person reads of a deployment."""

from typing import Any

from clary.cli import deployments, status, why

ROLE = "arn:aws:sts::123456789012:assumed-role/Deployer/anna"
POLICY: dict[str, Any] = {
    "Strategy": "ALL_AT_ONCE",
    "Step": None,
    "WaitSeconds": 0.0,
    "TerminationWaitSeconds": 0.0,
    "MaximumExecutionSeconds": None,
    "RollbackStep": None,
    "Alarms": [],
}
CREATION: dict[str, Any] = {
    "Id": "1",
    "Operation": "CreateEndpoint",
    "RequestedBy": ROLE,
    "From": "",
    "To": "shop-1",
    "Changes": ["AllTraffic: added, model m on 2 × ml.m5.large, weight 1"],
    "Policy": POLICY,
    "StartedAt": "2026-11-21T09:00:00+00:00",
    "EndedAt": "2026-11-21T09:00:01.500000+00:00",
    "Verdict": "succeeded",
    "Reason": "",
    "Steps": [],
}
ROLLED_BACK = CREATION | {
    "Operation": "UpdateEndpoint",
    "From": "shop-1",
    "To": "shop-2",
    "Changes": ["AllTraffic.model_name: m → n"],
    "Policy": POLICY
    | {
        "Strategy": "CANARY",
        "Step": {"type": "CAPACITY_PERCENT", "value": 10},
        "WaitSeconds": 300.0,
        "Alarms": ["shop-5xx"],
    },
    "EndedAt": "2026-11-21T09:01:30+00:00",
    "Verdict": "rolled-back",
    "Reason": "an alarm went off\nRun: clary why shop",
    "Steps": [
        {"At": "2026-11-21T09:00:02.250000+00:00", "Step": "baking",
         "Evidence": {"ready": {"AllTraffic": 2}, "kept": {"AllTraffic": 2}, "alarms": {"shop-5xx": "OK"},
                      "nothing": ""}},
        {"At": "2026-11-21T09:01:00+00:00", "Step": "failed", "Evidence": {"log_tail": ["one", "two"]}},
    ],
}  # fmt: skip


def test_Z03_a_table_then_the_newest_in_full() -> None:
    answer = {"Name": "shop", "Status": "InService", "Deployments": [ROLLED_BACK, CREATION]}
    told = "\n".join(deployments.lines(answer))
    assert "endpoint shop: InService" in told
    assert "1 min 30 s  shop-1  shop-2  canary       rolled back  assumed-role/Deployer/anna" in told
    assert "1.5 s       -       shop-1  all at once  succeeded" in told
    assert "canary, 10 % at first; 300 s watched after each step; rolled back on shop-5xx" in told
    assert "AllTraffic.model_name: m → n" in told
    assert ":02 +2.2     baking\n" in told
    assert " ready=AllTraffic 2  kept=AllTraffic 2  alarms=shop-5xx OK\n" in told
    assert all(len(line) <= deployments.WIDTH for line in told.splitlines())
    assert "| two" in told
    assert "an alarm went off" in told
    assert "nothing=" not in told
    assert "AllTraffic: added" not in told
    assert "AllTraffic: added" in "\n".join(deployments.lines(answer, in_full=True))


def test_Z03_one_under_way_has_not_taken_any_time_yet() -> None:
    under_way = ROLLED_BACK | {"EndedAt": None, "Verdict": "in-progress"}
    told = deployments.lines({"Name": "shop", "Status": "Updating", "Deployments": [under_way]})
    assert any("…" in line and "in progress" in line for line in told)
    assert "no deployments on record" in deployments.lines(
        {"Name": "s", "Status": "InService", "Deployments": []}
    )


def test_Z01_status_understands_a_server_of_an_older_version() -> None:
    old = {"Name": "shop", "Status": "InService", "Config": "shop-1", "Variants": [{"InstanceCount": 2}]}
    assert "shop      InService  ?/2" in status._endpoints([old])
    new = old | {"Variants": [{"InstanceCount": 2, "Ready": 1}]}
    assert "shop      InService  1/2" in status._endpoints([new])


def test_Z01_status_says_what_instances_are_made_of() -> None:
    def line(*variants: dict[str, Any]) -> str:
        shown = {"Name": "e", "Status": "InService", "Config": "c", "Variants": variants}
        return status._endpoints([shown]).splitlines()[1].rstrip()

    one = {"Name": "a", "InstanceCount": 1, "Ready": 1}
    assert line(one).endswith("c")
    assert line(one | {"Mode": "MultiModel"}).endswith("c       MultiModel")
    assert line(one | {"Mode": "Direct", "Containers": ["x", "y"]}).endswith("Direct: x, y")
    assert line(one, one | {"Name": "b", "Mode": "Serial", "Containers": list("stuvw")}).endswith(
        "b Serial: s → … → w (5)"
    )


def test_Z01_why_and_status_say_how_far_a_deployment_is() -> None:
    progress = {
        "From": "shop-1",
        "To": "shop-2",
        "Stage": "baking",
        "Since": "2026-11-21T09:00:00+00:00",
        "Reason": "",
        "Variants": [{"Name": "A", "Ready": 4, "Wanted": 4, "Activated": 1}],
    }
    told = why.deploying(progress)
    assert told.startswith("deploying shop-1 → shop-2: baking since ")
    assert "(A 4 of 4 ready, 1 with traffic)" in told
    assert status.deploying(progress) == "baking: 1 of 4 of shop-2 with traffic"


def test_Z01_why_says_which_configuration_an_instance_has_and_whose_log_it_shows() -> None:
    instance = {
        "Id": "i-1",
        "Variant": "A",
        "Config": "shop-1",
        "Zone": "a",
        "Phase": "ready",
        "Wanted": True,
    }
    story = {
        "Kind": "endpoint",
        "Name": "shop",
        "Status": "Updating",
        "Instances": [instance, instance | {"Id": "i-2", "Config": "shop-2"}],
        "Events": [],
        "LogStream": "A/i-2",
        "LogTail": ["model loaded"],
    }
    told = "\n".join(why.lines(story))
    assert "i-1       A        shop-1" in told and "i-2       A        shop-2" in told
    assert "the last lines of A/i-2:\n  | model loaded" in told
    told = "\n".join(why.lines(story | {"Status": "InService", "FailureReason": "an alarm went off"}))
    assert "It serves. Its last update failed:\n\nan alarm went off" in told


def test_Z01_status_shows_the_first_sentence_of_a_reason_whole() -> None:
    reason = "Deployment failed: one or more alarms configured for the deployment are in ALARM state.\nAlarm x: ALARM."
    endpoint = {
        "Name": "shop",
        "Status": "InService",
        "Config": "shop-1",
        "Variants": [{"Ready": 1, "InstanceCount": 1}],
        "FailureReason": reason,
    }
    (_, line) = status._endpoints([endpoint]).splitlines()
    assert line.endswith("are in ALARM state.") and "last update: Deployment failed" in line
    (_, line) = status._endpoints([endpoint | {"FailureReason": "word " * 40}]).splitlines()
    assert line.endswith("word …")
