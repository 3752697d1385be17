#!/usr/bin/env python3
"""Draws results.json of bench/peers/run: tokens a second of every engine, weights of one size side
by side, as an SVG.

    bench/peers/chart.py WORK/results.json docs/peers.svg
"""
import html
import json
import sys

SIZES = {"4 bits": ("int4", "int4-packed", "q4_K"), "8 bits": ("int8", "int8-packed", "q8_0"),
         "BF16": ("bf16", "bf16-packed")}
CASES = {"prefill 2048": "prompt of 2,048 tokens", "decode at 0": "a token after no context",
         "decode at 8192": "a token after 8K", "decode at 32768": "a token after 32K"}
OURS = "longcat"
PANEL, NAME, BAR = 330, 96, 150  # widths: of a panel, of an engine's name, of the longest bar
LINE, HEAD, TOP = 17, 26, 62     # heights: of a bar, of a case's title, above all


def engines_of(result, weights):
    """{engine: {case: tokens a second, 0 if it took too long}}, ours first, the fastest layout."""
    engines = {OURS: {}}
    for row in result["rows"]:
        if row.get("weights") not in weights or "cases" not in row:
            continue
        speeds = engines.setdefault(row["engine"], {})
        for case in CASES:
            speeds[case] = max(speeds.get(case, 0), row["cases"][case].get("median", 0))
    return {engine: speeds for engine, speeds in engines.items() if speeds}


def number(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def text(x, y, what, kind=""):
    return f'<text x="{x:.0f}" y="{y:.0f}" class="{kind}">{html.escape(what)}</text>'


def case_bars(engines, case, x, y):
    most = max(speeds[case] for speeds in engines.values()) or 1
    out = []
    for engine, speeds in engines.items():
        width = max(1, BAR * speeds[case] / most)
        out.append(text(x + NAME - 6, y + 12, engine, "name"))
        out.append(f'<rect x="{x + NAME}" y="{y + 1}" width="{width:.0f}" height="{LINE - 4}" '
                   f'class="{"ours" if engine == OURS else "peer"}"/>')
        shown = number(speeds[case]) if speeds[case] else "took too long"
        out.append(text(x + NAME + width + 5, y + 12, shown, "number"))
        y += LINE
    return out


def draw(result):
    panels = {size: engines_of(result, weights) for size, weights in SIZES.items()}
    panels = {size: engines for size, engines in panels.items() if engines}
    deepest = max(len(engines) for engines in panels.values())
    width, height = PANEL * len(panels) + 20, TOP + len(CASES) * (HEAD + LINE * deepest) + 12
    machine = result["machine"]
    cap = f" up to {result['isa']}" if result.get("isa") else ""
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
           f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
           "<style>.ours{fill:#d9480f}.peer{fill:#adb5bd}.name{text-anchor:end;fill:#343a40}"
           ".number{fill:#343a40}.title{font-weight:bold}.note{fill:#495057}</style>",
           f'<rect width="{width}" height="{height}" fill="white"/>',
           text(12, 20, f"Tokens a second: {machine['cpu']}{cap}, {result['threads']} threads, "
                f"{machine['date'][:10]}; Flash-Lite's widths, 3 layers", "title")]
    for i, (size, engines) in enumerate(panels.items()):
        x, y = 10 + i * PANEL, TOP
        out.append(text(x, 46, size, "title"))
        for case, title in CASES.items():
            out.append(text(x, y + 12, title, "note"))
            out += case_bars(engines, case, x, y + HEAD - 6)
            y += HEAD + LINE * deepest
    return "\n".join([*out, "</svg>", ""])


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    with open(sys.argv[1]) as f:
        result = json.load(f)
    with open(sys.argv[2], "w") as f:
        f.write(draw(result))


if __name__ == "__main__":
    main()
