from collections.abc import Iterator, Sequence

import pytest

from tests.testing.driver import NO_WAITING
from tests.transport.peer import KEY


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    for item in items:
        if NO_WAITING.mark in item.iter_markers("trio"):
            item.add_marker(NO_WAITING, append=False)  # before the one of pytest-trio's own


@pytest.fixture(autouse=True)
def the_key_is_in_no_log_record(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """P9, for every test of the transport, and for the loggers of what it stands on."""
    caplog.set_level("DEBUG")
    yield
    assert not [record for record in caplog.get_records("call") if KEY in record.getMessage()]
