"""make bench-compare: ratios of two reports, and what is said of files that are none."""

import json

import pytest

from tests.bench import compare

OLD = {"runs": {"spaced": {"ours": {"p50_ms": 10.0, "p99_ms": 0.0}}}, "rows": [{"rate": 4, "ok": True}], "gone": 1}
NEW = {"runs": {"spaced": {"ours": {"p50_ms": 5.0, "p99_ms": 1.0}}}, "rows": [{"rate": 8, "ok": True}], "come": 2}


def written(folder, name, content):
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_every_number_is_compared_by_its_place():
    assert compare.compared(OLD, NEW) == [
        ("runs / spaced / ours / p50_ms", 10.0, 5.0),
        ("runs / spaced / ours / p99_ms", 0.0, 1.0),
        ("rows / 0 / rate", 4.0, 8.0),
        ("gone", 1.0, None),
        ("come", None, 2.0),
    ]


@pytest.mark.parametrize("old, new, text", [(10, 5, "0.50"), (0, 5, "-"), (None, 5, "-"), (5, None, "-")])
def test_ratio(old, new, text):
    assert compare.ratio(old, new) == text


def test_the_table_has_ratios_and_the_exit_code_is_0(tmp_path, capsys):
    assert compare.main([written(tmp_path, "a.json", OLD), written(tmp_path, "b.json", NEW)]) == 0
    assert "0.50" in capsys.readouterr().out


@pytest.mark.parametrize(
    "content, why", [("{", "expected JSON"), ("[]", "expected a report"), ('{"runs": 1}', "expected a report")]
)
def test_a_file_that_is_no_report_is_told(tmp_path, capsys, content, why):
    bad = written(tmp_path, "bad.json", content)
    assert compare.main([written(tmp_path, "a.json", OLD), bad]) == 2
    told = capsys.readouterr().err
    assert bad in told
    assert why in told


def test_a_missing_file_and_missing_arguments_are_told(tmp_path, capsys):
    assert compare.main([str(tmp_path / "none.json"), str(tmp_path / "none.json")]) == 2
    assert "cannot be read: No such file" in capsys.readouterr().err
    assert compare.main(["", ""]) == 2
    assert "OLD=a.json NEW=b.json" in capsys.readouterr().err
