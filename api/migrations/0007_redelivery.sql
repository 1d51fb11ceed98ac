-- Redelivery: a delivery that has come to an end is due again, on somebody's word, under its own id.

ALTER TABLE delivery
    ADD COLUMN redelivered_at timestamptz,
    -- How many attempts there were by then. They stay on record and count no more: not as rejections,
    -- not for the waits between attempts, and what one of them left unsure a person has settled.
    ADD COLUMN redelivered_after integer NOT NULL DEFAULT 0
        CHECK (redelivered_after BETWEEN 0 AND attempts);

-- What an endpoint got, when and how it ended: for its health, and to redeliver a span of time.
CREATE INDEX delivery_settled ON delivery (endpoint_id, state, settled_at)
    WHERE settled_at IS NOT NULL;

-- As before, for redelivered ones too: what has not been tried since then waits for those before it.
CREATE OR REPLACE FUNCTION delivery_wake_next() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE delivery SET due_at = now()
    WHERE id = (SELECT id FROM delivery
                WHERE report_id = OLD.report_id AND endpoint_id = OLD.endpoint_id
                  AND state IN ('pending', 'leased')
                ORDER BY sequence LIMIT 1)
      AND state = 'pending' AND attempts = redelivered_after AND due_at > now();
    RETURN NULL;
END
$$;
