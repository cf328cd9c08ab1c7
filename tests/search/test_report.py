"""The report: what it shows, what it leaves out, and that it needs nothing but itself."""

import base64
import dataclasses
import io
import re
from html.parser import HTMLParser
from urllib.parse import urlparse

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latkit.devices.errors import LatkitError
from latkit.search import plots, report_pictures
from latkit.search.report import ReportInput, Winner, write_report
from latkit.search.report_captions import best_sentence, hypervolume_sentence
from latkit.search.report_values import (
    amount,
    calibration_rows,
    deviation,
    error_table,
    interval,
    latency,
    number,
    rows,
    share,
)
from matplotlib import rcParams
from PIL import Image

NAN = float("nan")
HOSTILE = '<script>alert("1")</script> $\\frac{'


def winner(name="evolution + elasticity", **changes):
    blocks = [("stem conv 3x3", "ConvBlock", 0.41, 1.1e6)]
    for stage, depth in enumerate((3, 4, 3), start=1):
        for layer in range(depth):
            kernel = 3 + 2 * ((stage + layer) % 3)
            blocks.append(
                (
                    f"stage {stage}, block {layer + 1}: MBConv {kernel}x{kernel}",
                    f"MBConv {kernel}x{kernel}",
                    0.2 + 0.13 * stage + 0.05 * kernel,
                    2e6 * stage * kernel,
                )
            )
    blocks.append(("head conv 1x1", "ConvBlock", 0.52, 9.4e6))
    blocks.append(("classifier", "Classifier", 0.03, 2.5e4))
    values = {
        "architecture": "stage 1: 24 channels, MBConv 5x5 e4, MBConv 7x7 e4, MBConv 3x3 e6\n"
        "stage 2: 40 channels, MBConv 7x7 e4, skip, MBConv 3x3 e6, MBConv 5x5 e3",
        "target_ms": 8.0,
        "predicted_ms": 7.8456,
        "low_ms": 7.612,
        "high_ms": 8.087,
        "measured_ms": 7.9312,
        "measured_low_ms": 7.9011,
        "measured_high_ms": 7.9677,
        "verdict": "stable",
        "verdict_reasons": ("preemption is not checked on this host",),
        "validation_accuracy": 0.9731,
        "test_accuracy": 0.9694,
        "flops": 84_312_000,
        "parameters": 1_234_567,
        "evaluations": 1050,
        "block_times": pd.DataFrame(blocks, columns=["block", "kind", "latency_ms", "flops"]),
    }
    return Winner(name=name, **{**values, **changes})


