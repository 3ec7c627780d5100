-- coinslot's D1 database, for reading. Databases are made and changed by migrations/, and a test says that the two agree:
-- a change is a new file there, and its result here.
-- Money is in atomic units of the asset. Amounts are TEXT, because D1 hands integers above 2^53 to
-- JavaScript as floats; sums live in INTEGER columns (64 bits inside SQLite) and are read as TEXT.

CREATE TABLE IF NOT EXISTS creators (
  id         TEXT PRIMARY KEY,             -- the JWT's `sub`
  handle     TEXT NOT NULL UNIQUE,         -- `ada` in /@ada/haiku
  name       TEXT NOT NULL,
  wallets    TEXT NOT NULL DEFAULT '{}',   -- JSON: CAIP-2 network -> address that is paid
  created_at INTEGER NOT NULL DEFAULT (unixepoch()),
  deleted_at INTEGER
) STRICT;

CREATE TABLE IF NOT EXISTS templates (
  id                 TEXT PRIMARY KEY,
  creator_id         TEXT NOT NULL REFERENCES creators (id),
  slug               TEXT NOT NULL,
  name               TEXT NOT NULL,
  description        TEXT NOT NULL DEFAULT '',
  model              TEXT NOT NULL,
  prompt             TEXT NOT NULL,              -- secret: the system prompt, with {name}{/name} tags
  parameters         TEXT NOT NULL DEFAULT '[]', -- JSON: [{name, description?, required?, default?, maxLength?}]
  allow_user_message INTEGER NOT NULL DEFAULT 0,
  max_tokens         INTEGER NOT NULL DEFAULT 1024,
  price              TEXT NOT NULL,              -- decimal units of the asset: "0.01"
  published          INTEGER NOT NULL DEFAULT 0,
  -- When a stream's text is shown: 'settled', or 'verified' (sooner, and at the creator's risk).
  release            TEXT NOT NULL DEFAULT 'settled' CHECK (release IN ('settled', 'verified')),
  created_at         INTEGER NOT NULL DEFAULT (unixepoch()),
  updated_at         INTEGER NOT NULL DEFAULT (unixepoch()),
  -- Counters, kept by the trigger below and by nothing else.
  runs               INTEGER NOT NULL DEFAULT 0, -- ended runs, owner tests left out
  delivered          INTEGER NOT NULL DEFAULT 0,
  owner_tests        INTEGER NOT NULL DEFAULT 0,
  input_tokens       INTEGER NOT NULL DEFAULT 0,
  output_tokens      INTEGER NOT NULL DEFAULT 0,
  UNIQUE (creator_id, slug)
) STRICT;

-- The ledger: one row for each run that ended.
CREATE TABLE IF NOT EXISTS runs (
  id            TEXT PRIMARY KEY,   -- SHA-256 of the run's id, in hex: the id itself opens the caller's answer
  template_id   TEXT NOT NULL,
  creator_id    TEXT NOT NULL,
  owner_test    INTEGER NOT NULL,   -- 1: test by the creator, free or paid from a wallet of theirs: no run, no earnings
  payer         TEXT,               -- NULL: free owner test
  network       TEXT,               -- CAIP-2
  asset         TEXT,
  amount        TEXT NOT NULL,      -- atomic units charged; '0' where nothing was settled
  tx            TEXT,               -- settlement's transaction; '' where only the spent nonce shows that there is one
  status        TEXT NOT NULL,      -- delivered | failed | refused | unknown | interrupted | refundable | reported
                                    -- (reported: for refund, to the facilitator)
  code          TEXT,               -- the refusal's code, where there was one
  model         TEXT NOT NULL,
  stop_reason   TEXT,
  input_tokens  INTEGER NOT NULL,
  output_tokens INTEGER NOT NULL,
  started_at    INTEGER NOT NULL,   -- milliseconds since 1970
  duration_ms   INTEGER NOT NULL
) STRICT;

CREATE INDEX IF NOT EXISTS runs_by_template ON runs (template_id, started_at);
CREATE INDEX IF NOT EXISTS runs_by_creator ON runs (creator_id, started_at);

-- What each template has earned, by asset: atomic units, up to 2^63 - 1. Beyond that (tokens with 18
-- decimals) add up the rows of `runs`.
CREATE TABLE IF NOT EXISTS earnings (
  template_id TEXT NOT NULL,
  network     TEXT NOT NULL,
  asset       TEXT NOT NULL,
  amount      INTEGER NOT NULL,
  PRIMARY KEY (template_id, network, asset)
) STRICT;

