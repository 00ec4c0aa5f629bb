"""What a run of the benchmark found, as text for a terminal, Markdown, JSON and a plot."""
import json
import math
import os
import statistics

try:
    import plot
except ImportError:  # matplotlib is not there
    plot = None

TITLES = {"compute": "Computing", "os": "Operating system", "jit": "Freshly written code",
          "programs": "Programs", "smp": "Two CPUs", "disks": "Disks", "kernel": "Kernel"}
MAX_DRIFT = 0.01
MAIN_ENGINES = ["bt", "interp"]  # the first that was measured is held against the targets


def human_time(ns):
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}" if ns / size < 1000 else f"{ns / size:.0f} {unit}"
    return f"{ns:.3g} ns"


def human_ratio(ratio):
    return "" if ratio is None else f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}"


def human_count(count):
    return f"{count:.2g}" if count < 10 else f"{count:.0f}"


def geometric_mean(values):
    values = [v for v in values if v]
    return math.exp(sum(map(math.log, values)) / len(values)) if values else None


class Found:
    """The medians, and what follows from them."""

    def __init__(self, results):
        self.results = results
        self.machines, self.engines = results["machines"], results["engines"]
        self.median = {name: {m: statistics.median(ns) for m, ns in test["ns"].items() if ns}
                       for name, test in results["tests"].items()}

    def ratio(self, test, above, below):
        """How many times as long ABOVE takes as BELOW; None where one of them has no result."""
        median = self.median[test]
        return median[above] / median[below] if above in median and below in median else None

    def tests(self, group):
        return [n for n, test in self.results["tests"].items() if test["group"] == group]

    def mean(self, group, above, below):
        return geometric_mean(self.ratio(t, above, below) for t in self.tests(group))

    def processor(self, test, machine):
        """The processor's ns for a request, or None."""
        spent = self.results["tests"][test].get("processor_ns", {}).get(machine)
        return statistics.median(spent) if spent else None

    def groups(self):
        return [g for g in TITLES if any(self.median[t] for t in self.tests(g))]

    def boot(self, machine, what="first_ns"):
        found = self.results["boot"].get(machine)
        return statistics.median(found[what]) if found else None

    def beside_guest(self, machine):
        """Memory of the monitor beyond the guest's, in bytes."""
        counted = self.results["boot"].get(machine, {}).get("statistics")
        return counted["resident"] - counted["guest_resident"] if counted else None

    def exits(self, machine):
        """How many exits it counted while it booted, and the ns that they took, by cause; not the time that it was
        halted."""
        counted = self.results["boot"].get(machine, {}).get("statistics", {})
        spent = counted.get("exit_ns", {})
        return {cause: (count, spent[cause]) for cause, count in counted.get("exits", {}).items()
                if count and spent.get(cause) and cause != "halt"}

    def translation_ns(self, machine):
        """The time to translate one of the guest's instructions, while it booted."""
        counted = self.results["boot"].get(machine, {}).get("statistics", {"work": {}})["work"]
        count = counted.get("translated-instructions")
        return counted["translation-us"] * 1000 / count if count else None


# --- Tables: a title, a head and rows of cells; a row that begins with None sums up ----------------


def test_table(found, group):
    others = [m for m in found.machines if m != "native"]
    pairs = [(e, "tcg") for e in found.engines if "tcg" in found.machines]
    native = "native" in found.machines
    head = ["test", "operation"] + ["native"] * native
    for machine in others:
        head += [machine] + ["x native"] * native
    head += [f"{b} / {a}" for a, b in pairs]
    rows = []
    for test in found.tests(group):
        median = found.median[test]
        row = [test, found.results["tests"][test]["what"]]
        for machine in ["native"] * native + others:
            row.append(human_time(median[machine]) if machine in median else "-")
            if native and machine != "native":
                row.append(human_ratio(found.ratio(test, machine, "native")))
        rows.append(row + [human_ratio(found.ratio(test, b, a)) for a, b in pairs])
    if group in ("kernel", "smp", "disks") or not others:
        return TITLES[group], head, rows
    mean = [None, "geometric mean"] + [""] * native
    for machine in others:
        mean += [""] + [human_ratio(found.mean(group, machine, "native"))] * native
    rows.append(mean + [human_ratio(found.mean(group, b, a)) for a, b in pairs])
    return TITLES[group], head, rows


def boot_table(found):
    head = ["machine", "first program", "shell", "x TCG's microvm", "monitor's memory",
            "translating an instruction"]
    rows = []
    for machine in found.results["boot"]:
        beside, tcg = found.beside_guest(machine), found.boot("tcg-microvm")
        translation = found.translation_ns(machine)
        rows.append([machine, human_time(found.boot(machine)),
                     human_time(found.boot(machine, "shell_ns")),
                     human_ratio(found.boot(machine) / tcg) if tcg else "",
                     f"{beside / (1 << 20):.0f} MiB" if beside is not None else "",
                     human_time(translation) if translation else ""])
    return "Booting Debian's kernel", head, rows


