-- Who did what to an authority's intake, append-only. Never holds a secret.
CREATE TABLE audit (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at           timestamptz NOT NULL DEFAULT now(),
    api_key_id   uuid REFERENCES api_key,      -- null: the command line, or the service itself
    authority_id uuid REFERENCES authority,
    action       text NOT NULL,                -- such as 'endpoint.registered'
    target       uuid,                         -- the endpoint, delivery or report
    detail       jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX audit_of_authority ON audit (authority_id, id);
