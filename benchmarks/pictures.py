"""Draws a table as an SVG picture: bars, or curves where something grows.

The ground is transparent and every colour a middle tone, so that a picture can be read on a
white page and on a dark one, whichever of them its reader has asked for. There is nothing in
the text that changes by itself: the same figures give the same file.
"""

import math
from xml.sax.saxutils import escape, quoteattr

from options import OURS, find_family

WIDTH = 760
MARGIN = 12
TITLE_SIZE = 16
TEXT_SIZE = 13
SMALL_SIZE = 11
FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', Helvetica, Arial, sans-serif"
CHARACTER_WIDTH = 0.58  # of the size, about; wide letters make up for narrow ones

# All have a contrast of more than 3 on white and on nearly black.
INK = "#777d84"
LINES = "#9aa0a6"
BAR = "#8f979f"
ACCENT = "#2f86d6"
CURVE_COLOURS = {
    OURS: ACCENT,
    "c": INK,
    "gevent": "#3f9550",
    "asyncio": "#b5791c",
    "uvloop": "#d0574a",
    "trio": "#9a68c9",
}

ROW_HEIGHT = 23
BAR_HEIGHT = 13
VALUE_WIDTH = 64
PLOT_HEIGHT = 300
LABEL_HEIGHT = 16


def format_number(number):
    """Return a number with three digits or so."""
    if number == 0:
        return "0"
    if abs(number) >= 100:
        return f"{number:,.0f}"
    return f"{number:.1f}" if abs(number) >= 10 else f"{number:.2f}"


def measure_name(name, is_bold):
    """Return about how wide a contestant's name is."""
    return len(name) * TEXT_SIZE * CHARACTER_WIDTH * (1.12 if is_bold else 1)


def is_ours(name):
    return find_family(name) == OURS


def place(number):
    """Return a coordinate as text, to a tenth of a pixel."""
    return f"{number:.1f}".removesuffix(".0")


class Canvas:
    """The elements of a picture, one a line; y grows downwards."""

    def __init__(self):
        self.elements = []
        self.y = MARGIN

    def add(self, tag, content=None, **attributes):
        pairs = {name.replace("_", "-"): value for name, value in attributes.items()}
        for name, value in pairs.items():
            pairs[name] = place(value) if isinstance(value, (int, float)) else value
        words = " ".join([tag, *(f"{name}={quoteattr(value)}" for name, value in pairs.items())])
        ending = "/>" if content is None else f">{escape(content)}</{tag}>"
        self.elements.append(f"<{words}{ending}")

    def text(self, x, y, content, **attributes):
        self.add("text", content, x=x, y=y, **attributes)

    def heading(self, title, unit):
        self.y += TITLE_SIZE
        self.text(MARGIN, self.y, title, font_size=TITLE_SIZE, font_weight="600")
        self.y += 19
        self.text(MARGIN, self.y, f"{unit}; less is better", font_size=SMALL_SIZE + 1)
        self.y += 14

    def finish(self, title, footnote):
        self.y += SMALL_SIZE + 8
        self.text(MARGIN, self.y, footnote, font_size=SMALL_SIZE)
        self.y += MARGIN
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {place(self.y)}" '
            f'width="{WIDTH}" height="{place(self.y)}" role="img" aria-label={quoteattr(title)} '
            f'font-family="{FONT}" font-size="{TEXT_SIZE}" fill="{INK}">'
        )
        return "\n".join([head, f"<title>{escape(title)}</title>", *self.elements, "</svg>", ""])


def draw(title, chart, footnote):
    """Return the picture of a figures.Chart as the text of an SVG file."""
    canvas = Canvas()
    canvas.heading(title, chart.unit)
    if chart.x_axis:
        draw_curves(canvas, chart)
    else:
        draw_bars(canvas, chart)
    return canvas.finish(title, footnote)


# Bars.


def choose_bar_scale(spreads):
    """Return what the longest bar stands for; a spread beyond that is cut off."""
    longest = max(spread.median for spread in spreads)
    return max(longest, min(max(spread.high for spread in spreads), 1.25 * longest)) or 1.0


def draw_bars(canvas, chart):
    """Draw the groups one below the other, the cheapest first in each."""
    everybody = [spread for members in chart.groups.values() for spread in members.values()]
    names = {name for members in chart.groups.values() for name in members}
    left = MARGIN + max(measure_name(name, is_ours(name)) for name in names) + 10
    for group, members in chart.groups.items():
        compared = members.values() if chart.own_scales else everybody
        scale = (WIDTH - MARGIN - VALUE_WIDTH - left) / choose_bar_scale(compared)
        if group:
            canvas.y += 20
            canvas.text(MARGIN, canvas.y, group, font_weight="600")
            canvas.y += 6
        for name, spread in sorted(members.items(), key=lambda each: each[1].median):
            draw_bar(canvas, left, scale, name, spread)


