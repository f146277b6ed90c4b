-- What the sweep ends: runs that are cancelled, out of time, or expired in the queue, and whose worker does not do so.
CREATE INDEX runs_cancelled ON runs (cancel_requested_at) WHERE cancel_requested_at IS NOT NULL AND status IN ('queued', 'in_progress');
CREATE INDEX runs_deadline ON runs (deadline_at) WHERE deadline_at IS NOT NULL AND status IN ('queued', 'in_progress');
CREATE INDEX runs_expiring ON runs (expires_at) WHERE expires_at IS NOT NULL AND status = 'queued' AND attempt = 0;

-- A run in the foreground is cancelled when its last connection has been gone for a while.
ALTER TABLE runs ADD COLUMN connections  smallint NOT NULL DEFAULT 1;  -- clients that wait for it; the one that submits it is the first
ALTER TABLE runs ADD COLUMN abandoned_at timestamptz;                  -- since when there has been none
CREATE INDEX runs_abandoned ON runs (abandoned_at) WHERE abandoned_at IS NOT NULL AND status IN ('queued', 'in_progress');
