"""The fault cases of workers, and the tests that show what has to hold in each.

A test is ``directory/file::name``, wherever in the file it stands; all its parameters count. A case that nobody tests
is not in the list.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Case:
    """One case: its number, what is done, and by which tests."""

    number: str
    what: str
    tests: tuple[str, ...]


CASES = (
    Case("F01", "a worker process is killed", ("faults/test_kill::test_a_worker_process_is_killed",)),
    Case(
        "F03",
        "whole workers are killed again and again",
        (
            "faults/test_kill::test_a_worker_is_killed_and_started_again",
            "faults/test_depots::test_kills_lose_nothing",
        ),
    ),
    Case(
        "F05",
        "a run takes all the memory",
        ("faults/test_limits::test_a_memory_limit", "faults/test_limits::test_no_memory_left_for_a_run"),
    ),
    Case("F06", "poison", ("faults/test_kill::test_poison",)),
    Case(
        "F07",
        "errors that end programs",
        (
            "faults/test_limits::test_what_would_end_a_program_ends_a_run",
            "integration/test_worker_tasks::test_what_ends_a_program_does_not_end_the_worker",
        ),
    ),
    Case(
        "F08",
        "kill -9 at every crash point",
        (
            "faults/test_crash_points::test_a_worker_process_dies",
            "faults/test_crash_points::test_a_supervisor_dies",
        ),
    ),
    Case(
        "F09",
        "signals",
        (
            "integration/test_worker_stopping::test_what_runs_may_finish",
            "integration/test_worker_stopping::test_what_takes_longer_is_given_back_uncharged",
            "integration/test_worker_stopping::test_what_was_given_back_runs_elsewhere_at_once",
            "integration/test_worker_stopping::test_a_second_signal_cuts_at_once",
            "integration/test_worker_stopping::test_a_signal_while_it_starts",
            "integration/test_worker_stopping::test_many_signals_at_once",
            "integration/test_worker_signals::test_a_restart_replaces_every_process_and_interrupts_nothing",
            "integration/test_worker_signals::test_what_is_cut_short_runs_elsewhere_at_once_and_uncharged",
            "faults/test_signals::test_long_runs_are_given_back",
            "faults/test_signals::test_a_restart_interrupts_nothing",
            "faults/test_signals::test_told_to_stop_a_second_after_its_start",
        ),
    ),
    Case("F10", "processes that cannot start", ("faults/test_kill::test_processes_that_cannot_start_end_the_worker",)),
    Case(
        "F11",
        "hard limits of processes",
        ("integration/test_worker_times::test_a_hard_limit_ends_the_process",),
    ),
    Case(
        "F12",
        "hard limits of threads",
        ("faults/test_limits::test_a_hard_limit_in_threads", "faults/test_limits::test_all_slots_lost"),
    ),
    Case(
        "F13",
        "soft limits",
        ("integration/test_worker_limits::test_a_soft_limit_leaves_slot_and_connection_usable",),
    ),
    Case(
        "F14",
        "PostgreSQL is restarted at once",
        (
            "faults/test_postgresql::test_an_immediate_restart_under_load",
            "faults/test_postgresql::test_a_server_that_is_away_for_some_seconds",
        ),
    ),
    Case(
        "F15",
        "PostgreSQL becomes read-only",
        ("faults/test_postgresql::test_a_server_that_is_read_only_for_some_seconds",),
    ),
    Case("F16", "sessions are terminated", ("faults/test_postgresql::test_random_sessions_are_terminated",)),
    Case(
        "F23",
        "another isolation level",
        ("faults/test_isolation::test_work_goes_on_at_any_level",),
    ),
    Case(
        "F24",
        "others hold SQLite's lock",
        ("faults/test_sqlite::test_a_web_process_that_holds_long_transactions",),
    ),
    Case("F25", "kill -9 in SQLite's commit", ("faults/test_sqlite::test_kill_in_commit",)),
    Case(
        "F26",
        "a full disk",
        (
            "faults/test_full_disk::test_the_disk_of_the_database",
            "faults/test_full_disk::test_the_disk_of_redis",
        ),
    ),
    Case("F27", "connections within the formula", ("faults/test_connections::test_connections_of_a_busy_worker",)),
    Case("F29", "takers of Redis are killed", ("depots/test_redis_faults::test_takers_lose_nothing",)),
    Case(
        "F30",
        "Redis is killed",
        (
            "faults/test_redis::test_a_durable_server_is_killed",
            "faults/test_redis::test_a_server_comes_back_empty",
        ),
    ),
    Case("F33", "a network that swallows all", ("faults/test_depots::test_a_network_that_swallows_everything",)),
    Case(
        "F34",
        "scripts and connections of Redis are cut",
        ("faults/test_redis::test_what_is_cut_under_load_is_made_again",),
    ),
    Case("F35", "runs of many leases", ("faults/test_depots::test_runs_of_many_leases_start_once",)),
    Case("F36", "RabbitMQ is killed", ("faults/test_rabbitmq::test_the_server_is_killed",)),
    Case(
        "F37",
        "runs longer than the server's patience",
        ("faults/test_rabbitmq::test_runs_longer_than_the_server_has_patience",),
    ),
    Case(
        "F38",
        "a task that keeps the interpreter",
        ("faults/test_rabbitmq::test_a_task_that_keeps_the_interpreter_keeps_the_connection",),
    ),
    Case("F39", "dead letters", ("faults/test_rabbitmq::test_bad_messages_are_parked",)),
    Case("F40", "an alarm of RabbitMQ", ("faults/test_rabbitmq::test_an_alarm_refuses_soon_and_stops_nobody",)),
    Case("F41", "a queue that was deleted", ("depots/test_rabbitmq::test_a_queue_that_was_deleted_is_declared_again",)),
    Case(
        "F44",
        "schedulers are frozen and killed",
        (
            "faults/test_schedulers::test_one_run_for_each_due_time",
            "faults/test_depots::test_one_run_for_each_due_time",
        ),
    ),
    Case(
        "F48",
        "tasks that only new code knows",
        ("integration/test_worker_promises::test_unknown_tasks_wait_for_a_worker_that_knows_them",),
    ),
    Case("F49", "signatures that have changed", ("faults/test_versions::test_calls_of_an_old_signature",)),
    Case(
        "F50",
        "tables of another release",
        (
            "faults/test_versions::test_migrations_that_were_not_applied",
            "faults/test_versions::test_tables_of_a_later_release",
        ),
    ),
    Case(
        "F51",
        "arguments and results of any size",
        (
            "faults/test_sizes::test_what_fits_and_what_does_not",
            "faults/test_sizes::test_hundreds_of_megabytes",
        ),
    ),
    Case("F53", "a large history is pruned", ("faults/test_purge::test_a_large_history_is_pruned_under_load",)),
    Case(
        "F54",
        "kills, retries, duplicates and late results in workflows",
        (
            "faults/test_workflows::test_random_schedules",
            "faults/test_workflows::test_a_message_from_before_the_run_was_replaced",
            "faults/test_workflows::test_a_success_that_is_recorded_twice",
            "faults/test_workflows::test_what_goes_on_after_a_step_that_killed_its_processes",
            "faults/test_workflow_joins::test_both_succeed",
            "faults/test_workflow_joins::test_some_fail",
            "faults/test_workflow_joins::test_within_the_tasks_own_transactions",
            "faults/test_workflow_kills::test_kills_call_nothing_twice",
            "faults/test_crash_points::test_a_worker_process_dies",
            "faults/test_crash_points::test_a_supervisor_dies",
        ),
    ),
    Case("F55", "a kill after each effect of a chain", ("faults/test_workflow_kills::test_a_kill_after_each_effect",)),
    Case("F57", "brokers restart again and again", ("faults/test_slope::test_nothing_grows",)),
    Case(
        "F58",
        "nothing is inherited, nothing left behind",
        (
            "faults/test_leftovers::test_a_killed_process_leaves_nothing",
            "faults/test_leftovers::test_a_process_that_dies_leaves_nothing",
        ),
    ),
    Case(
        "F59",
        "alive, and gets nowhere",
        (
            "integration/test_health::test_a_process_that_stands_still",
            "integration/test_health::test_a_claim_that_is_blocked",
            "integration/test_health::test_work_that_idle_processes_do_not_take",
            "faults/test_progress::test_a_frozen_process_is_replaced",
            "faults/test_progress::test_bookkeeping_that_is_stuck_in_a_query",
        ),
    ),
    Case(
        "F60",
        "commands, and cancelling what runs",
        (
            "integration/test_control::test_a_run_that_sleeps",
            "integration/test_control::test_in_threads",
            "integration/test_control::test_one_that_heeds_nothing_is_killed",
            "integration/test_control::test_is_refused",
            "integration/test_control::test_a_flood_costs_neither_memory_nor_heartbeats",
            "depots/test_control::test_a_run_that_goes_on_is_cancelled",
            "faults/test_control_flood::test_orders_whose_answers_nobody_reads",
            "faults/test_control_flood::test_what_was_cancelled_is_not_started_by_the_next_worker",
        ),
    ),
    Case(
        "F61",
        "limits: kills, rates, many keys, all at once",
        (
            "faults/test_flow_kills::test_kills_neither_exceed_a_limit_nor_lose_of_it",
            "faults/test_flow_kills::test_a_rate",
            "faults/test_flow_kills::test_a_run_of_another_key_starts_at_once",
            "integration/test_limits::test_two_that_end_and_one_that_comes_never_exceed_a_limit_nor_forget_a_waiter",
            "integration/test_limits::test_a_crowd",
            "integration/test_limits::test_whatever_happens",
        ),
    ),
)
