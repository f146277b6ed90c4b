-- Workers say what kind of agents they serve, for the API, which loads none.

-- JSON: agent -> kind, "graph" or "function". Empty until a child is ready.
ALTER TABLE workers ADD COLUMN agents jsonb NOT NULL DEFAULT '{}';