def draw_bar(canvas, left, scale, name, spread):
    middle = canvas.y + ROW_HEIGHT / 2
    colour = ACCENT if is_ours(name) else BAR
    weight = {"font_weight": "600"} if is_ours(name) else {}
    end = left + max(spread.median * scale, 1)
    right_edge = WIDTH - MARGIN - VALUE_WIDTH
    low, high = (min(left + each * scale, right_edge) for each in (spread.low, spread.high))
    canvas.text(left - 10, middle + 4.5, name, text_anchor="end", **weight)
    canvas.add(
        "rect",
        x=left,
        y=middle - BAR_HEIGHT / 2,
        width=end - left,
        height=BAR_HEIGHT,
        rx=2,
        fill=colour,
    )
    if high - low >= 1:
        canvas.add("path", d=f"M{place(low)} {place(middle)}H{place(high)}", stroke=INK)
    value = format_number(spread.median)
    canvas.text(max(end, high) + 7, middle + 4.5, value, **weight)
    canvas.y += ROW_HEIGHT


# Curves.


def choose_ticks(highest):
    """Return the places of the lines across, from 0 up, the last one not below `highest`."""
    raw_step = max(highest, 1e-9) / 4
    size = 10.0 ** math.floor(math.log10(raw_step))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= raw_step)
    return [step * number for number in range(math.ceil(highest / step - 1e-9) + 1)]


def spread_labels(heights, lowest, gap=LABEL_HEIGHT):
    """Move labels apart that would lie on one another; return their heights, in the order given.

    Those that meet are put one under the other around the middle of where they belong, but
    none below `lowest`.
    """
    blocks = []  # each [indices from the top, the height of the first]
    for index in sorted(range(len(heights)), key=heights.__getitem__):
        blocks.append([[index], heights[index]])
        while len(blocks) > 1 and blocks[-1][1] < blocks[-2][1] + gap * len(blocks[-2][0]):
            indices = blocks[-2][0] + blocks.pop()[0]
            middle = sum(heights[each] for each in indices) / len(indices)
            blocks[-1] = [indices, middle - gap * (len(indices) - 1) / 2]
    placed = list(heights)
    for indices, first in blocks:
        for number, index in enumerate(indices):
            placed[index] = first + gap * number
    for index in sorted(range(len(placed)), key=placed.__getitem__, reverse=True):
        placed[index] = min(placed[index], lowest)
        lowest = placed[index] - gap
    return placed


def collect_curves(chart):
    """Return {name: [(x, Spread)]} from {x: {name: Spread}}."""
    curves = {}
    for x, members in chart.groups.items():
        for name, spread in members.items():
            curves.setdefault(name, []).append((float(x), spread))
    return curves


def draw_curves(canvas, chart):
    curves = collect_curves(chart)
    places = [float(x) for x in chart.groups]
    ticks = choose_ticks(max(each.median for points in curves.values() for _, each in points))
    left = MARGIN + 44
    right = WIDTH - MARGIN - max(measure_name(name, True) for name in curves) - 16
    bottom = canvas.y + PLOT_HEIGHT
    span = math.log(max(places) / min(places)) or 1.0

    def find_x(number):
        return left + (right - left) * math.log(number / min(places)) / span

    def find_y(number):
        return bottom - min(number / ticks[-1], 1) * (PLOT_HEIGHT - 10)

    for tick in ticks:
        height = find_y(tick)
        canvas.add(
            "path",
            d=f"M{place(left)} {place(height)}H{place(right)}",
            stroke=LINES,
            stroke_opacity="0.35",
        )
        canvas.text(left - 8, height + 4, f"{tick:g}", text_anchor="end", font_size=SMALL_SIZE + 1)
    for number in places:
        canvas.text(find_x(number), bottom + 18, f"{number:,.0f}", text_anchor="middle")
    draw_lines(canvas, curves, find_x, find_y)
    heights = [find_y(points[-1][1].median) for points in curves.values()]
    ends = spread_labels(heights, bottom - 4)
    for (name, _), height in zip(curves.items(), ends, strict=True):
        canvas.text(right + 12, height + 4.5, name, fill=find_colour(name), font_weight="600")
    canvas.y = bottom + 36
    canvas.text((left + right) / 2, canvas.y, chart.x_axis, text_anchor="middle")
    canvas.y += 6


def find_colour(name):
    return CURVE_COLOURS.get(find_family(name), INK)


def draw_lines(canvas, curves, find_x, find_y):
    """Draw each curve with its dots; ours is the thickest."""
    for name, points in curves.items():
        colour = find_colour(name)
        dots = [(find_x(x), find_y(spread.median)) for x, spread in points]
        path = "M" + "L".join(f"{place(x)} {place(y)}" for x, y in dots)
        width = 3 if is_ours(name) else 1.8
        canvas.add("path", d=path, fill="none", stroke=colour, stroke_width=width)
        for (x, y), (_, spread) in zip(dots, points, strict=True):
            low, high = place(find_y(spread.low)), place(find_y(spread.high))
            if low != high:
                canvas.add("path", d=f"M{place(x)} {low}V{high}", stroke=colour)
            canvas.add("circle", cx=x, cy=y, r=width + 1, fill=colour)
