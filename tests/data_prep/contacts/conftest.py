"""What tests of contacts share."""

import pytest


@pytest.fixture
def write(tmp_path):
    def write_file(text, name="contacts.bedpe"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write_file
