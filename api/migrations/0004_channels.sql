-- Delivery channels: how each endpoint wants to be spoken to, and what an authority opened in its
-- own system because of a report.

-- What a channel needs beside the address; never a secret, which `secret` holds, sealed.
ALTER TABLE endpoint ADD COLUMN config jsonb NOT NULL DEFAULT '{}';

-- No answer says that the authority took it, and none that it did not.
ALTER TABLE attempt ADD COLUMN unsure boolean NOT NULL DEFAULT false;

-- Settled without sending: a dry run, or an endpoint that is a blackhole.
ALTER TABLE delivery ADD COLUMN nothing_sent boolean NOT NULL DEFAULT false;

-- "This delivery opened something at the authority that can be asked about." The lease of who asks
-- is a `next_poll_at` in the future, as with deliveries.
CREATE TABLE service_request (
    delivery_id  uuid PRIMARY KEY REFERENCES delivery,
    token        text,                    -- a receipt, to be exchanged for the number
    reference    text,                    -- the authority's number
    state        text,                    -- what it last said
    seen         text,                    -- a digest of what it last said, so that news is news
    since        timestamptz NOT NULL DEFAULT now(),
    answered_at  timestamptz NOT NULL DEFAULT now(),
    failures     integer NOT NULL DEFAULT 0,
    next_poll_at timestamptz,             -- null: no longer asked
    CHECK (token IS NOT NULL OR reference IS NOT NULL)
);
CREATE INDEX service_request_due ON service_request (next_poll_at) WHERE next_poll_at IS NOT NULL;
