"""`pbvs tasks list | show`: the tasks and their graphs."""

from __future__ import annotations

from typing import Annotated

import typer

from pbvs.cli import console
from pbvs.cli.options import JsonFlag, SetOption, SolutionOption, TasksFolderOption

app = typer.Typer(help="The tasks and their graphs.", no_args_is_help=True)


@app.command("list")
def list_tasks(
    tasks: TasksFolderOption = None, solution: SolutionOption = None, json: JsonFlag = False
) -> None:
    """Lists every task with its graph, one per line."""
    from pbvs.graph.task_files import tasks_folder
    from pbvs.graph.task_set import TaskSet

    task_set = TaskSet(tasks_folder(solution, tasks))
    graphs = [task_set.graph(name) for name in task_set.names]
    if json:
        console.result_json([graph.described() for graph in graphs])
        return
    rows = []
    for graph in graphs:
        spec, chain = graph.spec, ["source"]
        for name in graph.order:
            factor = getattr(spec.nodes[name].params, "factor", None)
            chain.append(f"{name} {factor}" if factor else name)
        origin = ", ".join(f"{edge.from_task} ~> {edge.to_node}" for edge in graph.weight_edges)
        origin = origin or ("fresh" if graph.trained else "nothing to train")
        size = f"{spec.size_px[0]} x {spec.size_px[1]}"
        rows.append((spec.task, f"{spec.source} -> {spec.target}", size, " -> ".join(chain), origin))
    console.table(None, ("task", "translates", "size", "images flow through", "first weights"), rows)


@app.command()
def show(
    task: Annotated[str, typer.Argument(help="Name of the task.")],
    tasks: TasksFolderOption = None,
    solution: SolutionOption = None,
    set_: SetOption = None,
    json: JsonFlag = False,
) -> None:
    """Shows one task: its nodes, both kinds of edge, and every setting."""
    from pbvs.graph.task_files import tasks_folder
    from pbvs.graph.task_set import task_set_with

    graph = task_set_with(tasks_folder(solution, tasks), task, set_).graph(task)
    if json:
        console.result_json(graph.described())
        return
    spec = graph.spec
    size = f"{spec.size_px[0]} x {spec.size_px[1]}"
    console.result(f"{spec.task}: {spec.source} -> {spec.target} at {size} ({spec.file})")
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
    for key, value in _dotted(spec.resolved()):
        console.result(f"  {key} = {value}")


def _dotted(value: object, prefix: str = "") -> list[tuple[str, object]]:
    """Nested tables as pairs of a dotted key and a value."""
    if not isinstance(value, dict):
        return [(prefix, value)]
    return [
        pair for key, v in value.items() for pair in _dotted(v, f"{prefix}.{key}" if prefix else str(key))
    ]
