from dataclasses import replace

from tests.faults import ledger
from tests.faults.ledger import Entry

ENTRY = Entry(
    "kills", "train", 40, "kills", 0, "weights equal to the bit", 1, 2.5, "abc1234", "2026-11-26", "x86"
)


def test_a_later_trial_replaces_the_earlier_one_of_the_same_part(tmp_path):
    path = tmp_path / "faults.csv"
    ledger.record([ENTRY], path)
    later = Entry("kills", "train", 50, "kills", 1, "", 2, 3.0, "def", "2026-11-27", "x86")
    other = Entry("kills", "predict", 5, "kills", 0, "", 2, 3.0, "def", "2026-11-27", "x86")
    ledger.record([later, other], path)
    assert ledger.read(path) == [other, later]


def test_the_table_stands_between_its_marks():
    page = "before\n<!-- faults -->\nold\n<!-- end -->\nafter\n"
    text = ledger.with_tables(page, [ENTRY])
    assert "old" not in text
    assert "| kills | train | 40 kills | 0 | weights equal to the bit | 1, 2.5, abc1234 |" in text
    assert ledger.with_tables(text, [ENTRY]) == text


def test_a_table_of_one_trial_has_no_other_rows_and_no_column_of_trials():
    page = "<!-- faults kills -->\n<!-- end -->\n"
    text = ledger.with_tables(page, [ENTRY, replace(ENTRY, trial="fuzz", subject="npz")])
    assert "| train | 40 kills | 0 | weights equal to the bit | 1, 2.5, abc1234 |" in text
    assert "npz" not in text


def test_the_pages_hold_what_the_ledger_holds():
    for page, rows in ledger.PAGES.items():
        text = page.read_text(encoding="utf-8")
        assert "<!-- faults" in text
        assert ledger.with_tables(text, rows(ledger.read())) == text


def test_many_rows_of_a_trial_are_summed_up():
    many = [replace(ENTRY, trial="fuzz", subject=str(k), tried=k, failed=k == 3) for k in range(10)]
    other, total = ledger.joined([ENTRY, *many])
    assert other == ENTRY
    assert (total.tried, total.failed, total.subject) == (45, 1, "10 readers of files")
