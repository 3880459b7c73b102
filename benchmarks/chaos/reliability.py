"""The experiments of docs/reference/reliability.md: updates, scaling, failing instances, a control plane that is away.

How long and how often is in the environment; each result says with which numbers. The whole bars, instead of what fits
into the usual run: `CHAOS_RUNS=5 CHAOS_STRIDE=1 CHAOS_MINUTES=5 CHAOS_SCALES=20 make chaos`.
"""

from benchmarks.chaos import (
    away,
    burst,
    capture,
    deaths,
    failing,
    restarts,
    scale,
    simulated,
    steps,
    updates,
    weights,
)
from benchmarks.chaos.experiment import Experiment

RELIABILITY = (
    Experiment(
        "updates",
        "UpdateEndpoint between two versions on four instances of the built-in handler, all at once, canary, linear "
        "and rolling, at 500 requests a second or what the machine gives",
        "no request fails; either version's prediction meanwhile, only the new one's after InService; shares as the "
        "record says, within 3 σ; client and CloudWatch count the same; one fleet is left",
        "acks",
        "control does not wait for the gateways",
        updates.of_built_in_handlers,
    ),
    Experiment(
        "updates-script",
        "the same with users' scripts, which now and then take 0.4 s for an answer and are never asked twice",
        "as above",
        "drain",
        "what is retired is killed at once",
        updates.of_scripts,
    ),
    Experiment(
        "numbers",
        "other weights and counts under the same load of a script",
        "no request fails; processes that stay are the same ones; client and CloudWatch count the same",
        "same_fleet",
        "other numbers make another fleet",
        updates.numbers,
    ),
    Experiment(
        "failing",
        "updates to a version that crashes at the start, hangs there, answers errors (an alarm watches them) or fills "
        "its memory until it is killed, with every strategy, under load",
        "only requests that the new version had fail, as many as CloudWatch counts for it, and no more than the first "
        "step's share (3 σ); the rollback begins within 5 s of the alarm; InService, old configuration, a reason that "
        "names the cause, verdict `rolled-back`",
        "alarms",
        "nobody reads the alarms",
        failing.every_way,
    ),
    Experiment(
        "steps",
        "kill -9 of control before and after the commit of every store write of an update, of every strategy and of "
        "two rollbacks, at 100 requests a second of a script",
        "it ends as without the kill within 30 s; no request fails; exactly one fleet is left; the record has its "
        "verdict",
        "recovery",
        "control does not take up what was begun before it",
        steps.at_every_step,
    ),
    Experiment(
        "simulator",
        "random stories of an endpoint in virtual time, with faults at every call out of the reconciler",
        "no law is broken: capacity, exposure, drains, acknowledgements, one fleet, a verdict for every deployment",
        "guarantees",
        "each of seven guarantees in turn",
        simulated.stories,
    ),
    Experiment(
        "deaths",
        "kill -9 of one of two instances of a built-in handler every 5 s, at 200 requests a second",
        "no request fails and every prediction is right; the replacement is ready within a second (p95)",
        "second_tries",
        "a request whose instance ended is not asked elsewhere",
        deaths.of_a_built_in_handler,
    ),
    Experiment(
        "deaths-script",
        "kill -9 of one of two instances of a script every 5 s, at 200 requests a second",
        "whatever fails is a 503, and boto3 with its default retries sees no failure; the replacement is ready within "
        "a second (p95)",
        "replacement",
        "an instance that died is replaced a minute later",
        deaths.of_a_script,
    ),
    Experiment(
        "scale",
        "ten instances of a slow script become one, again and again, while 16 connections always have a request under "
        "way",
        "no request is lost; the one that stays is one of the ten; client and CloudWatch count the same",
        "drain",
        "what is retired is killed at once",
        scale.in_under_load,
    ),
    Experiment(
        "away",
        "kill -9 of supervisor and control, which stay dead for minutes, while an endpoint serves as fast as it goes",
        "no request is lost; at least 0.9 of the throughput and at most 1.5 times the p99 of phases with them; "
        "CloudWatch counts the same once they are back",
        "survival",
        "gateways end when one of the others does",
        away.control_plane_down,
    ),
    Experiment(
        "burst",
        "ten times the load at once on a variant that follows its load with target tracking as it comes",
        "enough instances are in service within 15 s (SageMaker: three minutes and more); no request fails",
        "haste",
        "the alarms take AWS's time",
        burst.tenfold,
    ),
    Experiment(
        "weights",
        "requests to two variants weighted 90 to 10, whose predictions tell which of them answered",
        "the shares are within 3 σ; CloudWatch counts the same for each",
        "weights",
        "every variant is as likely as any other",
        weights.ninety_to_ten,
    ),
    Experiment(
        "capture",
        "2,000 requests a second in turn to two endpoints, one of them captured at 100 %",
        "nothing is dropped, every request is in the bucket once; p99 at most 1.5 times that without capture",
        "aside",
        "a captured request is on the disk before anything else happens",
        capture.at_a_rate,
    ),
    Experiment(
        "capture-full",
        "the same as fast as it goes; then with control killed and room for 2 MB only",
        "at least 0.6 of the rate without capture; records in the bucket and those counted as dropped are as many as "
        "the requests, exactly",
        "honesty",
        "what is dropped is counted nowhere",
        capture.flat_out,
    ),
    Experiment(
        "restart",
        "`clary restart` under load, on connections that are busy, often idle, and idle for seconds",
        "no connection is refused or reset under a request; every process is a new one; CloudWatch counts the same",
        "retirement",
        "a gateway that has a successor is killed",
        restarts.everything,
    ),
)