def processor_table(found):
    """What a request to a disk costs in processor time, and a disk in memory."""
    tests = found.tests("disks")
    machines = [m for m in found.machines if any(found.processor(t, m) for t in tests)]
    pairs = [(e, "tcg") for e in found.engines if e in machines and "tcg" in machines]
    rows = []
    for test in tests:
        spent = {m: found.processor(test, m) for m in machines}
        rows.append([test] + [human_time(spent[m]) if spent[m] else "-" for m in machines] +
                    [human_ratio(spent[b] / spent[a]) if spent[a] and spent[b] else "" for a, b in pairs])
    rows.append(["memory beside the guest's"] +
                [f"{found.results['disk_bytes'].get(m, 0) / (1 << 20):.0f} MiB" for m in machines] +
                [""] * len(pairs))
    return "Disks: processor time for a request", ["test"] + machines + [f"{b} / {a}" for a, b in pairs], rows


def path_table(found, engine):
    paths = found.results["paths"][engine]
    head = ["path", "native", "tcg", engine, "instructions", "exits", "by cause"]
    rows = []
    for path, counted in paths.items():
        exits = {c: n for c, n in counted.items() if c != "instructions" and n >= 0.01}
        most = sorted(exits.items(), key=lambda item: -item[1])
        spins = found.results["tests"][path]["group"] == "kernel"
        rows.append([path] + [human_time(found.median[path][m]) if m in found.median[path] else "-"
                              for m in ("native", "tcg", engine)] +
                    ["" if spins else human_count(counted["instructions"]),
                     human_count(sum(exits.values())),
                     ", ".join(f"{cause} {human_count(n)}" for cause, n in most)])
    return f"Kernel paths under {engine}, one operation", head, rows


def exit_table(found):
    """What an exit costs while the kernel boots, by its cause."""
    engines = [e for e in found.engines if found.exits(e)]
    causes = sorted({cause for e in engines for cause in found.exits(e)})
    rows = []
    for cause in causes:
        row = [cause]
        for engine in engines:
            count, ns = found.exits(engine).get(cause, (0, 0))
            row += [human_count(count) if count else "-", human_time(ns / count) if count else "-"]
        rows.append(row)
    return ("Exits while Debian's kernel boots, and what one takes",
            ["cause"] + [cell for e in engines for cell in (e, "each")], rows)


def tables(found):
    made = [test_table(found, group) for group in found.groups()]
    if any(found.median[t] for t in found.tests("disks")):
        made.append(processor_table(found))
    if found.results["boot"]:
        made.append(boot_table(found))
    if any(found.exits(e) for e in found.engines):
        made.append(exit_table(found))
    return made + [path_table(found, engine) for engine in found.results["paths"]]


# --- Targets ---------------------------------------------------------------------------------------


def at_most(what, value, bound, unit=""):
    return (what, f"{value:.2f}{unit}", f"at most {bound:g}{unit}", value <= bound)


def at_least(what, value, bound, unit=""):
    return (what, f"{value:.2f}{unit}", f"at least {bound:g}{unit}", value >= bound)


def targets(found):
    """What the translator is to reach: (what, value, bound, reached); of a whole run only."""
    engine = next((e for e in MAIN_ENGINES if e in found.engines), None)
    if not engine or not found.results["host"]["whole"]:
        return None, []
    made = []
    compute = found.mean("compute", engine, "native")
    if compute:
        made.append(at_most("computing, times native", compute, 1.8))
    for group, bound in (("compute", 4), ("os", 3)):
        faster = found.mean(group, "tcg", engine)
        if faster:
            made.append(at_least(f"{TITLES[group].lower()}, times as fast as TCG", faster, bound))
    if engine in found.median.get("syscall", {}):
        made.append(at_most("null system call", found.median["syscall"][engine], 250, " ns"))
    for test, bound in (("random-read", 1.5), ("sequential-read", 1.5), ("sequential-write", 1.5),
                        ("flushed-write", 1)):
        if test in found.median and found.ratio(test, "tcg", engine):
            made.append(at_least(f"disk, {test}, times as fast as TCG", found.ratio(test, "tcg", engine), bound))
    beaten = [t for t in found.median if (found.ratio(t, engine, "tcg") or 0) > 1]
    if any(found.ratio(t, engine, "tcg") for t in found.median):
        made.append(("tests slower than TCG", ", ".join(beaten) or "none", "none", not beaten))
    if found.boot(engine) and found.boot("tcg-microvm"):
        made.append(at_most("boot to the first program, times TCG's microvm",
                            found.boot(engine) / found.boot("tcg-microvm"), 0.6))
    one, two = (found.median.get(t, {}).get(engine) for t in ("one-busy", "two-busy"))
    if one and two:
        made.append(at_least("two busy threads, times one", one / two, 1.8))
    if found.translation_ns(engine):
        made.append(at_most("translation, for each guest instruction",
                            found.translation_ns(engine), 1000, " ns"))
    if found.beside_guest(engine):
        made.append(at_most("monitor's memory beyond the guest's",
                            found.beside_guest(engine) / (1 << 20), 48, " MiB"))
    return engine, made


