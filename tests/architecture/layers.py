"""The rules of section 9 of the design: who may import whom. Each rule yields one line for each violation.

Imports under ``TYPE_CHECKING`` are free: they load nothing, and types may be named in both directions.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.architecture.package import Import, Module, Package, When

# In the order of the design: a block may import itself and the blocks above it. A module or package that is new
# belongs into one of them.
BLOCKS: dict[str, set[str]] = {
    "start": {"apps"},
    "words": {
        "exceptions", "status", "conf", "conf_brokers", "conf_exchanges", "conf_routes", "conf_workers", "conf_health",
        "clock", "conflicts", "sizes", "signals", "conf_shown", "retry", "schedules", "overdue", "options", "arguments",
        "logging", "flow_options", "unique_options",
    },
    "what travels": {"serializers", "message", "envelope", "steps", "gates", "unique_keys"},
    "rows": {"models", "migrations"},
    "how work is kept": {"brokers"},
    "asking for work": {
        "registry", "context", "cancelling", "control", "routing", "client", "result", "workflows", "canvas", "task",
        "resources", "open_resources", "hooks", "class_hooks", "defining", "plan", "compiling", "composing", "graph",
        "signatures", "task_signatures", "builtin", "canvas_options", "workflow_result", "workflow_sinks",
        "adding", "batch_calls", "task_types", "flow", "keys", "locks", "back_pressure", "uniqueness",
    },
    "doing work": {"worker", "scheduler", "declared", "maintenance", "charging"},
    "edges": {"backend", "pytest_plugin", "admin", "bench", "checks", "router", "testing", "contrib", "management"},
}  # fmt: skip
EDGES = len(BLOCKS) - 1
ASKING = BLOCKS["asking for work"]


def block_of(name: str) -> int | None:
    first = name.split(".")[0]
    return next((index for index, names in enumerate(BLOCKS.values()) if first in names), None)


def every_module_has_a_block(package: Package) -> Iterator[str]:
    for module in package:
        if module.name and block_of(module.name) is None:
            yield f"{module.at(1)} is in no block: put it where the design's section 9 wants it"


def imports_point_upwards(package: Package) -> Iterator[str]:
    for module, found in _runtime_imports(package):
        own, other = block_of(module.name), block_of(found.target)
        if own is not None and other is not None and other > own and not _is_at_liberty(module, found):
            blocks = list(BLOCKS)
            yield f"{module.at(found.line)} ({blocks[own]}) imports {found.target} ({blocks[other]})"


def nothing_imports_the_package_itself(package: Package) -> Iterator[str]:
    """Its public names are lazy, so that would hide which module is meant. Edges use them as a project does."""
    for module, found in _runtime_imports(package):
        if found.target == "" and set(found.names) - {"__version__"} and block_of(module.name) != EDGES:
            names = ", ".join(found.names)
            yield f"{module.at(found.line)} imports {names} from the package, not from the module that defines it"


def no_cycles(package: Package) -> Iterator[str]:
    graph = package.graph()
    for names in _strongly_connected(graph):
        if len(names) > 1 or names[0] in graph[names[0]]:
            yield f"these modules import each other: {', '.join(name or package.root.name for name in sorted(names))}"


def no_imports_in_functions(package: Package) -> Iterator[str]:
    for module in package:
        for found in module.imports:
            if found.when is When.CALL and not _is_at_liberty(module, found):
                yield f"{module.at(found.line)} imports {found.target or 'the package'} inside {found.function}()"


def asking_for_work_loads_no_models(package: Package) -> Iterator[str]:
    """``from django_taskq import task`` has to work before the app registry is ready."""
    graph = package.graph()
    for start in (name for name in graph if name.split(".")[0] in ASKING):
        way = _way_to_models(graph, start)
        if way:
            yield f"importing {start} loads models: {' -> '.join(name or package.root.name for name in way)}"


def _runtime_imports(package: Package) -> Iterator[tuple[Module, Import]]:
    for module in package:
        for found in module.imports:
            if found.when is not When.NEVER:
                yield module, found


def _is_at_liberty(module: Module, found: Import) -> bool:
    """Lazy public names, and AppConfig.ready: the places where an import in a function is the point."""
    lazy_name = module.is_package and found.function == "__getattr__"
    return found.when is When.CALL and (lazy_name or module.name == "apps")


def _way_to_models(graph: dict[str, set[str]], start: str) -> list[str]:
    """The shortest chain of imports from ``start`` to a module of models, or nothing."""
    ways = [[start]]
    seen = {start}
    for way in ways:
        if way[-1].split(".")[0] == "models":
            return way
        # Importing a module first imports the packages it lies in.
        parts = way[-1].split(".")
        parents = {".".join(parts[:length]) for length in range(len(parts))}
        following = sorted(((graph[way[-1]] | parents) & set(graph)) - seen)
        seen.update(following)
        ways.extend([*way, name] for name in following)
    return []


def _strongly_connected(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that reach each other (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in sorted(graph[name]):
            if other not in index:
                visit(other)
            if other in stack:
                low[name] = min(low[name], low[other])
        if low[name] == index[name]:
            position = stack.index(name)
            groups.append(stack[position:])
            del stack[position:]

    for name in sorted(graph):
        if name not in index:
            visit(name)
    return groups


RULES = [
    every_module_has_a_block,
    imports_point_upwards,
    nothing_imports_the_package_itself,
    no_cycles,
    no_imports_in_functions,
    asking_for_work_loads_no_models,
]
