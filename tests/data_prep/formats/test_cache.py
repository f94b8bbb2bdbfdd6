import pandas as pd

from data_prep.formats.cache import keep_table, kept_table


def test_a_kept_table_is_whole_or_not_there(tmp_path):
    path = tmp_path / "kept.parquet"
    assert kept_table(path) is None
    table = pd.DataFrame({"gene_id": ["A", "B"], "start": [1, 2]})
    keep_table(path, table)
    pd.testing.assert_frame_equal(kept_table(path), table)
    content = path.read_bytes()
    for place in range(0, len(content), 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        assert kept_table(path) is None
    path.write_bytes(content)
    note = tmp_path / "kept.parquet.json"
    for text in ("", "{}", "[1]", '{"sha256": "0"}'):
        note.write_text(text)
        assert kept_table(path) is None
    keep_table(path, table)
    assert kept_table(path) is not None
    path.unlink()
    assert kept_table(path) is None
