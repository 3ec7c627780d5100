//! What a run object keeps, in its own SQLite. All of its tables and keys are here.

use crate::rules::dossier::{Dossier, Tally};
use crate::rules::run::{Millis, Run};
use crate::rules::transcript::Transcript;
use crate::rules::webhook::Webhook;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use worker::{Result, SqlStorage, State};

const SCHEMA: [&str; 2] = [
    "CREATE TABLE IF NOT EXISTS kept (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS pieces (position INTEGER PRIMARY KEY, texts TEXT NOT NULL)",
];

/// The names in `kept`.
#[derive(Clone, Copy)]
enum Kept {
    /// The machine.
    Run,
    /// What the run is about.
    Dossier,
    /// The question, sealed by the vault for the run's id.
    Question,
    /// Tokens.
    Tally,
    /// Which edition of the text it is.
    Edition,
    /// The last message to the seeker.
    Webhook,
    /// The contract's object that this payment was taken to.
    Lent,
}

impl Kept {
    const fn name(self) -> &'static str {
        match self {
            Kept::Run => "run",
            Kept::Dossier => "dossier",
            Kept::Question => "question",
            Kept::Tally => "tally",
            Kept::Edition => "edition",
            Kept::Webhook => "webhook",
            Kept::Lent => "lent",
        }
    }
}

/// Everything a restarted object needs.
pub struct Loaded {
    /// The machine as it was saved last.
    pub run: Run,
    /// What the run is about.
    pub dossier: Dossier,
    /// The sealed question.
    pub question: String,
    /// Tokens.
    pub tally: Tally,
    /// The text as far as it was checkpointed.
    pub transcript: Transcript,
    /// The last message to the seeker.
    pub webhook: Option<Webhook>,
}

/// A payment that a contract's object has taken: no run of its own may begin with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lent {
    /// The contract's object.
    pub to: String,
    /// Unix milliseconds.
    pub until: Millis,
}

#[derive(Deserialize)]
struct Value {
    value: String,
}

#[derive(Deserialize)]
struct Texts {
    texts: String,
}

/// The object's storage. Writes are synchronous here; the runtime holds back whatever leaves the
/// object until they are durable.
pub struct Store {
    sql: SqlStorage,
}

impl Store {
    /// Opens the storage. Nothing is written before a run begins: a payment that is refused at the
    /// door leaves no trace here.
    pub fn open(state: &State) -> Self {
        Self { sql: state.storage().sql() }
    }

    /// What was kept, if a run was.
    pub fn load(&self) -> Result<Option<Loaded>> {
        if !self.is_laid_out()? {
            return Ok(None);
        }
        let (Some(run), Some(dossier)) = (self.get(Kept::Run)?, self.get(Kept::Dossier)?) else {
            return Ok(None);
        };
        let rows = self.sql.exec("SELECT texts FROM pieces ORDER BY position", None)?;
        let mut pieces = Vec::new();
        for row in rows.to_array::<Texts>()? {
            pieces.extend(serde_json::from_str::<Vec<String>>(&row.texts)?);
        }
        Ok(Some(Loaded {
            run,
            dossier,
            question: self.get(Kept::Question)?.unwrap_or_default(),
            tally: self.get(Kept::Tally)?.unwrap_or_default(),
            transcript: Transcript::restore(self.get(Kept::Edition)?.unwrap_or_default(), pieces),
            webhook: self.get(Kept::Webhook)?,
        }))
    }

    /// Keeps what does not change while a run lasts.
    pub fn begin(&self, dossier: &Dossier, question: &str) -> Result<()> {
        self.lay_out()?;
        // The largest first: what does not fit leaves no half of a run behind.
        self.put(Kept::Question, &question)?;
        self.put(Kept::Dossier, dossier)
    }

    fn is_laid_out(&self) -> Result<bool> {
        let laid_out = "SELECT name AS value FROM sqlite_master WHERE name = 'kept'";
        Ok(!self.sql.exec(laid_out, None)?.to_array::<Value>()?.is_empty())
    }

    fn lay_out(&self) -> Result<()> {
        SCHEMA.iter().try_for_each(|statement| self.sql.exec(statement, None).map(drop))
    }

    /// Whom this payment was lent to, if it was.
    pub fn lent(&self) -> Result<Option<Lent>> {
        match self.is_laid_out()? {
            true => self.get(Kept::Lent),
            false => Ok(None),
        }
    }

    /// Lends the payment to a contract's object.
    pub fn lend(&self, lent: &Lent) -> Result<()> {
        self.lay_out()?;
        self.put(Kept::Lent, lent)
    }

    /// Keeps a message to the seeker.
    pub fn keep_webhook(&self, webhook: &Webhook) -> Result<()> {
        self.put(Kept::Webhook, webhook)
    }

    /// Keeps the machine, the tokens, and which edition of the text is being written.
    pub fn save(&self, run: &Run, tally: &Tally, edition: u32) -> Result<()> {
        self.put(Kept::Run, run)?;
        self.put(Kept::Edition, &edition)?;
        self.put(Kept::Tally, tally)
    }

    /// Keeps the pieces of text that are not kept yet.
    pub fn checkpoint(&self, transcript: &mut Transcript) -> Result<()> {
        let (position, pieces) = transcript.unsaved();
        if pieces.is_empty() {
            return Ok(());
        }
        let position = i64::try_from(position).unwrap_or(i64::MAX);
        let texts = serde_json::to_string(&pieces)?;
        let insert = "INSERT OR REPLACE INTO pieces (position, texts) VALUES (?, ?)";
        self.sql.exec(insert, vec![position.into(), texts.into()])?;
        transcript.saved();
        Ok(())
    }

    /// Forgets the text.
    pub fn clear(&self) -> Result<()> {
        self.sql.exec("DELETE FROM pieces", None).map(drop)
    }

    fn get<T: DeserializeOwned>(&self, kept: Kept) -> Result<Option<T>> {
        let select = "SELECT value FROM kept WHERE name = ?";
        let rows = self.sql.exec(select, vec![kept.name().into()])?.to_array::<Value>()?;
        Ok(rows.first().map(|row| serde_json::from_str(&row.value)).transpose()?)
    }

    fn put<T: Serialize>(&self, kept: Kept, value: &T) -> Result<()> {
        let upsert = "INSERT OR REPLACE INTO kept (name, value) VALUES (?, ?)";
        let json = serde_json::to_string(value)?;
        self.sql.exec(upsert, vec![kept.name().into(), json.into()]).map(drop)
    }
}
