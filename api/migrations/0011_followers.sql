-- Who follows a report: its reporter, and those who say "that is mine too". With the photos and the
-- report's description this is all that is personal; an event never is.

CREATE TABLE follower (
    id            uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    report_id     uuid NOT NULL REFERENCES report,
    kind          text NOT NULL CHECK (kind IN ('reporter', 'me_too')),
    token_sha256  bytea UNIQUE CHECK (length(token_sha256) = 32),  -- of the private link
    token         text,                   -- sealed; a retry of the same request is shown it again
    contact       text,                   -- sealed JSON: name, email, phone
    contact_hmac  bytea,                  -- of the e-mail address, to find a person's reports by
    share_contact boolean NOT NULL DEFAULT false,  -- with the authority that gets the report
    notify        boolean NOT NULL DEFAULT false,  -- wants mail about it
    confirmed_at  timestamptz,            -- the address was proved to be theirs
    unsubscribed_at timestamptz,
    created_at    timestamptz NOT NULL DEFAULT now(),
    erased_at     timestamptz,
    CHECK (erased_at IS NULL
           OR (token_sha256 IS NULL AND token IS NULL AND contact IS NULL AND contact_hmac IS NULL))
);
CREATE INDEX follower_of_report ON follower (report_id);
CREATE UNIQUE INDEX follower_reporter ON follower (report_id) WHERE kind = 'reporter';
CREATE INDEX follower_by_contact ON follower (contact_hmac) WHERE contact_hmac IS NOT NULL;

-- Keys the hashes of e-mail addresses. Made once and sealed, so that they outlive its rotations.
CREATE TABLE contact_key (
    id  boolean PRIMARY KEY DEFAULT true CHECK (id),
    key text NOT NULL                     -- sealed
);

ALTER TABLE idempotency
    ADD COLUMN follower_id uuid,          -- whose private link the receipt had; null: it had none
    ADD COLUMN receipt jsonb;             -- of a me-too, without the link: its report moves on
