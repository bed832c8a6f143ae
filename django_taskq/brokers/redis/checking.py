"""What a worker that starts should know of its Redis: whether it may throw messages away, and what a crash may cost."""

from __future__ import annotations

import re
from collections.abc import Mapping

from django_taskq.brokers.depot import Finding
from django_taskq.brokers.redis.connection import Connections
from django_taskq.brokers.redis.scripts import Call

# ZMSCORE, and blocking pops with fractions of a second.
OLDEST_VERSION = (6, 2)
_ASKED = ("maxmemory-policy", "appendonly", "appendfsync", "save")
_AOF_HINT = "CONFIG SET appendonly yes, then CONFIG REWRITE"


def findings(connections: Connections) -> list[Finding]:
    """All there is to say; raises :exc:`DepotError` when the server does not answer."""
    calls: list[Call] = [["CONFIG", "GET", name] for name in _ASKED]
    # Hosted servers forbid CONFIG, or do not know it; a user with few permissions may not even see INFO.
    answer, *answers = connections.run([["INFO"], *calls], repeat=True, keep_errors=True)
    info = {} if isinstance(answer, Exception) else _parsed(answer)
    config = {pair[0].decode(): pair[1].decode() for pair in answers if pair and not isinstance(pair, Exception)}
    found = [*_server(info)] if info else []
    if len(config) < len(_ASKED):
        text = "the server does not let its configuration be read, so its persistence could not be checked fully"
        found.append(Finding("warning", text, "ask whoever runs it what a crash or a failover may lose"))
    if info:
        config.setdefault("maxmemory-policy", info.get("maxmemory_policy", ""))
        config.setdefault("appendonly", "yes" if info.get("aof_enabled") == "1" else "no")
    policy = config.get("maxmemory-policy", "")
    if policy not in ("noeviction", ""):
        text = f"maxmemory-policy is {policy}: when its memory is full, the server throws messages away"
        found.append(Finding("error", text, "CONFIG SET maxmemory-policy noeviction, then CONFIG REWRITE"))
    if "appendonly" in config:
        found.append(_persistence(config))
    return found


def _server(info: Mapping[str, str]) -> list[Finding]:
    found = []
    version = info.get("redis_version", "")
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < OLDEST_VERSION:
        wanted = ".".join(map(str, OLDEST_VERSION))
        found.append(
            Finding("error", f"the server is Redis {version or 'of an unknown version'}", f"use {wanted} or newer")
        )
    if info.get("redis_mode") == "cluster":
        text = "the server is part of a Redis Cluster, which this broker does not follow from node to node"
        found.append(Finding("error", text, "use one server, with replicas and a failover in front of it if need be"))
    return found


def _persistence(config: Mapping[str, str]) -> Finding:
    """How much a crash of the server may lose: its window."""
    fsync = config.get("appendfsync")
    if config.get("appendonly") == "yes":
        if fsync == "always":
            return Finding("info", "a crash of the server loses nothing (appendfsync always)")
        if fsync == "everysec":
            return Finding(
                "info", "a crash of the server loses up to about one second of enqueues (appendfsync everysec)"
            )
        if fsync == "no":
            text = "a crash of its machine loses what the system had not written yet, often 30 seconds (appendfsync no)"
            return Finding("warning", text, "CONFIG SET appendfsync everysec, then CONFIG REWRITE")
        return Finding("info", "a crash of the server loses what its append-only file does not hold yet")
    if "save" not in config:
        return Finding(
            "warning", "there is no append-only file: a crash may lose all since the last snapshot", _AOF_HINT
        )
    if config["save"].strip():
        text = f"a crash of the server loses all since its last snapshot ({_snapshots(config['save'])})"
        return Finding("warning", text, _AOF_HINT)
    return Finding("warning", "the server keeps nothing: a restart of it loses everything it holds", _AOF_HINT)


def _snapshots(save: str) -> str:
    """``3600 1 60 10000`` in words."""
    numbers = save.split()
    pairs = zip(numbers[::2], numbers[1::2], strict=False)
    return ", ".join(f"every {seconds} s with {changes} changes or more" for seconds, changes in pairs)


def _parsed(info: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in info.decode(errors="replace").splitlines())
    return {name: value.strip() for name, colon, value in lines if colon}
