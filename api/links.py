"""Links to photos that open without an API key, for a while.

It promises that a link names one photo, cannot be made without the installation's keys, and stays
good when a newer key is put in front of the one that signed it. Whether the photo may still be seen
is the caller's question.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from api.vault import Vault

LINK_LASTS_S: Final = 7 * 86400
_PURPOSE: Final = "link to a photo"


@dataclass(frozen=True, slots=True)
class Link:
    """A URL and when it ends."""

    url: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class PhotoLinks:
    """Links below `base`, without a slash at its end; `clock` gives Unix seconds."""

    base: str
    vault: Vault
    clock: Callable[[], float] = time.time

    def make(self, photo_id: UUID, *, since: datetime | None = None) -> Link:
        """A link that is good for seven days, from now or `since`."""
        start = self.clock() if since is None else since.timestamp()
        expires = int(start) + LINK_LASTS_S
        signature = self.vault.sign(_signed(photo_id, expires), purpose=_PURPOSE)
        query = f"expires={expires}&signature={signature}"
        return Link(
            url=f"{self.base}/v1/photos/{photo_id}/file?{query}",
            expires_at=datetime.fromtimestamp(expires, UTC),
        )

    def is_ours(self, photo_id: UUID, *, expires: int, signature: str) -> bool:
        """Whether we made a link, even if its time is over."""
        return self.vault.is_signed(_signed(photo_id, expires), signature, purpose=_PURPOSE)

    def is_over(self, expires: int) -> bool:
        """Whether its time is over."""
        return self.clock() >= expires


def _signed(photo_id: UUID, expires: int) -> str:
    return f"{photo_id} {expires}"
