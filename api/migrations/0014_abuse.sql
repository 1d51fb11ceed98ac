-- Abuse and privacy: requests are counted, spam is marked, reports can be hidden, and what is kept
-- for the sake of the first two goes again within hours.

-- How often whom has asked: web processes count, and add up here twice a second. By a keyed hash of
-- a network, or by the digest of a key. A crash may lose it.
CREATE UNLOGGED TABLE rate_count (
    name       text NOT NULL,             -- which limit, and whose
    n          bigint NOT NULL,           -- which of its windows since 1970
    hits       integer NOT NULL,
    expires_at timestamptz NOT NULL,      -- when it counts no more
    PRIMARY KEY (name, n)
);
CREATE INDEX rate_count_expired ON rate_count (expires_at);

-- An app's own server speaks for thousands from one address.
ALTER TABLE api_key ADD COLUMN address_limited boolean NOT NULL DEFAULT true;
CREATE INDEX api_key_without_address_limit ON api_key (id) WHERE NOT address_limited;

-- Where a report came from and what it says, as keyed hashes: to see the same text come again.
CREATE TABLE report_trace (
    report_id    uuid PRIMARY KEY REFERENCES report,
    at           timestamptz NOT NULL DEFAULT now(),
    api_key_id   uuid NOT NULL REFERENCES api_key,
    address_hmac text,                    -- null: it is not known
    text_hmac    text NOT NULL
);
CREATE INDEX report_trace_of_text ON report_trace (text_hmac, at);
CREATE INDEX report_trace_by_time ON report_trace (at);

ALTER TABLE report
    ADD COLUMN spam jsonb,                -- {"reasons": [...]} on receipt; null: none
    ADD COLUMN spam_cleared_at timestamptz,  -- somebody has looked, and it is none
    ADD COLUMN hidden_at timestamptz,
    ADD COLUMN erased_at timestamptz,     -- the description, and with it its salt
    ADD CHECK (spam_cleared_at IS NULL OR spam IS NOT NULL),
    ADD CHECK (erased_at IS NULL OR content_salt IS NULL);

-- As before, without what is hidden or thought to be spam.
CREATE OR REPLACE VIEW public_report AS
SELECT id, received_at, lon, lat, category, description, authority_id, status, updated_at, reports,
       closed
FROM report JOIN report_progress USING (id)
WHERE hidden_at IS NULL AND (spam IS NULL OR spam_cleared_at IS NOT NULL);

CREATE OR REPLACE VIEW public_photo AS
SELECT photo.id
FROM photo JOIN report ON report.id = photo.report_id
WHERE report.photos_public AND photo.attached_at IS NOT NULL
  AND hidden_at IS NULL AND (spam IS NULL OR spam_cleared_at IS NOT NULL);

-- Whether a report's work is over, hidden or not, and since when: from then on contacts wait to be
-- erased.
CREATE VIEW closed_report AS
SELECT report.id, last.at AS closed_at
FROM report
CROSS JOIN LATERAL (
    SELECT max(n) FILTER (WHERE kind IN ('not_ours', 'rerouted', 'with_operator', 'still_there'))
               AS opened
    FROM report_event WHERE report_id = report.id
) AS news
CROSS JOIN LATERAL (
    SELECT n, at, detail ->> 'state' AS state
    FROM report_event AS event
    WHERE event.report_id = report.id AND kind = 'status'
      AND speaks_for(event.authority_id, report.authority_id)
    ORDER BY n DESC LIMIT 1
) AS last
WHERE last.state IN ('fixed', 'closed') AND last.n > coalesce(opened, 0);

CREATE INDEX attempt_answered ON attempt (finished_at) WHERE answer IS NOT NULL;
