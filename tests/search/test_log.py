import json

import pytest
from latkit.devices.errors import DamagedFileError, UsageError
from latkit.search.log import LogEntry, SearchLog, read_log
from latkit.search.space import Architecture

SETTINGS = {"seed": 0, "target_ms": 0.5}


def entry(index, accuracy=0.5):
    return LogEntry("random", index, (index, 1), 0.25, accuracy)


def architecture(index):
    return Architecture((index, 1))


def filled(path, count=3):
    log = SearchLog(path, SETTINGS)
    for index in range(count):
        assert log.replay("random", index, architecture(index)) is None
        log.append(entry(index, accuracy=1 / (index + 3)))
    return log


def test_a_second_run_is_answered_from_the_log_to_the_last_bit(tmp_path):
    filled(tmp_path / "log")
    before = (tmp_path / "log").read_bytes()
    again = SearchLog(tmp_path / "log", SETTINGS)
    assert [again.replay("random", i, architecture(i)) for i in range(3)] == [1 / 3, 1 / 4, 1 / 5]
    assert again.replay("random", 3, architecture(3)) is None
    assert (tmp_path / "log").read_bytes() == before


def test_a_line_cut_off_by_a_kill_is_evaluated_again(tmp_path):
    path = tmp_path / "log"
    filled(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    again = SearchLog(path, SETTINGS)
    assert again.replay("random", 0, architecture(0)) == 1 / 3
    assert again.replay("random", 1, architecture(1)) == 1 / 4
    assert again.replay("random", 2, architecture(2)) is None
    again.append(entry(2, accuracy=1 / 5))
    assert path.read_bytes() == whole


def test_a_header_cut_off_by_a_kill_is_written_again(tmp_path):
    path = tmp_path / "log"
    filled(path, 0)
    whole = path.read_bytes()
    path.write_bytes(whole[:5])
    SearchLog(path, SETTINGS)
    assert path.read_bytes() == whole


def test_other_settings_are_refused_by_name(tmp_path):
    filled(tmp_path / "log")
    with pytest.raises(UsageError, match="seed"):
        SearchLog(tmp_path / "log", {**SETTINGS, "seed": 1})


def test_another_order_of_evaluations_is_refused(tmp_path):
    filled(tmp_path / "log")
    again = SearchLog(tmp_path / "log", SETTINGS)
    with pytest.raises(DamagedFileError, match="line 2"):
        again.replay("random", 0, architecture(9))


@pytest.mark.parametrize("damage", [b"{", b'{"format": 1}', b"[]", b"\xff\xfe", b'{"index": 1}'])
def test_a_damaged_line_is_a_damaged_file(tmp_path, damage):
    path = tmp_path / "log"
    filled(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], damage + b"\n", *lines[3:]]))
    with pytest.raises(DamagedFileError):
        read_log(path)


def test_a_newer_log_is_refused(tmp_path):
    path = tmp_path / "log"
    filled(path)
    header, *rest = path.read_bytes().splitlines(keepends=True)
    newer = {**json.loads(header), "version": 99}
    path.write_bytes(json.dumps(newer).encode() + b"\n" + b"".join(rest))
    with pytest.raises(DamagedFileError):
        read_log(path)


def test_a_log_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UsageError, match="can't write the search log"):
        SearchLog(tmp_path / "file" / "log", SETTINGS)
    (tmp_path / "log").mkdir()
    with pytest.raises(UsageError, match="can't write the search log"):
        SearchLog(tmp_path / "log", SETTINGS)


def test_a_log_knows_what_was_asked_for_so_far_and_no_more(tmp_path):
    assert filled(tmp_path / "log").is_new
    again = SearchLog(tmp_path / "log", SETTINGS)
    assert not again.is_new and len(again.recorded) == 3
    assert again.accuracy(architecture(0)) is None
    again.replay("random", 0, architecture(0))
    assert again.accuracy(architecture(0)) == 1 / 3
    assert again.accuracy(architecture(1)) is None
    assert again.goes_on_without("evolution") and not again.goes_on_without("random")
    for index in (1, 2):
        again.replay("random", index, architecture(index))
    assert not again.goes_on_without("evolution"), "it has ended"
