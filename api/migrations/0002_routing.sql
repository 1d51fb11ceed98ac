-- Routing that knows time and takes no for an answer: datasets that come into force at an instant,
-- authorities that begin and end, and what happens to a report after its receipt.

-- "From this instant on, that dataset decides." In force at T is the row with the latest `from_at`
-- not after T; of equal ones, the one recorded last. A rollback is another row; nothing is undone.
CREATE TABLE activation (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dataset_id  bigint NOT NULL REFERENCES dataset,
    from_at     timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    withdrawn_at timestamptz,             -- of a planned one that was called off
    CHECK (withdrawn_at IS NULL OR withdrawn_at < from_at)
);
CREATE INDEX activation_by_time ON activation (from_at DESC, id DESC) WHERE withdrawn_at IS NULL;

INSERT INTO activation (dataset_id, from_at, recorded_at)
SELECT id, activated_at, activated_at FROM dataset WHERE activated_at IS NOT NULL
ORDER BY activated_at;

-- Staged, active and retired follow from the activations.
ALTER TABLE dataset DROP COLUMN state, DROP COLUMN activated_at, DROP COLUMN retired_at;

-- Null: it has always been, it has no end in sight. Midnights of Europe/London, as instants.
ALTER TABLE authority
    ADD COLUMN valid_from timestamptz,
    ADD COLUMN valid_to timestamptz,
    ADD CHECK (valid_from < valid_to);

CREATE TABLE succession (
    predecessor_id uuid NOT NULL REFERENCES authority,
    successor_id   uuid NOT NULL REFERENCES authority,
    reason         text NOT NULL,
    PRIMARY KEY (predecessor_id, successor_id),
    CHECK (predecessor_id <> successor_id)
);

-- What the reporter's device said beside the place; the decision cannot be replayed without. A
-- report that is routed again keeps what its receipt said in `first_decision`.
ALTER TABLE report
    ADD COLUMN road_ref text,
    ADD COLUMN chosen text,
    ADD COLUMN answers jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN first_decision jsonb;

-- What became of a report, in order, append-only. `authority_id` is whom it concerns: who was given
-- the report, or who said so. `key` makes repeating the same news harmless.
CREATE TABLE report_event (
    report_id    uuid NOT NULL REFERENCES report,
    n            integer NOT NULL CHECK (n > 0),
    at           timestamptz NOT NULL DEFAULT now(),
    kind         text NOT NULL CHECK (kind IN (
                     'received', 'answered', 'not_ours', 'rerouted', 'with_operator', 'status')),
    authority_id uuid REFERENCES authority,
    detail       jsonb NOT NULL DEFAULT '{}',
    key          text,
    PRIMARY KEY (report_id, n),
    UNIQUE (report_id, key)
);

INSERT INTO report_event (report_id, n, at, kind, authority_id)
SELECT id, 1, received_at, 'received', authority_id FROM report;

-- "This report must be routed again": the worker does, and removes the row in that transaction.
CREATE TABLE reroute (
    report_id uuid PRIMARY KEY REFERENCES report,
    since     timestamptz NOT NULL DEFAULT now(),
    named     text                        -- the code of the body that it is said to belong to
);
CREATE INDEX reroute_by_age ON reroute (since);

-- The operator's queue: reports that no rule finds a body for.
CREATE TABLE triage (
    report_id uuid PRIMARY KEY REFERENCES report,
    since     timestamptz NOT NULL DEFAULT now(),
    reason    text NOT NULL
);
CREATE INDEX triage_by_age ON triage (since);

-- The council's answer "not ours" is an outcome of its own, and ends the delivery.
ALTER TABLE attempt DROP CONSTRAINT attempt_outcome_check;
ALTER TABLE attempt ADD CONSTRAINT attempt_outcome_check
    CHECK (outcome IN ('delivered', 'deferred', 'rejected', 'gone', 'not_ours'));
