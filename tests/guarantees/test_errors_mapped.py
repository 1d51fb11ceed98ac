"""Every exception that can reach the HTTP edge has a row in the table of problems."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator

import api
from api import db, errors
from georouter.model import InvalidCoordinate, UnknownCategory

# Bases of families: never raised themselves.
FAMILIES = {
    errors.ApiError,
    errors.AccessError,
    errors.IntakeError,
    errors.PlaceError,
    errors.ResourceError,
}
# Exceptions that end a process at its start, or that the room above them catches. The command line
# and the worker answer for these; a request never meets them.
ELSEWHERE = {
    "api.activation.ActivationRefused",
    "api.activation.DatasetUnknown",
    "api.artefacts.ArtefactTaken",
    "api.artefacts.StoreUnavailable",
    "api.db.MigrationRefused",
    "api.db.SchemaOutdated",
    "api.delivery.channels.open311.NotAnswered",
    "api.delivery.egress.EgressFailed",
    "api.delivery.egress.EgressRefused",
    "api.delivery.egress.NotConnected",
    "api.delivery.georeport.NotGeoReport",
    "api.delivery.signing.InvalidSecret",
    "api.delivery.signing.InvalidSignature",
    "api.embedded.EmbeddedPostgresError",
    "api.evidence.NotACertificate",
    "api.privacy.NobodyFound",
    "api.london.InstantRefused",
    "api.objects.ObjectStoreUnusable",
    "api.picture.Refused",
    "api.rerouting.NobodyLeft",
    "api.vault.SecretUnreadable",
    "api.vault.VaultUnusable",
}


def defined() -> Iterator[type[Exception]]:
    for found in pkgutil.walk_packages(api.__path__, "api."):
        for value in vars(importlib.import_module(found.name)).values():
            if (
                isinstance(value, type)
                and issubclass(value, Exception)
                and value.__module__ == found.name
            ):
                yield value


def test_every_exception_of_the_service_has_a_row_or_a_reason() -> None:
    known = {f"{kind.__module__}.{kind.__qualname__}" for kind in (*errors.TABLE, *FAMILIES)}
    known |= ELSEWHERE | {f"{db.DatabaseUnavailable.__module__}.DatabaseUnavailable"}
    have = {f"{kind.__module__}.{kind.__qualname__}" for kind in defined()}
    assert have - known == set()
    assert ELSEWHERE - have == set(), "these are gone: take them off the list"


def test_what_the_core_raises_has_a_row() -> None:
    assert {InvalidCoordinate, UnknownCategory} <= set(errors.TABLE)


def test_rows_are_fit_to_be_relied_on() -> None:
    rows = {*errors.TABLE.values(), *errors.FRAMEWORK.values()}
    assert len({row.slug for row in rows}) == len(rows)
    for row in rows:
        assert re.fullmatch("[a-z][a-z-]*[a-z]", row.slug)
        assert 400 <= row.status < 600
        assert not row.title.endswith(".")
