from collections.abc import Iterator

import pytest

from tests.transport.peer import KEY


@pytest.fixture(autouse=True)
def the_key_is_in_no_log_record(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Assert P9 for every test of the transport, and for the loggers of its dependencies."""
    caplog.set_level("DEBUG")
    yield
    assert not [record for record in caplog.get_records("call") if KEY in record.getMessage()]
