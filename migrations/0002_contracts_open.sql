-- How many contracts a seeker, and a creator, has that were not executed.
CREATE INDEX IF NOT EXISTS contracts_by_seeker ON contracts (agreed ->> 'seeker', state, deadline);
CREATE INDEX IF NOT EXISTS contracts_open ON contracts (creator_id, state, deadline, created_at);
