-- The delivery engine: who holds a lease, order within a report, circuit breakers, fallback
-- endpoints, and notices of what an owner and the operator must know.

ALTER TABLE endpoint
    ADD COLUMN fallback boolean NOT NULL DEFAULT false,     -- gets only what died elsewhere
    ADD COLUMN failures integer NOT NULL DEFAULT 0 CHECK (failures >= 0),  -- in a row
    ADD COLUMN open_until timestamptz;                      -- the breaker: nothing is sent before

ALTER TABLE delivery
    -- of the latest lease: the worker that took it, by the advisory lock that its session holds
    ADD COLUMN leased_by integer,
    ADD COLUMN sequence integer NOT NULL DEFAULT 1 CHECK (sequence > 0),
    -- null: the report itself, written out when it is sent; else {"type", "timestamp", "data"}
    ADD COLUMN event jsonb,
    DROP CONSTRAINT delivery_report_id_endpoint_id_key,
    ADD UNIQUE (report_id, endpoint_id, sequence),
    ADD CHECK ((sequence = 1) = (event IS NULL));

-- Of one report, one endpoint is sent one thing after the other. A later delivery waits in its
-- due_at (an hour at most), and is due when the one before it comes to an end. Here, and not in the
-- statements that end deliveries, because a function looks with a snapshot of its own: it sees a
-- delivery that was added while its statement waited for the row.
CREATE FUNCTION delivery_wake_next() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE delivery SET due_at = now()
    WHERE id = (SELECT id FROM delivery
                WHERE report_id = OLD.report_id AND endpoint_id = OLD.endpoint_id
                  AND state IN ('pending', 'leased')
                ORDER BY sequence LIMIT 1)
      AND state = 'pending' AND attempts = 0 AND due_at > now();
    RETURN NULL;
END
$$;
CREATE TRIGGER delivery_wake_next AFTER UPDATE OF state ON delivery FOR EACH ROW
    WHEN (OLD.state IN ('pending', 'leased') AND NEW.state NOT IN ('pending', 'leased'))
    EXECUTE FUNCTION delivery_wake_next();

-- What the authority and the operator are told. Never holds a secret.
CREATE TABLE notice (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    at           timestamptz NOT NULL DEFAULT now(),
    authority_id uuid NOT NULL REFERENCES authority,
    endpoint_id  uuid REFERENCES endpoint,
    delivery_id  uuid REFERENCES delivery,
    kind         text NOT NULL CHECK (kind IN ('endpoint_suspended', 'delivery_dead')),
    detail       text NOT NULL
);
CREATE INDEX notice_of_authority ON notice (authority_id, at, id);
CREATE INDEX notice_by_time ON notice (at, id);

-- How many attempts came to what, for the metrics: workers add up and write every second, because
-- counting `attempt` is slow and a counter raised by each settlement would make them all queue.
CREATE TABLE attempt_count (
    channel text NOT NULL,
    outcome text NOT NULL,
    attempts bigint NOT NULL,
    PRIMARY KEY (channel, outcome)
);
