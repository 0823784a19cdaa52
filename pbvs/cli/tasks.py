"""`pbvs tasks list | show`: the tasks and their graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pbvs.cli import console
from pbvs.cli.options import JsonFlag, SetOption, SolutionOption, TasksFolderOption

if TYPE_CHECKING:
    from pbvs.graph.graph import TaskGraph

app = typer.Typer(help="The tasks and their graphs.", no_args_is_help=True)


@app.command("list")
def list_tasks(
    tasks: TasksFolderOption = None, solution: SolutionOption = None, json: JsonFlag = False
) -> None:
    """Every task with its graph in a line."""
    from pbvs.graph.task_files import tasks_folder
    from pbvs.graph.task_set import TaskSet

    task_set = TaskSet(tasks_folder(solution, tasks))
    graphs = [task_set.graph(name) for name in task_set.names]
    if json:
        console.result_json([graph.described() for graph in graphs])
        return
    rows = [
        (g.spec.task, f"{g.spec.source} -> {g.spec.target}", _size(g), _chain(g), _origin(g)) for g in graphs
    ]
    console.table(None, ("task", "translates", "size", "images flow through", "first weights"), rows)


@app.command()
def show(
    task: Annotated[str, typer.Argument(help="Name of the task.")],
    tasks: TasksFolderOption = None,
    solution: SolutionOption = None,
    set_: SetOption = None,
    json: JsonFlag = False,
) -> None:
    """One task: its nodes, both kinds of edge, and every setting."""
    from pbvs.graph.task_files import tasks_folder
    from pbvs.graph.task_set import task_set_with

    graph = task_set_with(tasks_folder(solution, tasks), task, set_).graph(task)
    if json:
        console.result_json(graph.described())
        return
    spec = graph.spec
    console.result(f"{spec.task}: {spec.source} -> {spec.target} at {_size(graph)} ({spec.file})")
    console.result("images flow:")
    for start, end in graph.image_edges:
        node = spec.nodes[end]
        trained = f"  (trained: {node.use} version {node.system.version})" if node.trained else ""
        console.result(f"  {start} -> {end}{trained}")
    if graph.weight_edges:
        console.result("weights come from another task:")
        for edge in graph.weight_edges:
            console.result(f"  {edge.from_task} ~> {edge.to_node}")
    for node in graph.described()["nodes"]:
        for name, view in node.get("views", {}).items():
            console.result(f"{node['name']} is trained on {name}: {view}")
    console.result("settings:")
    for key, value in _flat(spec.resolved()):
        console.result(f"  {key} = {value}")


def _size(graph: TaskGraph) -> str:
    return f"{graph.spec.size_px[0]} x {graph.spec.size_px[1]}"


def _chain(graph: TaskGraph) -> str:
    words = []
    for name in graph.order:
        node = graph.spec.nodes[name]
        factor = getattr(node.params, "factor", None)
        words.append(f"{name} {factor}" if factor else name)
    return " -> ".join(["source", *words])


def _origin(graph: TaskGraph) -> str:
    if graph.weight_edges:
        return ", ".join(f"{edge.from_task} ~> {edge.to_node}" for edge in graph.weight_edges)
    return "fresh" if graph.trained else "nothing to train"


def _flat(value: object, prefix: str = "") -> list[tuple[str, object]]:
    if not isinstance(value, dict):
        return [(prefix, value)]
    return [pair for key, v in value.items() for pair in _flat(v, f"{prefix}.{key}" if prefix else str(key))]
