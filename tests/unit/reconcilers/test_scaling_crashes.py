"""Control is killed after every commit and every call of the reconciler of scalable targets, and started again."""

from datetime import timedelta
from pathlib import Path

from control.crashing import Crash, CrashAt
from control.scaling_world import ScalingWorld

MOST_POINTS = 60


def story(world: ScalingWorld) -> None:
    """New limits by schedule, then a burst."""
    world.scaling_call("RegisterScalableTarget", MinCapacity=1, MaxCapacity=8)
    world.scaling_call(
        "PutScheduledAction",
        ScheduledActionName="up",
        Schedule=(world.clock.now() + timedelta(seconds=4)).strftime("at(%Y-%m-%dT%H:%M:%S)"),
        ScalableTargetAction={"MinCapacity": 2},
    )
    world.track(3000.0)


def test_K01_K04_a_control_that_is_killed_at_any_step_carries_on(tmp_path: Path) -> None:
    for at in range(1, MOST_POINTS):
        directory = tmp_path / str(at)
        directory.mkdir()
        if not has_crashed(directory, at):
            assert at > 8, "there were commits and calls to be killed after"
            return
    raise AssertionError("the story never ended")


def has_crashed(directory: Path, at: int) -> bool:
    world = ScalingWorld(directory).restarted(CrashAt(at))
    story(world)
    has_crashed = False
    for second in range(32):
        try:
            world.tick(requests=10.0 if second < 6 else 240.0)
        except Crash:
            has_crashed = True
            world = world.restarted()
    assert world.count == 5, "240 requests a second, 50 for each instance"
    told = [(each["Description"], each["StatusCode"]) for each in world.activities()]
    assert all(status == "Successful" for _, status in told), told
    assert told[-2:] == [
        ("Setting desired instance count to 2.", "Successful"),
        ("Setting min capacity to 2", "Successful"),
    ]
    descriptions = [description for description, _ in told]
    assert len(set(descriptions)) == len(descriptions), "nothing was done twice"
    world.close()
    return has_crashed
