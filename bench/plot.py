"""Draws the benchmark's results: for each test, how many times as long as natively it takes."""
import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402  (the backend must be chosen first)

# Colours that people with any kind of colour vision can tell apart (Okabe and Ito).
COLOURS = ["#0072B2", "#56B4E9", "#009E73", "#CC79A7", "#E69F00"]
TCG_COLOUR = "#D55E00"
DRAWN = {"compute": "computing", "os": "operating system", "jit": "fresh code",
         "programs": "programs"}


def rows(found):
    """Labels from top to bottom with their ratios by machine; None: a gap between groups."""
    for group, title in DRAWN.items():
        tests = [t for t in found.tests(group) if "native" in found.median[t]]
        if not tests:
            continue
        yield f"{title}: mean", {m: found.mean(group, m, "native") for m in found.machines}
        for test in tests:
            yield test, {m: found.ratio(test, m, "native") for m in found.machines}
        yield None


def draw(found, path):
    """False when there is nothing to compare with."""
    shown = [m for m in found.machines if m != "native"]
    lines = list(rows(found))[:-1]
    if not shown or not lines:
        return False
    colours = dict(zip(found.engines, COLOURS))
    figure, axes = pyplot.subplots(figsize=(9, 0.24 * len(lines) + 1.4), dpi=110)
    for y, line in enumerate(lines):
        if not line:
            continue
        name, ratios = line
        mean = name.endswith(": mean")
        axes.axhline(y, color="#dddddd", linewidth=0.6, zorder=0)
        for machine in shown:
            if ratios.get(machine):
                axes.plot(ratios[machine], y, "D" if mean else "o", zorder=2,
                          color=colours.get(machine, TCG_COLOUR), markersize=8 if mean else 5.5)
    labels = [(y, line[0]) for y, line in enumerate(lines) if line]
    axes.set_yticks([y for y, _ in labels], [name for _, name in labels], fontsize=8)
    for tick, (_, name) in zip(axes.get_yticklabels(), labels):
        tick.set_fontweight("bold" if name.endswith(": mean") else "normal")
    axes.set_ylim(len(lines) - 0.3, -0.7)
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=1)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(matplotlib.ticker.LogLocator(subs=(2, 5)))
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.tick_params(axis="x", which="both", labelsize=8, labeltop=True, top=True)
    axes.grid(axis="x", which="both", color="#eeeeee", zorder=0)
    for machine in shown:
        axes.plot([], [], "o", color=colours.get(machine, TCG_COLOUR),
                  label={"tcg": "QEMU TCG"}.get(machine, machine))
    axes.legend(loc="lower right", fontsize=8)
    axes.set_title("Time, as a multiple of native (less is better)", fontsize=10)
    for side in ("left", "right", "top", "bottom"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(path)
    return True
