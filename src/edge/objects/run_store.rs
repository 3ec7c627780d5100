//! What a run object keeps, in its own SQLite. All of its tables and keys are here.

use crate::rules::hire::webhook::Webhook;
use crate::rules::record::run_record::{RunRecord, RunStats};
use crate::rules::record::transcript::Transcript;
use crate::rules::run::{Millis, Run};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use worker::{Result, SqlStorage, State};

const SCHEMA: [&str; 2] = [
    "CREATE TABLE IF NOT EXISTS kept (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS pieces (position INTEGER PRIMARY KEY, texts TEXT NOT NULL)",
];

/// The names in `kept`.
#[derive(Clone, Copy)]
enum StoredItem {
    /// The machine.
    Run,
    /// What the run is about.
    RunRecord,
    /// The sealed_prompt, sealed by the vault for the run's id.
    SealedPrompt,
    /// Tokens.
    RunStats,
    /// Which edition of the text it is.
    Edition,
    /// The last message to the seeker.
    Webhook,
    /// The contract's object that this payment was taken to.
    Reservation,
}

impl StoredItem {
    const fn name(self) -> &'static str {
        match self {
            StoredItem::Run => "run",
            StoredItem::RunRecord => "record",
            StoredItem::SealedPrompt => "sealed_prompt",
            StoredItem::RunStats => "stats",
            StoredItem::Edition => "edition",
            StoredItem::Webhook => "webhook",
            StoredItem::Reservation => "reservation",
        }
    }
}

/// Everything a restarted object needs.
pub(crate) struct LoadedRun {
    /// The machine as it was saved last.
    pub(crate) run: Run,
    /// What the run is about.
    pub(crate) record: RunRecord,
    /// The sealed sealed_prompt.
    pub(crate) sealed_prompt: String,
    /// Tokens.
    pub(crate) stats: RunStats,
    /// The text as far as it was checkpointed.
    pub(crate) transcript: Transcript,
    /// The last message to the seeker.
    pub(crate) webhook: Option<Webhook>,
}

/// A payment that a contract's object has taken: no run of its own may begin with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reservation {
    /// The contract's object.
    pub(crate) to: String,
    /// Unix milliseconds.
    pub(crate) until: Millis,
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
pub(crate) struct RunStore {
    sql: SqlStorage,
}

impl RunStore {
    /// Opens the storage. Nothing is written before a run begins: a payment that is refused at the
    /// door leaves no trace here.
    pub(crate) fn open(state: &State) -> Self {
        Self { sql: state.storage().sql() }
    }

    /// What was kept, if a run was.
    pub(crate) fn load(&self) -> Result<Option<LoadedRun>> {
        if !self.is_laid_out()? {
            return Ok(None);
        }
        let (Some(run), Some(record)) = (self.get(StoredItem::Run)?, self.get(StoredItem::RunRecord)?) else {
            return Ok(None);
        };
        let rows = self.sql.exec("SELECT texts FROM pieces ORDER BY position", None)?;
        let mut pieces = Vec::new();
        for row in rows.to_array::<Texts>()? {
            pieces.extend(serde_json::from_str::<Vec<String>>(&row.texts)?);
        }
        Ok(Some(LoadedRun {
            run,
            record,
            sealed_prompt: self.get(StoredItem::SealedPrompt)?.unwrap_or_default(),
            stats: self.get(StoredItem::RunStats)?.unwrap_or_default(),
            transcript: Transcript::restore(self.get(StoredItem::Edition)?.unwrap_or_default(), pieces),
            webhook: self.get(StoredItem::Webhook)?,
        }))
    }

    /// Keeps what does not change while a run lasts.
    pub(crate) fn begin(&self, record: &RunRecord, sealed_prompt: &str) -> Result<()> {
        self.lay_out()?;
        // The largest first: what does not fit leaves no half of a run behind.
        self.put(StoredItem::SealedPrompt, &sealed_prompt)?;
        self.put(StoredItem::RunRecord, record)
    }

    fn is_laid_out(&self) -> Result<bool> {
        let laid_out = "SELECT name AS value FROM sqlite_master WHERE name = 'kept'";
        Ok(!self.sql.exec(laid_out, None)?.to_array::<Value>()?.is_empty())
    }

    fn lay_out(&self) -> Result<()> {
        SCHEMA.iter().try_for_each(|statement| self.sql.exec(statement, None).map(drop))
    }

    /// Whom this payment was reservation to, if it was.
    pub(crate) fn reservation(&self) -> Result<Option<Reservation>> {
        match self.is_laid_out()? {
            true => self.get(StoredItem::Reservation),
            false => Ok(None),
        }
    }

    /// Lends the payment to a contract's object.
    pub(crate) fn reserve(&self, reservation: &Reservation) -> Result<()> {
        self.lay_out()?;
        self.put(StoredItem::Reservation, reservation)
    }

    /// Keeps a message to the seeker.
    pub(crate) fn keep_webhook(&self, webhook: &Webhook) -> Result<()> {
        self.put(StoredItem::Webhook, webhook)
    }

    /// Keeps the machine, the tokens, and which edition of the text is being written.
    pub(crate) fn save(&self, run: &Run, stats: &RunStats, edition: u32) -> Result<()> {
        self.put(StoredItem::Run, run)?;
        self.put(StoredItem::Edition, &edition)?;
        self.put(StoredItem::RunStats, stats)
    }

    /// Keeps the pieces of text that are not kept yet.
    pub(crate) fn checkpoint(&self, transcript: &mut Transcript) -> Result<()> {
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
    pub(crate) fn clear(&self) -> Result<()> {
        self.sql.exec("DELETE FROM pieces", None).map(drop)
    }

    fn get<T: DeserializeOwned>(&self, kept: StoredItem) -> Result<Option<T>> {
        let select = "SELECT value FROM kept WHERE name = ?";
        let rows = self.sql.exec(select, vec![kept.name().into()])?.to_array::<Value>()?;
        Ok(rows.first().map(|row| serde_json::from_str(&row.value)).transpose()?)
    }

    fn put<T: Serialize>(&self, kept: StoredItem, value: &T) -> Result<()> {
        let upsert = "INSERT OR REPLACE INTO kept (name, value) VALUES (?, ?)";
        let json = serde_json::to_string(value)?;
        self.sql.exec(upsert, vec![kept.name().into(), json.into()]).map(drop)
    }
}
