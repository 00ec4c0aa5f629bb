#!/usr/bin/python3
"""Checks that files depend on each other in one direction only.

- The linker sees the floors and rooms of layers.py as the compiler does: an object uses no symbol
  of a file that its own may not include, even if it declares the symbol by hand.
- Within a folder (or a room of it) neither includes nor links form a circle, except where ALLOWED
  says why.

Links come from nm, includes from the sources. The test first judges made-up circles.

Usage: cycles.py SOURCE_ROOT BUILD_ROOT
"""
import collections
import json
import os
import re
import subprocess
import sys

from layers import judge, room

# Circles that may stay: the names of the files, without folder and suffix, and the reason.
ALLOWED = [
    ({"lapic", "lapic_regs", "lapic_set", "lapic_timer"},
     "one device, cut by what its registers are about; its lock and its IRR are in lapic.c"),
    ({"vm", "vcpu", "pause", "hold"},
     "a VM starts its vCPUs' threads, and a vCPU's thread pauses, ends or resets its VM; a hold parks them"),
]

INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)


def objects(source_root, build_root):
    """The objects of the library and the command: path of the source, relative to src/, and of the
    object."""
    src = os.path.realpath(os.path.join(source_root, "src"))
    with open(os.path.join(build_root, "compile_commands.json"), encoding="utf-8") as file:
        commands = json.load(file)
    for command in commands:
        source = os.path.realpath(os.path.join(command["directory"], command["file"]))
        output = os.path.join(command["directory"], command["output"])
        if source.startswith(src + os.sep) and source.endswith(".c") and os.path.exists(output):
            yield os.path.relpath(source, src), output


def symbols(output):
    """What an object defines for others, and what it wants of others."""
    lines = subprocess.run(["nm", "--format=posix", "--extern-only", output], check=True,
                           capture_output=True, text=True).stdout.splitlines()
    kinds = [line.split()[:2] for line in lines]
    return ({name for name, kind in kinds if kind not in "Uwv"},
            {name for name, kind in kinds if kind in "Uwv"})


def links(found):
    """Which source uses which, by FOUND, pairs of a source and an object: source -> source -> the
    symbols."""
    defined, wanted = {}, {}
    for source, output in found:
        defines, wants = symbols(output)
        wanted[source] = wants
        defined.update((name, source) for name in defines)
    graph = collections.defaultdict(lambda: collections.defaultdict(list))
    for source, names in wanted.items():
        for name in sorted(names):
            if defined.get(name, source) != source:
                graph[source][defined[name]].append(name)
    return graph


def includes(src):
    """Which file includes which, both relative to SRC."""
    graph = collections.defaultdict(dict)
    for folder, _, names in os.walk(src):
        for name in names:
            if not name.endswith((".c", ".h")):
                continue
            path = os.path.join(folder, name)
            with open(path, encoding="utf-8") as file:
                for other in INCLUDE.findall(file.read()):
                    if os.path.exists(os.path.join(src, other)):
                        graph[os.path.relpath(path, src)][other] = []
    return graph


def circles(graph):
    """The sets of nodes of GRAPH that reach each other (Tarjan's strongly connected components)."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph.get(node, ()):
            if other not in index:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == index[node]:
            at = stack.index(node)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def within_rooms(graph):
    """GRAPH without what leads out of a room."""
    return {node: [other for other in others if room(other) == room(node)]
            for node, others in graph.items()}


def stem(path):
    """The name of the file at PATH, without suffix."""
    return os.path.splitext(os.path.basename(path))[0]


def is_allowed(circle):
    """Whether one entry of ALLOWED has all files of CIRCLE."""
    stems = {stem(path) for path in circle}
    return any(stems <= files for files, _ in ALLOWED)


def describe(graph, circle):
    """The edges of CIRCLE, one a line."""
    for node in circle:
        for other in sorted(set(graph[node]) & set(circle)):
            yield f"    {node} -> {other}  {' '.join(graph[node][other][:4])}"


def self_test():
    """Judges graphs whose answers are known; returns what was judged wrongly."""
    cases = [
        ({"a": ["b"], "b": ["c"]}, []),
        ({"a": ["b"], "b": ["c"], "c": ["a"], "d": ["a"]}, [["a", "b", "c"]]),
        ({"a": ["b"], "b": ["a"], "c": ["d"], "d": ["c", "a"]}, [["a", "b"], ["c", "d"]]),
    ]
    wrong = [f"self-test: {graph} has circles {circles(graph)}, not {expected}"
             for graph, expected in cases if circles(graph) != expected]
    crossing = {"cpu/bt/a.c": {"cpu/core/b.c": []}, "cpu/core/b.c": {"cpu/bt/a.c": []}}
    if circles(within_rooms(crossing)):
        wrong.append("self-test: rooms were not kept apart")
    return wrong


def main():
    source_root, build_root = sys.argv[1:3]
    found = list(objects(source_root, build_root))
    linked = links(found)
    problems = self_test()
    for source, others in linked.items():
        for other, names in others.items():
            wrong = judge(source, other)
            if wrong:
                problems.append(f"{wrong} by linking: {' '.join(names)}")
    for what, graph in (("links", linked),
                        ("includes", includes(os.path.join(source_root, "src")))):
        for circle in circles(within_rooms(graph)):
            if not is_allowed(circle):
                problems.append(f"{what} form a circle:")
                problems += describe(graph, circle)
    for files, _ in ALLOWED:
        if not files <= {stem(source) for source, _ in found}:
            problems.append(f"ALLOWED names a file that there is not: {' '.join(sorted(files))}")
    for problem in problems:
        print(problem)
    print(f"{len(found)} objects checked")
    sys.exit(1 if problems or not found else 0)


if __name__ == "__main__":
    main()
