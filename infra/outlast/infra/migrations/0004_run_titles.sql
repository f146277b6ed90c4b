-- What a list of runs shows of a request, so that it need not read requests, which may be megabytes each.
ALTER TABLE runs ADD COLUMN title text;                       -- the beginning of the last user message; runs made before have none
