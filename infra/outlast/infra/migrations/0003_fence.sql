-- What an attempt writes outside of the event log (checkpoints, and what comes to lie beside them) is fenced by its lease.

-- Rides at the head of the transaction it guards. SHARE, not KEY SHARE: only then does a takeover wait for the transaction
-- to end, or the transaction learn of the takeover. Attempts of one run do not wait for each other's checkpoints.
CREATE FUNCTION fence(held_run uuid, held_attempt integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM run_leases WHERE run_id = held_run AND attempt = held_attempt FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the lease of this attempt is lost' USING ERRCODE = 'OL001';
    END IF;
END
$$;
