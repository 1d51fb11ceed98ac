"""Photos: what an upload is answered with, and how a report shows its photos."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from api import examples
from api.schemas.wire import Asked, Time, Wire, shown


class PhotoHint(Wire):
    """Where the camera says that it was. It is told this once and kept nowhere."""

    lon: float
    lat: float


class UploadOut(Wire):
    """An upload that has begun. Its id is the photo's."""

    model_config = shown(examples.UPLOAD)

    id: UUID
    expires_at: Annotated[Time, Field(description="By then it must be whole and on a report.")]


class PhotoTaken(Wire):
    """A photo that is stored. Name its id in a report's `photos`, or attach it to one."""

    model_config = shown(examples.PHOTO_TAKEN)

    id: UUID
    width: Annotated[int, Field(description="In pixels, as it is stored.")]
    height: int
    expires_at: Annotated[Time, Field(description="By then it must be on a report.")]
    hint: Annotated[
        PhotoHint | None,
        Field(description="For the pin, if the citizen agrees. Null in a repeated answer."),
    ]


class PhotoIn(Asked):
    """The photo to put on a report."""

    model_config = shown(examples.PHOTO_IN)

    photo: UUID


class PhotoOut(Wire):
    """A photo of a report.

    `url` opens without a key until `expires_at`; with `&size=thumb` it is 320 pixels wide or high
    at most. What is null, is not there yet.
    """

    model_config = shown(examples.PHOTO)

    id: UUID
    state: Annotated[
        Literal["stored", "uploading"], Field(description="`uploading`: bytes are still to come.")
    ]
    width: int | None
    height: int | None
    url: str | None
    expires_at: Annotated[Time | None, Field(description="Of `url`. Ask again for a new one.")]
    public_url: Annotated[
        str | None, Field(description="Where anybody sees it, if the reporter has agreed to that.")
    ]
