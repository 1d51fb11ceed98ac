-- After sending: mail to those who follow a report.

-- Secrets of mail are apart from the private link: whoever holds that, such as the app, has not
-- shown that the address is theirs.
ALTER TABLE follower
    ADD COLUMN mail_id uuid NOT NULL DEFAULT gen_random_uuid(),  -- in Message-IDs, for bounces
    ADD COLUMN mail_token_sha256 bytea UNIQUE CHECK (length(mail_token_sha256) = 32),
    ADD COLUMN mail_token text,           -- sealed; confirms the address, and unsubscribes
    ADD COLUMN asked_at timestamptz,      -- when the mail was sent that asks to confirm
    ADD COLUMN told_n int NOT NULL DEFAULT 0,  -- they were told of events up to this one
    ADD COLUMN telling_n int,             -- by the mail that is being sent up to this one; 0: asked
    ADD COLUMN mail_due_at timestamptz DEFAULT now(),  -- or end of the lease; null: nothing to tell
    ADD COLUMN mail_lease uuid,
    ADD COLUMN mail_tries int NOT NULL DEFAULT 0,
    ADD COLUMN mail_since timestamptz,    -- first try of the mail that is being sent
    ADD COLUMN mail_stopped text;         -- why none is sent any more: it came back, or was refused

CREATE INDEX follower_mail_due ON follower (mail_due_at) WHERE notify AND mail_due_at IS NOT NULL;

-- In the event's own transaction, so that no news is missed. A mailer that finds nothing to tell has
-- looked with the row locked: we wait for it, and then make the row due again.
CREATE FUNCTION follower_news() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE follower SET mail_due_at = now()
    WHERE report_id = NEW.report_id AND notify AND confirmed_at IS NOT NULL
      AND mail_due_at IS NULL AND unsubscribed_at IS NULL AND mail_stopped IS NULL;
    RETURN NULL;
END
$$;
CREATE TRIGGER follower_news AFTER INSERT ON report_event
    FOR EACH ROW WHEN (NEW.kind IN ('attempted', 'rerouted', 'with_operator', 'status', 'still_there'))
    EXECUTE FUNCTION follower_news();
