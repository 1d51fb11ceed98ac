"""Our signatures against the `standardwebhooks` package, which councils are told to verify with."""

from __future__ import annotations

import base64
import json
import secrets
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from api.delivery import signing

SECRET = signing.new_secret(lambda size: bytes(range(size)))
OTHER = signing.new_secret(bytes)

keys = st.binary(min_size=24, max_size=64).map(
    lambda key: signing.PREFIX + base64.b64encode(key).decode()
)
ids = st.uuids().map(str)
bodies = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
).map(lambda value: json.dumps(value, ensure_ascii=False).encode())


@given(secret=keys, message_id=ids, body=bodies)
def test_the_oracle_accepts_what_we_sign(secret: str, message_id: str, body: bytes) -> None:
    headers = signing.headers(
        [secret], message_id=message_id, timestamp=int(time.time()), body=body
    )
    assert Webhook(secret).verify(body, headers) == json.loads(body)


@given(old=keys, new=keys, message_id=ids, body=bodies)
def test_in_a_rotation_the_holder_of_either_secret_accepts(
    old: str, new: str, message_id: str, body: bytes
) -> None:
    timestamp = int(time.time())
    headers = signing.headers([new, old], message_id=message_id, timestamp=timestamp, body=body)
    for secret in (old, new):
        Webhook(secret).verify(body, headers)
        signing.verify(secret, headers, body, now=timestamp)


@given(body=st.binary(), changed=st.binary(), late_s=st.integers(-400, 400))
def test_ours_agrees_with_the_rules(body: bytes, changed: bytes, late_s: int) -> None:
    headers = signing.headers([SECRET], message_id="m", timestamp=1_800_000_000, body=body)
    good = body == changed and abs(late_s) <= signing.TOLERANCE_S
    try:
        signing.verify(SECRET, headers, changed, now=1_800_000_000 + late_s)
    except signing.InvalidSignature:
        assert not good
    else:
        assert good


@given(
    headers=st.dictionaries(
        st.sampled_from(["webhook-id", "Webhook-Timestamp", "webhook-signature", "x"]),
        st.text() | st.sampled_from(["1800000000", "v1,", "v1,é v1a,x", "v1"]),
    )
)
def test_malformed_headers_are_our_own_error(headers: dict[str, str]) -> None:
    with pytest.raises(signing.InvalidSignature):
        signing.verify(SECRET, headers, b"{}", now=1_800_000_000)


@given(secret=st.text())
def test_malformed_secrets_are_our_own_error_and_do_not_show(secret: str) -> None:
    with pytest.raises(signing.InvalidSecret) as error:
        signing.headers([secret], message_id="m", timestamp=0, body=b"")
    assert len(secret) < 12 or secret not in str(error.value)


def test_another_secret_is_refused_by_both() -> None:
    headers = signing.headers([SECRET], message_id="m", timestamp=int(time.time()), body=b"{}")
    with pytest.raises(signing.InvalidSignature, match="no signature matches"):
        signing.verify(OTHER, headers, b"{}", now=time.time())
    with pytest.raises(WebhookVerificationError):
        Webhook(OTHER).verify(b"{}", headers)


def test_a_known_signature() -> None:
    headers = signing.headers(
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
        message_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp=1614265330,
        body=b'{"test": 2432232314}',
    )
    # from the test vector of the Standard Webhooks libraries
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_new_secrets_differ_and_ids_with_dots_are_refused() -> None:
    assert signing.new_secret(secrets.token_bytes) != signing.new_secret(secrets.token_bytes)
    for message_id in ("", "a.b", "a b", "é"):
        with pytest.raises(ValueError, match="message id"):
            signing.headers([SECRET], message_id=message_id, timestamp=0, body=b"")
