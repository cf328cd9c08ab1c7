"""Damaged files of tables and predictors are refused; files of version 1 are read for good."""

import json
from functools import partial
from pathlib import Path

import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from latkit.devices.errors import DamagedFileError
from latkit.latency import predictor, table
from latkit.latency.blocks import Block
from latkit.latency.cli import register
from latkit.latency.document import parse_document
from latkit.latency.network import Network
from latkit.latency.predictor import LatencyPredictor
from latkit.latency.subject import subject_from_json
from latkit.latency.table import LatencyTable
from latkit.latency.table_file import VERSION as TABLE_VERSION
from typer.testing import CliRunner

GOLDEN = Path(__file__).parent / "golden"
TABLE, PREDICTOR = GOLDEN / "table_v1.json", GOLDEN / "predictor_v1.json"

KINDS = {
    "table": (table.KIND, TABLE_VERSION, LatencyTable),
    "predictor": (predictor.KIND, predictor.VERSION, LatencyPredictor),
}
FILES = ["table of version 1", "table of today", "predictor of version 1", "predictor of today"]


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    """What the four files hold."""
    folder = tmp_path_factory.mktemp("saved")
    loaded = LatencyTable.load(TABLE)
    loaded.save(folder / "table.json")
    rows = golden_estimates("predictor_v1_estimates.json")[:10]  # As few as can be fitted to.
    fitted = LatencyPredictor(loaded.setup, trees=3)
    fitted.fit([block for block, _ in rows], [row["latency_ms"] for _, row in rows])
    fitted.save(folder / "predictor.json")
    paths = (TABLE, folder / "table.json", PREDICTOR, folder / "predictor.json")
    return {name: path.read_bytes() for name, path in zip(FILES, paths, strict=True)}


def parse(name, content):
    kind, version, _ = KINDS[name.split()[0]]
    return parse_document(content, name, kind, version)


def positions(name, content):
    """All bytes of tables; of predictors, which are larger, every eleventh and the last 300."""
    last = max(0, len(content) - 300)
    step = 11 if name.startswith("predictor") else 1
    return [*range(0, last, step), *range(last, len(content))]


def refused(name, content):
    try:
        parse(name, content)
    except DamagedFileError as error:
        return "is damaged" in str(error) or "newer latkit" in str(error)
    return False


@pytest.mark.parametrize("name", FILES)
def test_every_flipped_bit_of_every_byte_is_noticed(contents, name):
    content = contents[name]
    parse(name, content)
    flipped = bytearray(content)
    unnoticed = []
    for position in positions(name, content):
        for bit in range(8):
            flipped[position] ^= 1 << bit
            if not refused(name, flipped):
                unnoticed.append((position, bit))
            flipped[position] ^= 1 << bit
    assert unnoticed == []


@pytest.mark.parametrize("name", FILES)
def test_every_file_cut_short_is_noticed(contents, name):
    content = contents[name]
    assert [end for end in positions(name, content) if not refused(name, content[:end])] == []


@pytest.mark.parametrize("name", FILES)
def test_white_space_in_place_of_other_white_space_is_noticed(contents, name):
    content = contents[name]
    for position in (index for index in positions(name, content) if content[index] in b" \n"):
        other = b"\t\r"[position % 2 :][:1]
        assert refused(name, content[:position] + other + content[position + 1 :]), position


ANY_TIME = settings(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@ANY_TIME
@given(data=st.data(), name=st.sampled_from(FILES))
def test_whatever_bytes_are_changed_loading_refuses(contents, tmp_path, data, name):
    content = bytearray(contents[name])
    positions = data.draw(st.sets(st.integers(0, len(content) - 1), min_size=1, max_size=3))
    for position in positions:
        content[position] = data.draw(st.integers(0, 255).filter(content[position].__ne__))
    check_refused(tmp_path, name, content)


@ANY_TIME
@given(data=st.data(), name=st.sampled_from(FILES))
def test_whatever_piece_is_lost_or_comes_twice_loading_refuses(contents, tmp_path, data, name):
    content = contents[name]
    place = partial(data.draw, st.integers(0, len(content)))
    start, end = sorted((place(), place()))
    lost = content[:start] + content[end:]
    twice = content[:end] + content[start:]
    if lost != content:
        check_refused(tmp_path, name, lost)
        check_refused(tmp_path, name, twice)


def check_refused(tmp_path, name, content):
    path = tmp_path / "damaged.json"
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"damaged\.json"):
        KINDS[name.split()[0]][2].load(path)


@pytest.mark.parametrize("option", ["table", "predictor"])
@pytest.mark.parametrize("change", ["flip", "cut", "newer"])
def test_the_command_ends_with_5_and_says_what_to_do(tmp_path, option, change):
    app = typer.Typer()
    register(app)
    content = {"table": TABLE, "predictor": PREDICTOR}[option].read_text()
    changed = {
        "flip": content.replace('"threads": 1', '"threads": 2'),
        "cut": content[: len(content) // 2],
        "newer": content.replace('"version": 1', '"version": 99'),
    }[change]
    assert changed != content
    path, blocks = tmp_path / "file.json", tmp_path / "blocks.json"
    path.write_text(changed)
    golden = json.loads((GOLDEN / "table_v1_estimates.json").read_text())
    blocks.write_text(json.dumps([golden[0]["model"]]))
    words = ["predict", f"--{option}", str(path), "--blocks", str(blocks)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 5
    assert str(path) in result.stderr
    assert ("version 99" if change == "newer" else "Make it again") in result.stderr
    path.write_text(content)
    assert CliRunner().invoke(app, words).exit_code == 0


def golden_estimates(name):
    """Subjects, and what the first latkit said of them."""
    rows = json.loads((GOLDEN / name).read_text())
    return [(subject_from_json(row["model"]), row) for row in rows]


def check_estimate(estimate, row):
    numbers = (estimate.latency_ms, estimate.low_ms, estimate.high_ms)
    assert numbers == pytest.approx((row["latency_ms"], row["low_ms"], row["high_ms"]), rel=1e-9)
    assert estimate.source == row["source"]


def test_a_table_of_version_1_gives_the_same_numbers():
    loaded = LatencyTable.load(TABLE)
    assert len(loaded.entries) == 12
    assert loaded.calibration.held_out is not None
    subjects = golden_estimates("table_v1_estimates.json")
    assert {row["source"] for _, row in subjects} >= {"measured", "interpolated", "predicted"}
    for subject, row in subjects:
        match subject:
            case Network():
                check_estimate(loaded.network(subject), row)
            case Block():
                check_estimate(loaded.estimate(subject), row)


def test_a_predictor_of_version_1_gives_the_same_numbers():
    loaded = LatencyPredictor.load(PREDICTOR)
    subjects = golden_estimates("predictor_v1_estimates.json")
    assert len(subjects) == 16
    for subject, row in subjects:
        assert isinstance(subject, Block)
        check_estimate(loaded.estimate(subject), row)
    blocks = [subject for subject, _ in subjects]
    assert loaded.predict(blocks) == pytest.approx([row["latency_ms"] for _, row in subjects])
