-- The life of an endpoint: proved before anything is sent to it, paused without losing its backlog,
-- choosing what it wants, and changing its secret without a gap.

ALTER TABLE endpoint
    ADD COLUMN events text[],             -- types of messages wanted; null: all
    ADD COLUMN categories text[],         -- of our category codes; null: all
    ADD COLUMN old_secret text,           -- sealed; signs beside the new one until then
    ADD COLUMN old_secret_until timestamptz,
    ADD CHECK ((old_secret IS NULL) = (old_secret_until IS NULL));

-- Whether a filter lets something by.
CREATE FUNCTION wanted(filter text[], what text) RETURNS boolean LANGUAGE sql IMMUTABLE AS
$$ SELECT filter IS NULL OR what = ANY (filter) $$;

-- Who may be owed a report, wherever one comes to be owed. A paused endpoint is: its backlog waits
-- in `delivery` until it is resumed. A pending one is not proved yet, and a suspended one has said
-- that it is gone: what comes meanwhile is held, or goes to the authority's others.
CREATE VIEW intake_endpoint AS
SELECT id, authority_id, fallback, categories FROM endpoint WHERE state IN ('active', 'paused');

CREATE INDEX endpoint_intake ON endpoint (authority_id) WHERE state IN ('active', 'paused');
DROP INDEX endpoint_active;

-- The latest message of its kind that an endpoint is sent on our own account: a challenge that it
-- must answer before it is active, or a test. Asking again starts the row anew, under another id.
CREATE TABLE endpoint_probe (
    endpoint_id uuid NOT NULL REFERENCES endpoint,
    kind        text NOT NULL CHECK (kind IN ('challenge', 'test')),
    id          uuid NOT NULL DEFAULT gen_random_uuid(),  -- the webhook-id of every try
    text        text NOT NULL,            -- of a challenge: what must come back
    asked_at    timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL,
    due_at      timestamptz DEFAULT now(),  -- of a leased one: when the lease ends; null: no more
    attempts    integer NOT NULL DEFAULT 0, -- with `id` it fences the settling of a late worker
    at          timestamptz NOT NULL DEFAULT now(),  -- when it was asked, tried or settled last
    outcome     text CHECK (outcome IN ('passed', 'failed')),  -- null: waiting
    status      integer,
    error       text,
    PRIMARY KEY (endpoint_id, kind),
    CHECK (outcome IS NULL OR due_at IS NULL)
);
CREATE INDEX endpoint_probe_due ON endpoint_probe (due_at) WHERE due_at IS NOT NULL;

-- What a probe has come to, as its owner is shown it.
CREATE VIEW endpoint_probe_shown AS
SELECT endpoint_id, kind, jsonb_build_object(
    'state', CASE WHEN outcome IS NULL AND expires_at <= now() THEN 'failed'
                  ELSE coalesce(outcome, 'waiting') END,
    'at', at,
    'status', status,
    'error', CASE WHEN outcome IS NULL AND expires_at <= now()
                  THEN coalesce(error || '; ', '') || 'its time is over'
                  ELSE error END) AS shown
FROM endpoint_probe;
