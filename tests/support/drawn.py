"""What holds of every picture."""

from __future__ import annotations

from itertools import combinations

from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text


def assert_texts_are_legible(figure: Figure) -> None:
    """Every text is inside the picture, and none covers another."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = {
        text: text.get_window_extent()
        for text in figure.findobj(match=Text)
        if isinstance(text, Text) and text.get_text() and text.get_visible()
    }
    for axis in figure.findobj(match=Axis):
        assert isinstance(axis, Axis)
        low, high = sorted(axis.get_view_interval())
        for tick in axis.get_major_ticks():
            if not low <= tick.get_loc() <= high:  # not drawn, but its labels exist
                boxes.pop(tick.label1, None)
                boxes.pop(tick.label2, None)
    width, height = canvas.get_width_height()
    for text, box in boxes.items():
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, text
    for one, other in combinations(boxes, 2):
        assert not boxes[one].overlaps(boxes[other]), (one, other)
