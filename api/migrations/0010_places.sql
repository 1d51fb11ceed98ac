-- What anybody may see of reports, and finding them by place and by time.

CREATE INDEX report_place ON report USING gist (point(lon, lat));
CREATE INDEX report_by_time ON report (received_at, id);

-- Whether one authority is the other, or has taken over from it by now, at whatever remove.
CREATE FUNCTION speaks_for(speaker uuid, authority_id uuid) RETURNS boolean LANGUAGE sql STABLE AS
$$ SELECT speaker = authority_id OR EXISTS (
       WITH RECURSIVE heir AS (
           SELECT authority_id AS id
           UNION
           SELECT successor_id
           FROM heir
           JOIN authority ON authority.id = heir.id AND valid_to <= now()
           JOIN succession ON predecessor_id = heir.id
       )
       SELECT FROM heir WHERE id = speaker) $$;

-- How reports are doing: `status` is what the authority that has it now said last; "closed" when that
-- ended it, and nobody has said since that the defect is still there.
CREATE VIEW report_progress AS
SELECT report.id, status, updated_at, 1 + me_toos AS reports,
       coalesce(status IN ('fixed', 'closed') AND said > coalesce(still_there, 0), false) AS closed
FROM report
CROSS JOIN LATERAL (
    SELECT max(at) AS updated_at,
           max(n) FILTER (WHERE kind IN ('not_ours', 'rerouted', 'with_operator')) AS moved,
           max(n) FILTER (WHERE kind = 'still_there') AS still_there,
           count(*) FILTER (WHERE kind = 'me_too') AS me_toos
    FROM report_event
    WHERE report_id = report.id AND kind NOT IN ('attempted', 'hidden', 'unhidden', 'spam')
) AS news
LEFT JOIN LATERAL (
    SELECT n AS said, detail ->> 'state' AS status
    FROM report_event AS event
    WHERE event.report_id = report.id AND kind = 'status'
      AND speaks_for(event.authority_id, report.authority_id) AND n > coalesce(moved, 0)
    ORDER BY n DESC LIMIT 1
) AS last ON true;

-- What anybody may see of reports.
CREATE VIEW public_report AS
SELECT id, received_at, lon, lat, category, description, authority_id, status, updated_at, reports,
       closed
FROM report JOIN report_progress USING (id);
