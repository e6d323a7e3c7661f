"""Look at a model's computation graph, and at the report of an initialization.

python examples/inspect_graph.py
"""

from collections import Counter

import ghn
from ghn.graph.draw import draw


def main() -> None:
    """Trace, describe and draw; then initialize and read the report."""
    model = ghn.load_model("timm:test_convnext", num_classes=10)
    graph = ghn.trace(model)
    print(f"{len(graph.nodes)} operations, {len(graph.edges)} edges")
    print(f"{graph.coverage():.0%} of the parameters belong to an operation that runs")
    print("operations:", dict(Counter(node.kind for node in graph.nodes).most_common(6)))
    for spec in graph.params[:4]:
        print(f"  {spec.name} {spec.shape}: {spec.role}, axes {spec.axes}")
    draw(graph, "graph.svg", title="test_convnext")
    print("drew graph.svg")

    report = ghn.init_(model)
    print(report)
    print("roles:", dict(Counter(entry.role for entry in report.parameters)))
    for entry in report.parameters:
        if entry.fate != "predicted":
            print(f"  {entry.name}: {entry.fate}, {entry.reason}")


if __name__ == "__main__":
    main()
