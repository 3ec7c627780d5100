//! What a run object stores in its own SQLite: all of its tables and keys.

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
    Run,
    RunRecord,
    /// The rendered prompt, sealed by the vault for the run's id.
    SealedPrompt,
    RunStats,
    /// The transcript's edition. Its pieces have their own table.
    Edition,
    Webhook,
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

/// A run as it was saved last.
pub(crate) struct LoadedRun {
    pub(crate) run: Run,
    pub(crate) record: RunRecord,
    /// The rendered prompt, sealed by the vault for the run's id.
    pub(crate) sealed_prompt: String,
    pub(crate) stats: RunStats,
    /// The text up to the last checkpoint.
    pub(crate) transcript: Transcript,
    /// The last message to a contract's seeker.
    pub(crate) webhook: Option<Webhook>,
}

/// A payment that is reserved for a contract's object: no run may begin with it in its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reservation {
    /// The name of the contract's object.
    pub(crate) to: String,
    /// The time in Unix milliseconds.
    pub(crate) until: Millis,
}

#[derive(Deserialize)]
struct ValueRow {
    value: String,
}

#[derive(Deserialize)]
struct TextsRow {
    texts: String,
}

/// The object's storage. Writes return before they are durable; the runtime holds back whatever leaves the object until
/// they are.
pub(crate) struct RunStore {
    sql: SqlStorage,
}

impl RunStore {
    /// Nothing is written before a run begins, so a payment that is refused at once leaves nothing behind.
    pub(crate) fn open(state: &State) -> Self {
        Self { sql: state.storage().sql() }
    }

    /// The run that was saved last, if there is one.
    pub(crate) fn load(&self) -> Result<Option<LoadedRun>> {
        if !self.has_tables()? {
            return Ok(None);
        }
        let (Some(run), Some(record)) = (self.get(StoredItem::Run)?, self.get(StoredItem::RunRecord)?) else {
            return Ok(None);
        };
        let rows = self.sql.exec("SELECT texts FROM pieces ORDER BY position", None)?;
        let mut pieces = Vec::new();
        for row in rows.to_array::<TextsRow>()? {
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

    /// Stores what does not change while a run lasts.
    pub(crate) fn begin(&self, record: &RunRecord, sealed_prompt: &str) -> Result<()> {
        self.create_tables()?;
        // The largest first: if that does not fit, no half of a run is stored.
        self.put(StoredItem::SealedPrompt, &sealed_prompt)?;
        self.put(StoredItem::RunRecord, record)
    }

    fn has_tables(&self) -> Result<bool> {
        let select = "SELECT name AS value FROM sqlite_master WHERE name = 'kept'";
        Ok(!self.sql.exec(select, None)?.to_array::<ValueRow>()?.is_empty())
    }

    fn create_tables(&self) -> Result<()> {
        SCHEMA.iter().try_for_each(|statement| self.sql.exec(statement, None).map(drop))
    }

    /// The payment's reservation, which may be over.
    pub(crate) fn reservation(&self) -> Result<Option<Reservation>> {
        match self.has_tables()? {
            true => self.get(StoredItem::Reservation),
            false => Ok(None),
        }
    }

    pub(crate) fn reserve(&self, reservation: &Reservation) -> Result<()> {
        self.create_tables()?;
        self.put(StoredItem::Reservation, reservation)
    }

    pub(crate) fn save_webhook(&self, webhook: &Webhook) -> Result<()> {
        self.put(StoredItem::Webhook, webhook)
    }

    /// Saves what changes while a run lasts, except its text.
    pub(crate) fn save(&self, run: &Run, stats: &RunStats, edition: u32) -> Result<()> {
        self.put(StoredItem::Run, run)?;
        self.put(StoredItem::Edition, &edition)?;
        self.put(StoredItem::RunStats, stats)
    }

    /// Saves the pieces of text that are not saved yet.
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

    pub(crate) fn clear_text(&self) -> Result<()> {
        self.sql.exec("DELETE FROM pieces", None).map(drop)
    }

    fn get<T: DeserializeOwned>(&self, item: StoredItem) -> Result<Option<T>> {
        let select = "SELECT value FROM kept WHERE name = ?";
        let rows = self.sql.exec(select, vec![item.name().into()])?.to_array::<ValueRow>()?;
        Ok(rows.first().map(|row| serde_json::from_str(&row.value)).transpose()?)
    }

    fn put<T: Serialize>(&self, item: StoredItem, value: &T) -> Result<()> {
        let upsert = "INSERT OR REPLACE INTO kept (name, value) VALUES (?, ?)";
        let json = serde_json::to_string(value)?;
        self.sql.exec(upsert, vec![item.name().into(), json.into()]).map(drop)
    }
}