-- Counters move in the same statement as the row: a run told twice counts once. A run that comes to
-- rest again (broken off, then finished) is one row brought up to date, and the counters follow it.
CREATE TRIGGER IF NOT EXISTS runs_added AFTER INSERT ON runs
BEGIN
  UPDATE templates SET
    runs          = runs + (NEW.owner_test = 0),
    delivered     = delivered + (NEW.owner_test = 0 AND NEW.status = 'delivered'),
    owner_tests   = owner_tests + NEW.owner_test,
    input_tokens  = input_tokens + NEW.input_tokens,
    output_tokens = output_tokens + NEW.output_tokens
  WHERE id = NEW.template_id;
  INSERT INTO earnings (template_id, network, asset, amount)
    SELECT NEW.template_id, NEW.network, NEW.asset, CAST(NEW.amount AS INTEGER)
    WHERE NEW.owner_test = 0 AND NEW.tx IS NOT NULL
    ON CONFLICT (template_id, network, asset) DO UPDATE SET
      amount = min(amount, 9223372036854775807 - excluded.amount) + excluded.amount;
END;

CREATE TRIGGER IF NOT EXISTS runs_changed AFTER UPDATE ON runs
BEGIN
  UPDATE templates SET
    delivered     = delivered + (NEW.owner_test = 0) * ((NEW.status = 'delivered') - (OLD.status = 'delivered')),
    input_tokens  = input_tokens + NEW.input_tokens - OLD.input_tokens,
    output_tokens = output_tokens + NEW.output_tokens - OLD.output_tokens
  WHERE id = NEW.template_id;
  INSERT INTO earnings (template_id, network, asset, amount)
    SELECT NEW.template_id, NEW.network, NEW.asset, CAST(NEW.amount AS INTEGER)
    WHERE NEW.owner_test = 0 AND NEW.tx IS NOT NULL AND OLD.tx IS NULL
    ON CONFLICT (template_id, network, asset) DO UPDATE SET
      amount = min(amount, 9223372036854775807 - excluded.amount) + excluded.amount;
END;

-- HIRE: creators who can be hired. Written when a creator stores a key to sign contracts with.
CREATE TABLE IF NOT EXISTS agents (
  creator_id TEXT PRIMARY KEY REFERENCES creators (id),
  agent_id   TEXT NOT NULL UNIQUE,         -- agent_…
  wallet     TEXT NOT NULL,                -- the key's address: signs contracts, and is paid for them
  active     INTEGER NOT NULL DEFAULT 1    -- 0: the key is deleted, no new contracts
) STRICT;

-- HIRE: what a template says of itself beyond the template. A row is needed only for what differs.
CREATE TABLE IF NOT EXISTS capabilities (
  template_id    TEXT PRIMARY KEY REFERENCES templates (id),
  output         TEXT CHECK (output IN ('text', 'json', 'file', 'multiple', 'stream')), -- NULL: as the contract asks
  output_schema  TEXT,                     -- JSON Schema of every result of type json
  file_name      TEXT,                     -- of a result of type file: 'report.md'
  mime           TEXT,                     -- its media type: 'text/markdown; charset=utf-8'
  max_latency_ms INTEGER                   -- promised in the manifest; contracts may not ask for less
) STRICT;

-- HIRE: contracts signed by both parties.
CREATE TABLE IF NOT EXISTS contracts (
  id             TEXT PRIMARY KEY,         -- ctr_…
  template_id    TEXT NOT NULL,
  creator_id     TEXT NOT NULL,
  document       TEXT NOT NULL,            -- RFC 8785, with hash and signatures
  agreed         TEXT NOT NULL,            -- JSON: what it agrees, as it was checked when it was registered
  state          TEXT NOT NULL,            -- SIGNED | EXECUTING | COMPLETED | REJECTED | DISPUTED
  task_id        TEXT NOT NULL,
  webhook_secret TEXT,                     -- sealed by the vault
  deadline       INTEGER NOT NULL,         -- milliseconds since 1970; SIGNED ones are deleted a week later
  created_at     INTEGER NOT NULL,         -- milliseconds since 1970
  updated_at     INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS contracts_by_creator ON contracts (creator_id, created_at);
CREATE INDEX IF NOT EXISTS contracts_by_deadline ON contracts (state, deadline);
CREATE INDEX IF NOT EXISTS contracts_by_seeker ON contracts (agreed ->> 'seeker', state, deadline);
CREATE INDEX IF NOT EXISTS contracts_open ON contracts (creator_id, state, deadline, created_at);
