"""The page, in gradio: lays out inputs and answers, and connects them. Importing it needs gradio."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr

from tools.demo.answers import COLUMNS, Answers, Asked, Chosen, RegionResult, Result, note, problem
from tools.demo.region import format_box

SIDES = ("A", "B")
# Fonts of the system: nothing comes from the network.
THEME = gr.themes.Soft(
    font=("ui-sans-serif", "system-ui", "sans-serif"), font_mono=("ui-monospace", "Consolas", "monospace")
)
CSS = """
.note, .problem { margin: 0; font-size: 0.9rem; min-height: 1.4em; }
.note { color: var(--body-text-color-subdued); }
.problem { color: #b42318; font-weight: 600; }
.dark .problem { color: #fda29b; }
#table-A, #table-B, #teacher, #detector { --font-mono: var(--font); font-size: 0.85rem; }
#teacher .output-class, #detector .output-class { font-size: 1.3rem; padding: 1.5rem 0 0.5rem; }
"""
HINT_B = "Type other words to see the same image by them."
HINT_CORNERS = "Click a detection in A or B, or two corners in the image at the top, or type a box."


@dataclass(frozen=True)
class Values:
    """The inputs of every event, in the order of `Page.inputs`."""

    image: str | None
    score: float
    words_a: str
    extend_a: bool
    words_b: str
    extend_b: bool
    box: str
    side: str
    chosen: Chosen | None
    corner: tuple[int, int] | None

    def asked(self, side: str) -> Asked:
        """What one vocabulary is asked for."""
        words, extend = (self.words_a, self.extend_a) if side == "A" else (self.words_b, self.extend_b)
        return Asked(self.image or "", words or "", extend, self.score, self.box or "")


@dataclass(frozen=True)
class Side:
    """One vocabulary's part of the page."""

    words: Any
    extend: Any
    line: Any
    drawing: Any
    table: Any

    def shows(self, result: Result) -> dict[Any, Any]:
        """What its components become."""
        table = gr.update(value=result.rows, visible=bool(result.rows))
        return {self.line: result.line, self.drawing: result.drawing, self.table: table}


class Page:
    """The page of a detector; `blocks` is what gradio launches.

    score: where the threshold starts. examples: image files to choose from.
    """

    def __init__(self, answers: Answers, title: str, score: float, examples: Sequence[Path] = ()) -> None:
        self.answers = answers
        self.blocks = gr.Blocks(
            title=title, analytics_enabled=False, fill_width=True, delete_cache=(3600, 86400)
        )
        with self.blocks:
            gr.Markdown(f"## {title}")
            with gr.Row():
                with gr.Column(scale=2, min_width=280):
                    self._add_image(score, examples)
                self.sides = {side: self._add_side(side) for side in SIDES}
            self._add_region()
            self._connect()

    def _add_image(self, score: float, examples: Sequence[Path]) -> None:
        # Without its label, which would lie on the image's corner.
        self.image = gr.Image(
            label="Image", show_label=False, type="filepath", height=300, elem_id="image", buttons=[]
        )
        # The file as it is: reading it, and saying what is wrong with it, is ours.
        self.image.preprocess = lambda upload: upload and upload.path
        self.score = gr.Slider(0, 1, score, step=0.01, label="Lowest score", elem_id="score")
        self.button = gr.Button("Detect", variant="primary", elem_id="detect")
        self.message = gr.HTML(elem_id="message")
        if examples:
            gr.Examples(
                [[str(path)] for path in examples], self.image, examples_per_page=12, label="Examples"
            )

    def _add_side(self, side: str) -> Side:
        count = len(self.answers.detector.class_names)
        own = f"empty: the {count} trained classes" if side == "A" else "other words"
        with gr.Column(scale=3, min_width=320):
            words = gr.Textbox(
                label=f"{side}: words, between commas",
                placeholder=own,
                lines=1,
                max_lines=4,
                elem_id=f"words-{side}",
            )
            extend = gr.Checkbox(label="and the trained classes", container=False, elem_id=f"extend-{side}")
            line = gr.HTML(elem_id=f"line-{side}")
            drawing = gr.Image(
                label=side,
                show_label=False,  # it would lie on the detections
                interactive=False,
                format="jpeg",
                buttons=[],
                elem_id=f"drawing-{side}",
            )
            table = gr.Dataframe(
                headers=list(COLUMNS),
                interactive=False,
                visible=False,
                max_height=220,
                wrap=True,
                column_widths=["12%", "36%", "22%", "30%"],
                buttons=[],
                elem_id=f"table-{side}",
            )
        return Side(words, extend, line, drawing, table)

    def _add_region(self) -> None:
        gr.Markdown("### A box: what the teacher sees in it, what the detector says there")
        with gr.Row():
            with gr.Column(scale=2, min_width=280):
                self.box = gr.Textbox(label="Box (x0, y0, x1, y1 in pixels)", elem_id="box")
                self.side = gr.Radio(list(SIDES), value="A", label="By the words of", elem_id="side")
                self.region_line = gr.HTML(note(HINT_CORNERS), elem_id="line-box")
                self.crop = gr.Image(
                    label="In the box", interactive=False, height=180, buttons=[], elem_id="crop"
                )
            with gr.Column(scale=3, min_width=320):
                self.teacher_line = gr.HTML(elem_id="line-teacher")
                self.teacher = gr.Label(label="Teacher (CLIP)", elem_id="teacher")
            with gr.Column(scale=3, min_width=320):
                self.detector_line = gr.HTML(elem_id="line-detector")
                self.detector = gr.Label(label="Detector", elem_id="detector")
        self.chosen, self.corner = gr.State(None), gr.State(None)

    def _connect(self) -> None:
        a, b = (self.sides[side] for side in SIDES)
        self.inputs = [self.image, self.score, a.words, a.extend, b.words, b.extend]
        self.inputs += [self.box, self.side, self.chosen, self.corner]
        self.outputs = [self.message, a.drawing, b.drawing, a.line, b.line, a.table, b.table]
        self.outputs += [self.box, self.side, self.chosen, self.corner]
        self.outputs += [self.region_line, self.crop, self.teacher, self.teacher_line]
        self.outputs += [self.detector, self.detector_line]
        events = [self.button.click, self.score.release, self.box.submit, self.side.input]
        events += [event for side in (a, b) for event in (side.words.submit, side.extend.input)]
        for event in events:
            self._on(event, self.show)
        self._on(self.image.change, self.new_image)
        self._on(self.image.select, self.add_corner)
        for side, part in self.sides.items():
            self._on(part.drawing.select, self._choose_at(side))
            self._on(part.table.select, self._choose_row(side))

    def _on(self, event: Callable[..., Any], handler: Callable[..., dict[Any, Any]]) -> None:
        event(handler, self.inputs, self.outputs, show_progress_on=[s.drawing for s in self.sides.values()])

    def show(self, *inputs: Any) -> dict[Any, Any]:
        """Everything, by the inputs as they are."""
        values = Values(*inputs)
        if wrong := self.answers.image_problem(values.image):
            return {**self._cleared(), self.message: wrong}
        shown = {self.message: "", **self._results(values)}
        if values.box.strip():
            region = self.answers.region(values.asked(values.side), values.side, values.chosen)
            # The lists may be far below what was clicked.
            shown[self.sides[values.side].line] += region.summary
            return {**shown, **self._shows_region(region)}
        return {**shown, **self._shows_region(RegionResult(note(HINT_CORNERS)))}

    def new_image(self, *inputs: Any) -> dict[Any, Any]:
        """As `show`, without the region of the image before."""
        values = Values(*inputs)
        if not values.image:
            return self._cleared()
        values = replace(values, box="", chosen=None, corner=None)
        return {**self.show(*vars(values).values()), self.box: "", self.chosen: None, self.corner: None}

    def add_corner(self, event: gr.SelectData, *inputs: Any) -> dict[Any, Any]:
        """The first click on the image sets a corner, the second makes a box of the two."""
        values = Values(*inputs)
        x, y = (int(v) for v in event.index)
        if values.corner is None:
            line = note(f"One corner at {x}, {y}; now click the opposite one in the image.")
            return {self.corner: (x, y), self.region_line: line}
        box = format_box((float(values.corner[0]), float(values.corner[1]), float(x), float(y)))
        return self._shows_box(values, box, values.side, None)

    def _choose_at(self, side: str) -> Callable[..., dict[Any, Any]]:
        def choose(event: gr.SelectData, *inputs: Any) -> dict[Any, Any]:
            values = Values(*inputs)
            x, y = event.index
            return self._shows_choice(values, side, self.answers.choose_at(values.asked(side), side, x, y))

        return choose

    def _choose_row(self, side: str) -> Callable[..., dict[Any, Any]]:
        def choose(event: gr.SelectData, *inputs: Any) -> dict[Any, Any]:
            values = Values(*inputs)
            # By the number in the row: the table may be sorted otherwise in the browser.
            number = int(event.row_value[0] or 0)
            return self._shows_choice(values, side, self.answers.choose_row(values.asked(side), side, number))

        return choose

    def _shows_choice(self, values: Values, side: str, chosen: Chosen | None) -> dict[Any, Any]:
        if chosen is None:
            return {self.region_line: problem("There is no detection. " + HINT_CORNERS)}
        return self._shows_box(values, chosen.box, side, chosen)

    def _shows_box(self, values: Values, box: str, side: str, chosen: Chosen | None) -> dict[Any, Any]:
        values = replace(values, box=box, side=side, chosen=chosen, corner=None)
        shown = self.show(*vars(values).values())
        return {**shown, self.box: box, self.side: side, self.chosen: chosen, self.corner: None}

    def _results(self, values: Values) -> dict[Any, Any]:
        a = self.sides["A"].shows(self.answers.result(values.asked("A")))
        if not values.words_b.strip():
            return {**a, **self.sides["B"].shows(Result(line=note(HINT_B)))}
        return {**a, **self.sides["B"].shows(self.answers.result(values.asked("B")))}

    def _shows_region(self, region: RegionResult) -> dict[Any, Any]:
        return {
            self.region_line: region.line,
            self.crop: region.crop,
            self.teacher: region.teacher,
            self.teacher_line: region.teacher_line,
            self.detector: region.detector,
            self.detector_line: region.detector_line,
        }

    def _cleared(self) -> dict[Any, Any]:
        return {
            self.message: "",
            **self.sides["A"].shows(Result()),
            **self.sides["B"].shows(Result()),
            **self._shows_region(RegionResult(note(HINT_CORNERS))),
            self.box: "",
            self.chosen: None,
            self.corner: None,
        }
