#!/usr/bin/env python3
"""Draws the ratios of benches/compare.py as a bar chart.

    benches/chart.py RESULTS.json CHART.svg

A bar is PyTorch's time over ours, on a logarithmic axis: to the right of the line at 1 this project is faster.
"""
import html
import json
import math
import pathlib
import sys

ROW, BAR, LEFT, WIDTH, TOP, RIGHT = 22, 14, 260, 560, 64, 70
MARKS = (0.5, 1, 2, 4, 8, 16, 32, 64)


def chart(results):
    cases = [c for c in results["cases"] if c.get("ratio")]
    low = min([0.5] + [c["ratio"] for c in cases])
    high = max([2.0] + [c["ratio"] for c in cases]) * 1.1
    place = lambda ratio: LEFT + WIDTH * math.log(ratio / low) / math.log(high / low)
    height = TOP + ROW * len(cases) + 30
    machine = f"{results['cpu']}, {results['isa']}, {results['threads']} threads; {results['peer']}; {results['date']}"
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + RIGHT}" height="{height}" font-family="sans-serif" font-size="12">',
           '<rect width="100%" height="100%" fill="#fff"/>',
           '<text x="12" y="22" font-size="15" font-weight="bold">PyTorch time / tomograd time</text>',
           f'<text x="12" y="42" fill="#555">{html.escape(machine)}</text>']
    for mark in MARKS:
        if low <= mark <= high:
            x, dark = place(mark), mark == 1
            out.append(f'<line x1="{x:.1f}" y1="{TOP - 6}" x2="{x:.1f}" y2="{height - 24}" stroke="{"#333" if dark else "#ddd"}"/>')
            out.append(f'<text x="{x:.1f}" y="{height - 8}" text-anchor="middle" fill="#555">{mark:g}</text>')
    for i, case in enumerate(cases):
        y, one, end = TOP + ROW * i, place(1), place(case["ratio"])
        colour = "#2a7fb8" if case["ratio"] >= 1 else "#c8553d"
        out.append(f'<text x="{LEFT - 10}" y="{y + 11}" text-anchor="end">{html.escape(case["case"])}</text>')
        out.append(f'<rect x="{min(one, end):.1f}" y="{y}" width="{abs(end - one):.1f}" height="{BAR}" fill="{colour}"/>')
        out.append(f'<text x="{max(one, end) + 5:.1f}" y="{y + 11}">{case["ratio"]:.2f}</text>')
    return "\n".join(out + ["</svg>"]) + "\n"


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    results = json.loads(pathlib.Path(sys.argv[1]).read_text())
    pathlib.Path(sys.argv[2]).write_text(chart(results))


if __name__ == "__main__":
    main()