def report_input(**changes):
    random = np.random.default_rng(0)
    count = 24
    measured = random.uniform(4, 12, count)
    predicted = measured * random.normal(1.0, 0.035, count)
    held_out = pd.DataFrame(
        {
            "network": [f"network {place}" for place in range(count)],
            "predicted_ms": predicted,
            "low_ms": predicted * 0.94,
            "high_ms": predicted * 1.06,
            "measured_ms": measured,
            "verdict": ["stable"] * (count - 3) + ["noisy"] * 2 + ["throttled"],
        }
    )
    medians = random.uniform(0.02, 3, 240)
    verdicts = pd.DataFrame(
        {
            "model": [f"MBConv 3x3 in {8 * place} out {8 * place}" for place in range(1, 241)],
            "median_ms": medians,
            "low_ms": medians * 0.99,
            "high_ms": medians * 1.02,
            "verdict": ["noisy" if place % 29 == 5 else "stable" for place in range(240)],
            "reasons": [
                ("spread between rounds 12.3 %", "preempted in 4 of 40 runs")
                if place % 29 == 5
                else ()
                for place in range(240)
            ],
        }
    )
    kinds = [
        (f"MBConv {kernel}x{kernel} stride {stride}", 0.6 + kernel / 5 + (kernel == 7))
        for kernel in (3, 5, 7)
        for stride in (1, 2)
    ] + [("ConvBlock 3x3 stride 1", 0.5), ("ConvBlock 1x1 stride 1", 0.35), ("Classifier", 0.8)]
    flops = {kind: np.exp(random.uniform(13, 18.5, 22)) for kind, _ in kinds}
    blocks = pd.concat(
        [
            pd.DataFrame(
                {
                    "kind": kind,
                    "label": [f"{kind} {place}" for place in range(22)],
                    "flops": flops[kind],
                    "latency_ms": factor
                    * (flops[kind] / 2e7 + 0.004)
                    * np.exp(random.normal(0, 0.2, 22)),
                }
            )
            for kind, factor in kinds
        ]
    )
    parts = []
    for strategy, evaluations, level in (("evolution", 1000, 0.971), ("random search", 1000, 0.96)):
        latencies = random.uniform(5, 8.6, evaluations)
        parts.append(
            pd.DataFrame(
                {
                    "strategy": strategy,
                    "index": range(evaluations),
                    "predicted_ms": latencies,
                    "accuracy": level
                    - 0.08 * np.exp(-np.arange(evaluations) / 250) * (strategy == "evolution")
                    - 0.01 * (8.6 - latencies)
                    - 0.012 * random.exponential(1, evaluations),
                    "feasible": latencies <= 8.0,
                    "policy_entropy": np.geomspace(9, 2, evaluations)
                    if strategy == "evolution"
                    else NAN,
                }
            )
        )
    values = {
        "title": "Search within 8 ms on cpu",
        "context": {
            "device": {
                "name": "AMD EPYC, 2 cores",
                "memory_bytes": 8_123_456_789,
                "temperature": None,
                "temperature_reason": "this host shows no thermal zone",
                "governor": None,
            },
            "runtime": "onnxruntime",
            "runtime_version": "1.31.0",
            "precision": "float32",
            "threads": 1,
            "cores": (1,),
            "eviction_bytes": 16_777_216,
            "channel_grid": 8,
            "protocol": {"rounds": 8, "processes": 4, "runs": 5, "warmups": 2, "seed": 0},
            "canary": {"median_ns": 812_345, "drift": 0.0123},
        },
        "verdicts": verdicts,
        "calibration": {
            "terms": ["constant", "block sum", "weight bytes"],
            "coefficients": [0.0421, 0.9713, 1.25e-7],
            "leave_one_out": {
                "networks": 10,
                "bias": 0.0011,
                "rmspe": 0.0187,
                "within_5": 0.9,
                "within_10": 1.0,
                "spearman": 0.9877,
                "inside": None,
            },
            "held_out": {
                "networks": 24,
                "bias": -0.0042,
                "rmspe": 0.0312,
                "within_5": 0.8333,
                "within_10": 1.0,
                "spearman": 0.9913,
                "inside": 0.9583,
            },
        },
        "held_out": held_out,
        "blocks": blocks,
        "trajectory": pd.concat(parts, ignore_index=True),
        "winners": [
            winner(),
            winner(
                "random search",
                predicted_ms=7.9911,
                low_ms=7.75,
                high_ms=8.23,
                measured_ms=8.4122,
                measured_low_ms=8.3,
                measured_high_ms=8.6,
                verdict="noisy",
                verdict_reasons=("spread between rounds 11.0 %",),
                validation_accuracy=0.9602,
                test_accuracy=0.9577,
                evaluations=1000,
            ),
        ],
        "notes": ["The images are 8x8 digits: they prove that the chain runs, and no more."],
        "options": pd.DataFrame(
            [
                (f"layer{layer}", option, 0.5, share, share > 0.5)
                for layer in (1, 2)
                for option, share in (("conv", 0.75), ("skip", 0.25))
            ],
            columns=["choice", "option", "first_third", "last_third", "chosen"],
        ),
        "budgets": pd.DataFrame(
            [
                (f"{target} ms", target, target * 0.97, *interval, NAN, NAN, NAN, accuracy)
                if target == 8
                else (
                    f"{target} ms",
                    target,
                    target * 0.97,
                    *interval,
                    target,
                    target * 0.995,
                    target * 1.005,
                    accuracy,
                )
                for target, accuracy in ((4, 0.93), (6, 0.95), (7, 0.94), (8, 0.97))
                for interval in [(target * 0.94, target * (1.01 if target == 4 else 0.99))]
            ],
            columns=[
                "name",
                "target_ms",
                "predicted_ms",
                "low_ms",
                "high_ms",
                "measured_ms",
                "measured_low_ms",
                "measured_high_ms",
                "accuracy",
            ],
        ),
    }
    return ReportInput(**{**values, **changes})


