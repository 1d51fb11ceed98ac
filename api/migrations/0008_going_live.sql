-- What going live leaves behind: artefacts that were removed, and activations that are rollbacks.

-- Where an artefact is follows from GEOROUTER_DATASETS and its version.
ALTER TABLE dataset
    DROP COLUMN location,
    ADD COLUMN removed_at timestamptz;    -- its artefact was pruned; reports go on naming the row

-- A rollback is a row like any other. That it was one tells where the next would lead: further back,
-- not to what was just left.
ALTER TABLE activation ADD COLUMN rollback boolean NOT NULL DEFAULT false;

-- From when to when which dataset is in force. Of two activations for one instant the later was
-- meant: the other never decides and has no term.
CREATE VIEW dataset_term AS
SELECT id, dataset_id, from_at, until, rollback
FROM (SELECT id, dataset_id, from_at, rollback, lead(from_at) OVER (ORDER BY from_at, id) AS until
      FROM activation
      WHERE withdrawn_at IS NULL) AS term
WHERE until IS DISTINCT FROM from_at;