# --- Text ------------------------------------------------------------------------------------------


def circumstances(found):
    host = found.results["host"]
    lines = [f"{host['cpu']}, {host['cpus']} CPUs, Linux {host['kernel']}; {host['doppel']} "
             f"({host['commit']}).",
             f"Medians of {host['rounds']} interleaved rounds in {host['seconds']} s, "
             f"{host['time']}; load {host['load_before']} before, {host['load_after']} after.",
             f"TCG is the translator of {host['qemu']}.",
             "Native programs run under the host's kernel, guests' under Debian's 6.1; natively, "
             "the C library and OpenSSL do without AVX-512, which guests do not have. "
             "What takes over 3 s is measured once."]
    if host["load_before"] > 1:
        lines.append("The host was busy with something else: the figures are noisy.")
    for machine, drifts in found.results["clock"].items():
        drift = max(drifts.values(), key=abs)
        if abs(drift) > MAX_DRIFT:
            lines.append(f"The clock of {machine} was {drift:+.1%} off: do not believe its times.")
    return lines + found.results["errors"]


def plain(found):
    out = []
    for title, head, rows in tables(found):
        cells = [head] + [["" if c is None else c for c in row] for row in rows]
        widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
        left = {0, 1} if title in TITLES.values() else {0, len(head) - 1}
        out.append(f"\n{title}")
        for row in cells:
            line = (c.ljust(w) if i in left else c.rjust(w)
                    for i, (c, w) in enumerate(zip(row, widths)))
            out.append("  " + "  ".join(line).rstrip())
    engine, wanted = targets(found)
    if wanted:
        out.append(f"\nTargets, held against {engine}")
        for what, value, bound, reached in wanted:
            out.append(f"  {'reached' if reached else 'MISSED '}  {what}: {value} ({bound})")
    return "\n".join(out + [""] + circumstances(found)) + "\n"


def markdown(found):
    out = []
    for title, head, rows in tables(found):
        out += [f"### {title}", "", "| " + " | ".join(head) + " |",
                "|" + "|".join("---" if i == 0 else "---:" for i in range(len(head))) + "|"]
        for row in rows:
            bold = row[0] is None
            cells = [row[1], ""] + row[2:] if bold else row
            out.append("| " + " | ".join(f"**{c}**" if bold and c else c for c in cells) + " |")
        out.append("")
    engine, wanted = targets(found)
    if wanted:
        out += [f"### Targets, held against `{engine}`", "", "| | measured | wanted | |",
                "|---|---:|---:|---|"]
        out += [f"| {what} | {value} | {bound} | {'reached' if reached else '**missed**'} |"
                for what, value, bound, reached in wanted] + [""]
    return "\n".join(out) + "\n" + "\n\n".join(circumstances(found)) + "\n"


def write(results, directory):
    """Writes all forms of the results to files, and the plain one to the terminal."""
    found = Found(results)
    results["medians_ns"] = found.median
    results["geometric_means"] = {
        group: {**{f"{m} / native": found.mean(group, m, "native") for m in found.machines},
                **{f"tcg / {e}": found.mean(group, "tcg", e) for e in found.engines}}
        for group in found.groups() if group not in ("kernel", "smp", "disks")}
    results["targets"] = [dict(zip(("what", "value", "bound", "reached"), target))
                          for target in targets(found)[1]]
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, "results.json"), "w", encoding="utf-8") as out:
        json.dump(results, out, indent=1)
        out.write("\n")
    with open(os.path.join(directory, "results.md"), "w", encoding="utf-8") as out:
        out.write(markdown(found))
    print(plain(found))
    drawn = "no plot: python3-matplotlib is missing"
    if plot:
        drawn = "results.png" if plot.draw(found, os.path.join(directory, "results.png")) else ""
    print(f"In {os.path.relpath(directory)}: results.json, results.md" +
          (f", {drawn}" if drawn else ""))
