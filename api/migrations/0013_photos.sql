-- Photos of reports. An upload and its photo are one row: parts of bytes come in, and when all are
-- there, the photo is made of them and put into the object store under the row's id. The row comes
-- before the objects and goes after them, so no object is without a row.

CREATE TABLE photo (
    id              uuid PRIMARY KEY,
    api_key_id      uuid NOT NULL REFERENCES api_key,
    idempotency_key text,
    length          integer NOT NULL CHECK (length > 0),   -- of the upload, in bytes
    received        integer NOT NULL DEFAULT 0 CHECK (received BETWEEN 0 AND length),
    metadata        text,                 -- what a tus client says of it; erased when it is stored
    created_at      timestamptz NOT NULL DEFAULT now(),
    -- What is by then not stored and on a report can no longer become so, and is removed.
    expires_at      timestamptz NOT NULL DEFAULT now() + interval '24 hours',
    stored_at       timestamptz,          -- in the object store
    width           integer,
    height          integer,
    report_id       uuid REFERENCES report,
    attached_at     timestamptz,          -- when it was both: stored, and on a report
    UNIQUE (api_key_id, idempotency_key),
    CHECK ((stored_at IS NULL) = (width IS NULL) AND (width IS NULL) = (height IS NULL)),
    CHECK ((attached_at IS NOT NULL) = (stored_at IS NOT NULL AND report_id IS NOT NULL))
);
CREATE INDEX photo_of_report ON photo (report_id) WHERE report_id IS NOT NULL;
CREATE INDEX photo_adrift ON photo (expires_at) WHERE attached_at IS NULL;

-- What has come of an upload. A part and the row's `received` are written in one statement.
CREATE TABLE photo_part (
    photo_id uuid NOT NULL REFERENCES photo ON DELETE CASCADE,
    at       integer NOT NULL,
    bytes    bytea NOT NULL,
    PRIMARY KEY (photo_id, at)
);
-- Photos do not get smaller.
ALTER TABLE photo_part ALTER COLUMN bytes SET STORAGE EXTERNAL;

-- The reporter agrees that the photos are shown to anybody.
ALTER TABLE report ADD COLUMN photos_public boolean NOT NULL DEFAULT false;

-- Which photos anybody may see: the one place that says so.
CREATE VIEW public_photo AS
SELECT photo.id
FROM photo JOIN report ON report.id = photo.report_id
WHERE report.photos_public AND photo.attached_at IS NOT NULL;

-- Since when it is owed, or owed anew. Photos that came before are in the message; what comes later
-- is told in messages of its own. The clock's time and not the transaction's: who waited for the
-- report's lock comes after who had it.
ALTER TABLE delivery ADD COLUMN owed_at timestamptz NOT NULL DEFAULT now();
ALTER TABLE delivery ALTER COLUMN owed_at SET DEFAULT clock_timestamp();
