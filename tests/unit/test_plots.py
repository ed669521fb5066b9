"""Figures that tell the truth to every reader: what is drawn, what is said of it, and what is left out."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from matplotlib.text import Text
from PIL import Image

from labkit.measure.front import front
from labkit.plots import OKABE_ITO, SHAPES, image_html, labels, pareto, png, table_html


def row(variant: str, latency_p50_ms: float | None, quality: float | None, **more: Any) -> dict[str, Any]:
    return {
        "variant": variant,
        "runtime": "onnxruntime",
        "latency_p50_ms": latency_p50_ms,
        "quality": quality,
        "quality_metric": "accuracy",
        "quality_ci95": None if quality is None else (quality - 0.02, min(1.0, quality + 0.01)),
        **more,
    }


ROWS = [
    row("baseline", 2.4, 0.990, runtime="torch"),
    row("onnx", 0.9, 0.990),
    row("int8", 0.5, 0.985),
    row("int8 slow", 0.8, 0.980),
    row("int8", 0.3, 0.985, runtime="openvino"),
]


def texts(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_the_front_holds_what_no_other_beats() -> None:
    assert [item["latency_p50_ms"] for item in front(ROWS)] == [0.3, 0.9]


def test_two_equal_rows_are_both_on_the_front() -> None:
    assert len(front([row("a", 1.0, 0.9), row("b", 1.0, 0.9)])) == 2


def test_more_throughput_and_less_error_are_better() -> None:
    rows = [
        {"variant": "a", "throughput_samples_per_s": 100.0, "quality": 0.5, "quality_metric": "mse"},
        {"variant": "b", "throughput_samples_per_s": 200.0, "quality": 0.4, "quality_metric": "mse"},
    ]
    assert [item["variant"] for item in front(rows, "throughput_samples_per_s")] == ["b"]


def test_each_point_has_its_name_beside_it_and_each_runtime_a_shape() -> None:
    figure = pareto(ROWS)
    assert sorted(texts(figure)) == ["baseline", "int8", "int8", "int8 slow", "onnx"]
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        "Pareto front",
        "torch",
        "onnxruntime",
        "openvino",
    ]
    markers = [container.lines[0].get_marker() for container in figure.axes[0].containers]
    assert len(set(markers)) == 3


def test_the_quality_interval_is_the_error_bar() -> None:
    figure = pareto([row("a", 1.0, 0.90)])
    (bar,) = figure.axes[0].containers[0].lines[2]
    (segment,) = bar.get_segments()
    assert segment[:, 1].tolist() == pytest.approx([0.88, 0.91])


@pytest.mark.parametrize("chosen", ["int8 slow", "the key"])
def test_the_chosen_one_is_named_by_variant_or_by_key(chosen: str) -> None:
    rows = [
        SimpleNamespace(**item, key="the key" if item["variant"] == "int8 slow" else "another")
        for item in ROWS
    ]
    assert [name for name in texts(pareto(rows, chosen=chosen)) if "chosen" in name] == ["int8 slow (chosen)"]


def test_what_has_no_value_is_counted_and_not_drawn() -> None:
    figure = pareto([*ROWS, row("too few runs", None, 0.9)])
    assert figure.texts[0].get_text().startswith("1 not drawn")
    assert "too few runs" not in texts(figure)


def test_an_empty_figure_says_so() -> None:
    assert texts(pareto([])) == ["nothing measured yet"]


def test_settings_that_differ_are_in_the_names() -> None:
    rows = [
        row("a", 1.0, 0.9, batch_size=1, intra_op_threads=2),
        row("a", 3.0, 0.9, batch_size=8, intra_op_threads=2),
    ]
    assert labels(rows) == ["a, batch 1", "a, batch 8"]


def test_names_do_not_cover_one_another_where_there_is_room() -> None:
    figure = pareto(
        [row("a rather long name", 1.0, 0.9), row("another long name", 1.02, 0.9), row("far", 9.0, 0.5)]
    )
    png(figure)
    boxes = [Text.get_window_extent(text) for text in figure.axes[0].texts]
    assert not any(one.overlaps(two) for i, one in enumerate(boxes) for two in boxes[i + 1 :])


def test_the_png_carries_its_text_alternative() -> None:
    image = Image.open(io.BytesIO(png(pareto(ROWS))))
    assert image.format == "PNG"
    assert (
        image.info["Description"]
        == "quality against latency_p50_ms for 5 candidates; on the Pareto front: onnx, int8"
    )


def test_names_are_escaped_in_html() -> None:
    hostile = '<img src=x onerror="alert(1)">'
    rows = [row(hostile, 1.0, 0.9, null_reasons={"size_bytes": hostile})]
    for made in (image_html(pareto(rows)), table_html(rows, ["variant", "size_bytes", "<b>"])):
        assert "&lt;img src=x" in made
        assert "<img src=x" not in made and "<b>" not in made and '"alert(1)"' not in made


def test_a_table_says_why_a_figure_is_missing() -> None:
    made = table_html([row("a", None, 0.9, null_reasons={"latency_p50_ms": "12 runs"})], ["latency_p50_ms"])
    assert '<td title="12 runs">–</td>' in made


def test_a_table_writes_numbers_for_people() -> None:
    made = table_html(
        [row("a", 0.123456, 0.9, size_bytes=1106048)], ["latency_p50_ms", "size_bytes", "quality_ci95"]
    )
    assert re.findall(">([^<>]+)</td>", made) == ["0.1235", "1,106,048", "[0.88, 0.91]"]


def test_no_two_runtimes_look_alike_and_the_colours_are_okabe_and_itos() -> None:
    assert len(set(OKABE_ITO)) == len(OKABE_ITO) == len(set(SHAPES)) == len(SHAPES)
    assert {"#0072B2", "#D55E00", "#009E73"} <= set(OKABE_ITO)


def test_threads_draw_at_the_same_time_and_get_the_same_picture() -> None:
    expected, made = png(pareto(ROWS)), []
    threads = [threading.Thread(target=lambda: made.append(png(pareto(ROWS)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [expected] * 4


def test_importing_plots_imports_no_matplotlib_and_drawing_no_pyplot() -> None:
    code = (
        "import sys, labkit.plots as p; assert 'matplotlib' not in sys.modules;"
        "p.png(p.pareto([])); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