def small_input(**parts):
    """An input of nothing but `parts`."""
    nothing = pd.DataFrame()
    return dataclasses.replace(
        ReportInput("Nothing yet", {}, nothing, {}, nothing, nothing, nothing, (), ()), **parts
    )


def empty(frame):
    return frame.iloc[:0]


class Page(HTMLParser):
    """What a browser would see: identities, text, and every reference."""

    def __init__(self, html):
        super().__init__()
        self.ids, self.references, self.tags, self.pieces = set(), [], [], []
        self.feed(html)
        self.text = " ".join(" ".join(self.pieces).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.add(value)
            if name in ("src", "href", "srcset", "data", "action", "poster", "background"):
                self.references.append(value)

    def handle_data(self, data):
        if self.tags[-1:] != ["style"]:
            self.pieces.append(data)


def read(path):
    return Page(path.read_text("utf-8"))


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    return write_report(report_input(), tmp_path_factory.mktemp("report") / "new" / "folder")


SECTIONS = {
    "headline",
    "notes",
    "held-out",
    "accuracy",
    "search",
    "best-so-far",
    "hypervolume",
    "figures",
    "options",
    "budgets",
    "time-by-block",
    "time-by-block-2",
    "flops",
    "calibration",
    "verdicts",
    "noisy",
    "context",
}


def test_every_section_is_there_with_data(full):
    page = read(full)
    assert page.ids == SECTIONS
    assert full.name == "report.html"


def test_page_refers_to_nothing_outside_itself(full):
    html = full.read_text("utf-8")
    page = Page(html)
    assert page.references
    assert all(urlparse(reference).scheme == "data" for reference in page.references)
    assert not {"script", "link", "iframe", "object", "base"} & set(page.tags)
    assert "url(" not in html and "@import" not in html
    assert "://" not in html


def test_figures_beside_the_page_are_valid_and_the_same_as_inside(full):
    files = sorted(full.parent.glob("*.png"))
    assert {file.stem for file in files} == {
        "held_out",
        "accuracy",
        "best_so_far",
        "hypervolume",
        "figures",
        "options",
        "budgets",
        "time_by_block",
        "time_by_block_2",
        "flops",
    }
    embedded = [base64.b64decode(text.split(",")[1]) for text in read(full).references]
    assert sorted(embedded) == sorted(file.read_bytes() for file in files)
    for content in embedded:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            assert image.format == "PNG"
            assert len(image.convert("L").getcolors()) > 20


def test_headline_numbers_equal_the_input(full):
    text = read(full).text
    for shown in (
        "7.846 ms",
        "7.612 to 8.087 ms",
        "7.931 ms",
        "7.901 to 7.968 ms",
        "+1.1 %",  # 7.9312 / 7.8456
        "-0.9 %",  # 7.9312 / 8.0
        "+5.3 %",  # 8.4122 / 7.9911
        "97.31 %",
        "96.94 %",
        "84.31 M",
        "1.23 M",
        "1,050",
        "stage 2: 40 channels, MBConv 7x7 e4",
    ):
        assert shown in text


def test_inside_the_interval_is_said_for_each_winner(full):
    html = full.read_text("utf-8")
    line = html[html.index("Inside the prediction") :]
    answers = re.findall(r'class="badge (good|bad)">(yes|no)<', line[: line.index("</tr>")])
    assert answers == [("good", "yes"), ("bad", "no")]


def test_calibration_and_context_are_shown_as_given(full):
    text = read(full).text
    for shown in (
        "Weight bytes 1.250e-07".lower(),
        "Block sum 0.9713".lower(),
        "root mean square error 1.87 % 3.12 %",
        "mean error (bias) 0.11 % -0.42 %",
        "within 5 % of the measurement 90.00 % 83.33 %",
        "rank correlation (spearman) 0.9877 0.9913",
        "interval not measured 95.83 %",
        "temperature not measured: this host shows no thermal zone",
        "governor not measured",
        "memory bytes 8,123,456,789",
        "cores 1",
    ):
        assert shown in text.lower()
    assert "temperature reason" not in text.lower()


def test_only_unsteady_measurements_are_listed_and_all_are_counted(full):
    data = report_input()
    text = read(full).text
    noisy = data.verdicts[data.verdicts["verdict"] != "stable"]
    assert f"{240 - len(noisy)} stable" in text
    assert f"{len(noisy)} noisy" in text
    listed = re.findall(r"MBConv 3x3 in (\d+) out", text)
    assert listed == re.findall(r"in (\d+) out", " ".join(noisy["model"]))
    assert text.count("spread between rounds 12.3 %; preempted in 4 of 40 runs") == len(noisy)


def test_winner_changed_after_the_search_stands_where_it_was_chosen(tmp_path):
    changed = winner(searched_ms=8.8765, searched_accuracy=0.9123)
    assert report_pictures._place(changed) == (8.8765, 0.9123)
    assert report_pictures._place(winner()) == (7.8456, 0.9731)
    data = small_input(winners=(changed, winner()), trajectory=report_input().trajectory)
    text = read(write_report(data, tmp_path)).text
    assert "Accuracy when it was chosen 91.23 % at a predicted 8.877 ms not measured" in text
    assert "before widths were scaled" in text


def test_profile_without_search_says_so_and_draws_nothing_empty(tmp_path):
    data = report_input()
    page = read(
        write_report(
            dataclasses.replace(
                data,
                winners=(),
                trajectory=empty(data.trajectory),
                options=empty(data.options),
                budgets=empty(data.budgets),
            ),
            tmp_path,
        )
    )
    assert page.ids == {
        "notes", "held-out", "flops", "calibration", "verdicts", "noisy", "context", "left-out"
    }  # fmt: skip
    assert {file.stem for file in tmp_path.glob("*.png")} == {"held_out", "flops"}
    assert "no search was run" in page.text
    assert "How the search went: there is no data" in page.text


def test_report_of_nothing_still_is_a_page(tmp_path):
    page = read(write_report(small_input(), tmp_path))
    assert page.ids == {"left-out"}
    assert not list(tmp_path.glob("*.png"))


def test_values_that_are_all_missing_draw_no_figure(tmp_path):
    held_out = report_input().held_out.assign(measured_ms=NAN)
    page = read(write_report(small_input(held_out=held_out), tmp_path))
    assert not list(tmp_path.glob("*.png"))
    assert "held-out" not in page.ids


def test_missing_numbers_are_shown_as_not_measured(tmp_path):
    missing = winner(
        measured_ms=NAN, measured_low_ms=NAN, measured_high_ms=NAN, verdict="", test_accuracy=NAN
    )
    verdicts = pd.DataFrame(
        [("broken", NAN, NAN, NAN, "noisy", "failed to load")],
        columns=["model", "median_ms", "low_ms", "high_ms", "verdict", "reasons"],
    )
    path = write_report(small_input(winners=(missing,), verdicts=verdicts), tmp_path)
    text = read(path).text
    assert "nan" not in re.findall(r"[a-z]+", text.lower())
    assert "Measured latency not measured" in text
    assert "Inside the prediction's interval not measured" in text
    assert "Test accuracy not measured" in text
    assert "broken not measured noisy failed to load" in text


def test_hostile_labels_stay_text(tmp_path):
    data = report_input()
    path = write_report(
        ReportInput(
            title=HOSTILE,
            context={HOSTILE: {"value": HOSTILE, "list": [HOSTILE]}},
            verdicts=data.verdicts.assign(model=HOSTILE, reasons=HOSTILE),
            calibration={"terms": [HOSTILE], "coefficients": [1.0]},
            held_out=data.held_out.assign(network=HOSTILE, verdict=HOSTILE),
            blocks=data.blocks.assign(kind=HOSTILE, label=HOSTILE),
            trajectory=data.trajectory.assign(strategy=HOSTILE),
            winners=[
                winner(
                    HOSTILE,
                    architecture=HOSTILE,
                    verdict=HOSTILE,
                    verdict_reasons=(HOSTILE,),
                    block_times=winner().block_times.assign(block=HOSTILE, kind=HOSTILE),
                )
            ],
            notes=[HOSTILE],
            options=data.options.assign(choice=HOSTILE, option=HOSTILE),
            budgets=data.budgets.assign(name=HOSTILE),
        ),
        tmp_path,
    )
    page = read(path)
    assert "script" not in page.tags
    assert page.text.count("<script>alert") > 10


def test_figures_leave_matplotlib_as_it_was():
    before = dict(rcParams)
    data = report_input()
    plots.png(plots.best_so_far(data.trajectory))
    assert dict(rcParams) == before


def test_the_same_input_gives_the_same_files(tmp_path):
    data = report_input(winners=(), trajectory=empty(report_input().trajectory))
    data = dataclasses.replace(data, budgets=empty(data.budgets))
    first, second = (write_report(data, tmp_path / name) for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()


def test_captions_of_the_search_say_what_is_seen(full):
    data = report_input()
    text = read(full).text
    for strategy in ("evolution", "random search"):
        rows = data.trajectory[data.trajectory["strategy"] == strategy]
        best = rows["accuracy"][rows["feasible"]].max()
        assert f"{strategy} is at {best:.2%}".lower().replace("%", " %") in text.lower()
    assert "Policy entropy went from 9.000 to 2.000." in text
    assert "to one option in 0 of 2 choices at first, and in 2 at last" in text
    assert "as accurate as 3 of 4 networks" in text
    assert "1 of 3 measured latencies lie in the 90 % interval" in text


def test_captions_tell_when_nothing_better_was_found():
    trajectory = pd.DataFrame(
        {
            "strategy": ["a"] * 4 + ["b"] * 2,
            "index": [0, 1, 2, 3, 0, 1],
            "predicted_ms": [2.0, 1.0, 1.0, 1.0, 2.0, 2.0],
            "accuracy": [0.5, 0.5, 0.75, 0.75, 0.5, 0.5],
            "feasible": [True] * 4 + [False] * 2,
        }
    )
    sentence = best_sentence(trajectory)
    assert "A is at 75.00 % after 4 evaluations, and found nothing better after the 3rd" in sentence
    assert "b found no architecture that it may choose" in sentence
    half = hypervolume_sentence(trajectory, (2.0, 0.25))
    assert "A ends at 50.00, 50 % of it after half" in half
    assert "b ends at 0;" in half or "b ends at 0." in half


def test_folder_that_can_not_be_written_is_an_error_of_ours(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LatkitError, match="can't write"):
        write_report(small_input(), tmp_path / "file")


def test_held_out_axes_are_equal_and_points_are_the_input():
    held_out = report_input().held_out
    axes = plots.predicted_against_measured(held_out).axes[0]
    assert axes.get_xlim() == axes.get_ylim()
    assert axes.get_aspect() == 1
    drawn = {
        (float(x), float(y))
        for container in axes.containers
        for x, y in container.lines[0].get_xydata()
    }
    assert drawn == set(zip(held_out["measured_ms"], held_out["predicted_ms"], strict=True))
    assert "noisy or throttled (3)" in axes.get_legend_handles_labels()[1]


def test_time_by_block_draws_every_block_in_order():
    block_times = winner().block_times
    axes = plots.time_by_block(block_times, "evolution").axes[0]
    bars = sorted(axes.patches, key=lambda bar: bar.get_y())
    assert [bar.get_width() for bar in bars] == block_times["latency_ms"].tolist()
    assert [label.get_text() for label in axes.get_yticklabels()] == block_times["block"].tolist()
    assert axes.yaxis_inverted()


def test_flops_figure_leaves_out_what_logarithms_can_not_show():
    blocks = report_input().blocks.assign(
        flops=lambda frame: frame["flops"].where(frame["kind"] != "Classifier", 0.0)
    )
    axes = plots.latency_against_flops(blocks).axes[0]
    assert "Classifier" not in axes.get_legend_handles_labels()[1]
    assert axes.get_xscale() == axes.get_yscale() == "log"


def test_strategies_keep_their_colours_in_any_company():
    assert plots.strategy_colours(["random search", "evolution"])["evolution"] == plots.BLUE
    assert plots.strategy_colours(["evolution", "random search"])["random search"] == plots.ORANGE
    many = plots.strategy_colours([f"strategy {place}" for place in range(6)])
    assert len(set(many.values())) == 6


@settings(deadline=None, max_examples=12)
@given(st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=80))
def test_any_label_can_be_drawn(label):
    block_times = pd.DataFrame({"block": [label], "kind": [label], "latency_ms": [1.0]})
    assert plots.png(plots.time_by_block(block_times, label)).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0947, "0.09470"),
        (7.93124, "7.931"),
        (78.9, "78.90"),
        (999.96, "1000."),
        (12345.6, "12,346"),
        (0, "0"),
        (-0.5, "-0.5000"),
        (3.2e-7, "3.200e-07"),
        (None, "not measured"),
        (NAN, "not measured"),
        (float("inf"), "not measured"),
    ],
)
def test_number_shows_four_significant_digits(value, shown):
    assert number(value).rstrip(".") == shown.rstrip(".")


