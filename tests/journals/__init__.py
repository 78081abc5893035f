"""The contract of a journal, and the journals that keep it."""

import pytest

for _part in ("finding", "recording", "transactions"):
    pytest.register_assert_rewrite(f"{__name__}.{_part}")
