-- Evidence: a report's events become a chain of hashes that is only ever added to, attempts become
-- events, and certificates are signed.

ALTER TABLE report_event
    DROP CONSTRAINT report_event_kind_check,
    ADD CONSTRAINT report_event_kind_check CHECK (kind IN (
        'received', 'answered', 'not_ours', 'rerouted', 'with_operator', 'status', 'attempted',
        'me_too', 'still_there', 'photo', 'hidden', 'unhidden', 'spam')),
    -- Years that are written with four digits, so that no two instants are written alike
    ADD CHECK (at BETWEEN timestamptz '0001-01-01 00:00:00+00' AND '9999-12-31 00:00:00+00'),
    ADD COLUMN previous_hash bytea,       -- of event n - 1; null of the first
    ADD COLUMN hash bytea;                -- SHA-256 of report_event_text

-- What is hashed: nine lines, none of which can hold a newline. Nothing in it depends on how a
-- session is set up. The application (api/evidence.py) writes the same text by itself.
CREATE FUNCTION report_event_text(e report_event) RETURNS text LANGUAGE sql STABLE AS $$
SELECT 'georouter event 1'
    || E'\nreport ' || e.report_id::text
    || E'\nn ' || e.n::text
    || E'\nat ' || to_char(e.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
    || E'\nkind ' || e.kind
    || E'\nauthority ' || coalesce(e.authority_id::text, '-')
    || E'\nkey ' || coalesce(to_json(e.key)::text, '-')
    || E'\ndetail ' || e.detail::text
    || E'\nprevious ' || coalesce(encode(e.previous_hash, 'hex'), '-')
$$;

-- With the primary key this makes one chain without gaps or forks, whoever inserts: event n needs a
-- committed or own n - 1, and of two that would both follow it one fails on the key.
CREATE FUNCTION report_event_chain() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.previous_hash := NULL;
    IF NEW.n <> 1 THEN
        SELECT hash INTO NEW.previous_hash
        FROM report_event WHERE report_id = NEW.report_id AND n = NEW.n - 1;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'event % of report % would follow none', NEW.n, NEW.report_id
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
    END IF;
    NEW.hash := sha256(convert_to(report_event_text(NEW), 'UTF8'));
    RETURN NEW;
END
$$;

-- What has happened so far, chained in its order.
DO $$
DECLARE
    event report_event;
    before bytea;
BEGIN
    FOR event IN SELECT * FROM report_event ORDER BY report_id, n LOOP
        event.previous_hash := CASE WHEN event.n > 1 THEN before END;
        before := sha256(convert_to(report_event_text(event), 'UTF8'));
        UPDATE report_event SET previous_hash = event.previous_hash, hash = before
        WHERE report_id = event.report_id AND n = event.n;
    END LOOP;
END
$$;
ALTER TABLE report_event
    ALTER COLUMN hash SET NOT NULL,
    ADD CHECK ((n = 1) = (previous_hash IS NULL));

CREATE TRIGGER report_event_chain BEFORE INSERT ON report_event
    FOR EACH ROW EXECUTE FUNCTION report_event_chain();

CREATE FUNCTION append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is only ever added to', TG_TABLE_NAME
        USING ERRCODE = 'integrity_constraint_violation';
END
$$;
CREATE TRIGGER report_event_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON report_event
    FOR EACH STATEMENT EXECUTE FUNCTION append_only();

-- What was reported, as its first event commits to it. The salt keeps guesses at a description from
-- being tried against a hash that is never erased; whoever erases the text erases the salt. Null:
-- received before there was such a thing.
ALTER TABLE report ADD COLUMN content_salt uuid;
ALTER TABLE report ALTER COLUMN content_salt SET DEFAULT gen_random_uuid();

CREATE FUNCTION report_content_text(
    id uuid, salt uuid, category text, lon float8, lat float8, observed_at timestamptz,
    answers jsonb, description text
) RETURNS text LANGUAGE sql STABLE AS $$
SELECT 'georouter content 1'
    || E'\nreport ' || id::text
    || E'\nsalt ' || salt::text
    || E'\ncategory ' || to_json(category)::text
    || E'\nlon ' || to_char(lon, 'FM990.0000000')
    || E'\nlat ' || to_char(lat, 'FM990.0000000')
    || E'\nobserved ' || coalesce(
           to_char(observed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), '-')
    || E'\nanswers ' || answers::text
    || E'\ndescription ' || to_json(description)::text
$$;

-- Whether the attempt is an event. Not by the settlement, which would have to lock the report: the
-- worker process notes what has ended, a second later.
ALTER TABLE attempt ADD COLUMN logged boolean NOT NULL DEFAULT false;

-- What an attempt came to is told of the attempt: its delivery forgets it when it is sent again.
ALTER TABLE attempt
    ADD COLUMN reference text,
    ADD COLUMN nothing_sent boolean NOT NULL DEFAULT false;
UPDATE attempt
SET reference = delivery.reference,
    nothing_sent = attempt.status IS NULL AND attempt.answer LIKE '%: nothing was sent'
FROM delivery
WHERE delivery.id = delivery_id AND outcome = 'delivered'
  AND (attempt.n = delivery.attempts AND delivery.reference IS NOT NULL
       OR attempt.status IS NULL AND attempt.answer LIKE '%: nothing was sent');

CREATE INDEX attempt_unlogged ON attempt (delivery_id) WHERE NOT logged;

-- Signs certificates. Old keys stay: what they signed is verified with them.
CREATE TABLE signing_key (
    public_key  bytea PRIMARY KEY CHECK (length(public_key) = 32),
    private_key text NOT NULL,            -- sealed
    created_at  timestamptz NOT NULL DEFAULT now(),
    retired_at  timestamptz
);
CREATE UNIQUE INDEX signing_key_in_use ON signing_key ((true)) WHERE retired_at IS NULL;