@given(st.floats(1e-3, 1e6))
def test_shown_latency_equals_the_value_to_its_digits(value):
    assert float(latency(value).removesuffix(" ms").replace(",", "")) == pytest.approx(value, 6e-4)


def test_units_and_signs():
    assert deviation(7.9, 8.0) == "-1.3 %" or deviation(7.9, 8.0) == "-1.2 %"
    assert deviation(8.0, 0.0) == "not measured"
    assert share(0.97124) == "97.12 %"
    assert interval(1.0, NAN) == ""
    assert [amount(value) for value in (12, 4_560, 84_312_000, 2.5e9)] == [
        "12",
        "4.56 k",
        "84.31 M",
        "2.50 G",
    ]


def test_reason_stands_beside_the_missing_value_only():
    shown = rows({"clock": None, "clock_reason": "no permission", "fan_reason": "none fitted"})
    assert [(row.label, row.value) for row in shown] == [
        ("Clock", "not measured: no permission"),
        ("Fan reason", "none fitted"),
    ]


def test_lists_are_shortened_and_lists_of_mappings_nest():
    (samples, parts) = rows({"samples": list(range(40)), "parts": [{"a": True}, {"a": None}]})
    assert samples.value.endswith("11 and 28 more")
    assert [row.children[0].value for row in parts.children] == ["yes", "not measured"]


def test_errors_stand_side_by_side_though_their_kinds_differ():
    errors = {"a": {"rmspe": 0.5, "bias": 0.25}, "b": {"rmspe": 0.125, "spearman": 1.0}}
    assert error_table(errors) == [
        ("", ["A", "B"]),
        ("Root mean square error", ["50.00 %", "12.50 %"]),
        ("Mean error (bias)", ["25.00 %", "not measured"]),
        ("Rank correlation (Spearman)", ["not measured", "1.000"]),
    ]
    assert calibration_rows(errors) == ()
    assert error_table({"scale": 1.0}) == []


def test_calibration_terms_that_fit_no_coefficients_stay_apart():
    shown = calibration_rows({"terms": ["a", "b"], "coefficients": [1.0]})
    assert [row.label for row in shown] == ["Terms", "Coefficients"]
