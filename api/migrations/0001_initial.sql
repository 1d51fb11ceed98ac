-- The first schema: authorities and their intake endpoints, boundary datasets, keys, reports, and
-- the outbox. One row per fact; a report's delivery state is derived from its deliveries.

-- A durable public body with an id of ours. Its external codes are attributes and may change.
CREATE TABLE authority (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name       text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE authority_code (
    scheme       text NOT NULL,           -- 'gss' for the codes of boundary datasets
    code         text NOT NULL,
    authority_id uuid NOT NULL REFERENCES authority,
    PRIMARY KEY (scheme, code)
);
CREATE INDEX authority_code_of ON authority_code (authority_id);

-- One immutable boundary artefact. `version` names it in every decision.
CREATE TABLE dataset (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    version      text NOT NULL UNIQUE,
    location     text NOT NULL,           -- folder that holds manifest.json and index.grx
    manifest     jsonb NOT NULL,
    state        text NOT NULL CHECK (state IN ('staged', 'active', 'retired')),
    staged_at    timestamptz NOT NULL DEFAULT now(),
    activated_at timestamptz,
    retired_at   timestamptz
);
CREATE UNIQUE INDEX dataset_one_active ON dataset ((true)) WHERE state = 'active';

-- Keys are random; only their SHA-256 is kept.
CREATE TABLE api_key (
    id            uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    secret_sha256 bytea NOT NULL UNIQUE CHECK (length(secret_sha256) = 32),
    role          text NOT NULL CHECK (role IN ('app', 'council', 'operator')),
    authority_id  uuid REFERENCES authority,
    label         text NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz,
    revoked_at    timestamptz,
    CHECK ((role = 'council') = (authority_id IS NOT NULL))
);

CREATE TABLE report (
    id           uuid PRIMARY KEY,
    received_at  timestamptz NOT NULL DEFAULT now(),
    observed_at  timestamptz,             -- the device's clock: untrusted, kept apart
    api_key_id   uuid NOT NULL REFERENCES api_key,
    lon          double precision NOT NULL CHECK (lon BETWEEN -180 AND 180),
    lat          double precision NOT NULL CHECK (lat BETWEEN -90 AND 90),
    accuracy_m   double precision CHECK (accuracy_m >= 0),
    category     text NOT NULL,
    description  text NOT NULL,
    decision     jsonb NOT NULL,
    dataset_id   bigint NOT NULL REFERENCES dataset,
    authority_id uuid NOT NULL REFERENCES authority,
    -- what the app was told on receipt; the current state is derived from held and delivery
    held_on_receipt boolean NOT NULL
);
CREATE INDEX report_of_authority ON report (authority_id, received_at);

-- "This key has been used for that report": written in the report's transaction.
CREATE TABLE idempotency (
    api_key_id     uuid NOT NULL REFERENCES api_key,
    key            text NOT NULL,
    request_sha256 bytea NOT NULL CHECK (length(request_sha256) = 32),
    report_id      uuid NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (api_key_id, key)
);

-- "This report waits for its authority to register an intake endpoint." Removed when it does.
CREATE TABLE held (
    report_id    uuid PRIMARY KEY REFERENCES report,
    authority_id uuid NOT NULL REFERENCES authority,
    since        timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX held_by_authority ON held (authority_id, since);

-- An authority's destination.
CREATE TABLE endpoint (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    authority_id uuid NOT NULL REFERENCES authority,
    channel      text NOT NULL,
    url          text NOT NULL,
    secret       text NOT NULL,           -- whsec_...: signs what we send
    state        text NOT NULL CHECK (state IN ('pending', 'active', 'paused', 'suspended', 'deleted')),
    created_at   timestamptz NOT NULL DEFAULT now(),
    created_by   uuid NOT NULL REFERENCES api_key,
    ended_at     timestamptz,
    CHECK ((state = 'deleted') = (ended_at IS NOT NULL))
);
CREATE INDEX endpoint_active ON endpoint (authority_id) WHERE state = 'active';

-- One message owed to one endpoint. Its id is the webhook-id of every attempt.
CREATE TABLE delivery (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    report_id   uuid NOT NULL REFERENCES report,
    endpoint_id uuid NOT NULL REFERENCES endpoint,
    state       text NOT NULL DEFAULT 'pending'
                CHECK (state IN ('pending', 'leased', 'delivered', 'dead', 'cancelled')),
    due_at      timestamptz NOT NULL DEFAULT now(),  -- of a leased one: when the lease ends
    attempts    integer NOT NULL DEFAULT 0,
    lease_token uuid,                                -- fences the settling of a late worker
    created_at  timestamptz NOT NULL DEFAULT now(),
    settled_at  timestamptz,
    reference   text,                                -- the authority's own number, from its answer
    UNIQUE (report_id, endpoint_id),
    CHECK ((state = 'leased') = (lease_token IS NOT NULL)),
    CHECK ((state IN ('delivered', 'dead', 'cancelled')) = (settled_at IS NOT NULL))
) WITH (autovacuum_vacuum_scale_factor = 0.02);
-- The claim asks each endpoint for its oldest due deliveries, and counts what it has in flight.
CREATE INDEX delivery_due ON delivery (endpoint_id, due_at) WHERE state IN ('pending', 'leased');
CREATE INDEX delivery_in_flight ON delivery (endpoint_id, due_at) WHERE state = 'leased';
CREATE INDEX delivery_of_endpoint ON delivery (endpoint_id, created_at);

-- One try, written before it is made. `outcome` stays null when the worker died in the middle.
CREATE TABLE attempt (
    delivery_id uuid NOT NULL REFERENCES delivery,
    n           integer NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    outcome     text CHECK (outcome IN ('delivered', 'deferred', 'rejected', 'gone')),
    status      integer,
    answer      text,                     -- the first 2 KiB of what the endpoint said
    error       text,
    PRIMARY KEY (delivery_id, n)
);
