//! What a wallet's object stores in its own SQLite: all of its tables, and its one alarm.

use crate::edge::{clock, fault};
use crate::rules::admission::COUNTED_FOR;
use crate::rules::hire::webhook::Webhook;
use crate::rules::record::run_record::{RunRecord, RunStats};
use crate::rules::record::transcript::Transcript;
use crate::rules::run::{Millis, Run};
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use worker::{Result, SqlStorage, SqlStorageValue, State, Storage};

/// `expires` is `NULL` as long as something may still happen to the run. `counted` has a row for each run that came to
/// nothing by the payer's doing (of an owner: for each test), and says whether its text was shown.
const SCHEMA: &str = "\
    CREATE TABLE IF NOT EXISTS runs (
      number INTEGER PRIMARY KEY, name TEXT NOT NULL, expires INTEGER, state TEXT NOT NULL, record TEXT NOT NULL,
      prompt TEXT, webhook TEXT);
    CREATE INDEX IF NOT EXISTS runs_by_name ON runs (name);
    CREATE INDEX IF NOT EXISTS runs_by_expiry ON runs (expires);
    CREATE TABLE IF NOT EXISTS pieces (
      run INTEGER NOT NULL, position INTEGER NOT NULL, texts TEXT NOT NULL, PRIMARY KEY (run, position)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS keys (key TEXT PRIMARY KEY, run INTEGER NOT NULL) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS keys_by_run ON keys (run);
    CREATE TABLE IF NOT EXISTS counted (at INTEGER NOT NULL, name TEXT NOT NULL, shown INTEGER NOT NULL);";
const OVERVIEW: &str = "\
    SELECT (SELECT coalesce(max(number), 0) FROM runs) AS last_number,
      (SELECT count(*) FROM runs WHERE expires IS NULL) AS open_runs,
      (SELECT count(*) FROM keys WHERE key >= 'payment|' AND key < 'payment}') AS contract_payments,
      (SELECT count(*) FROM counted) AS counted";
const COLUMNS: &str = "number, name, state, record, webhook";
/// Runs that have expired are deleted together: the alarm comes this much later.
const EXPIRY_SLACK: Millis = 10 * 60 * 1000;

/// A run as it was saved last.
pub(crate) struct StoredRun {
    /// The run's number in this object.
    pub(crate) number: u64,
    pub(crate) name: String,
    pub(crate) run: Run,
    pub(crate) record: RunRecord,
    pub(crate) stats: RunStats,
    /// The text up to the last checkpoint.
    pub(crate) transcript: Transcript,
    /// The last message to a contract's seeker.
    pub(crate) webhook: Option<Webhook>,
}

/// What a run is stored with for the first time, beside its state.
pub(crate) struct NewRun<'a> {
    pub(crate) name: &'a str,
    pub(crate) record: &'a RunRecord,
    /// The rendered prompt, sealed by the vault for the run's id. `None`: Claude will not be called again.
    pub(crate) sealed_prompt: Option<&'a str>,
}

/// What changes while a run lasts, except its text.
#[derive(Serialize)]
struct StateRef<'a> {
    run: &'a Run,
    stats: &'a RunStats,
    edition: u32,
}

#[derive(Deserialize)]
struct SavedState {
    run: Run,
    stats: RunStats,
    edition: u32,
}

#[derive(Deserialize)]
struct RunRow {
    number: u64,
    name: String,
    state: String,
    record: String,
    webhook: Option<String>,
}

/// The one column of a query.
#[derive(Deserialize)]
struct ValueRow<T> {
    value: T,
}

/// What was stored when the object was loaded. One query for all of it, because an object is loaded more often than its
/// wallet has open runs.
#[derive(Default, Deserialize)]
struct Overview {
    /// The highest number of a run.
    last_number: u64,
    open_runs: u64,
    contract_payments: u64,
    counted: u64,
}

/// What counts against the wallet's limits.
#[derive(Clone, Deserialize)]
struct Counted {
    at: Millis,
    name: String,
    shown: u8,
}

/// The object's storage. Writes return before they are durable; the runtime holds back whatever leaves the object until
/// they are.
pub(crate) struct WalletStore {
    sql: SqlStorage,
    storage: Rc<Storage>,
    has_tables: Cell<bool>,
    /// Some payments are used by contracts. Few wallets have any.
    has_contract_payments: Cell<bool>,
    at_open: Overview,
    /// The rows of `counted`, oldest first.
    counted: RefCell<Vec<Counted>>,
    /// When the alarm is set to.
    alarm_at: Rc<Cell<Option<Millis>>>,
}

impl WalletStore {
    /// Opens the storage. Nothing is written before a run has to be kept, so that a payment which is not good leaves
    /// nothing behind.
    pub(crate) fn open(state: &State) -> Result<Self> {
        let storage = Rc::new(state.storage());
        let sql = storage.sql();
        let select = "SELECT count(*) AS value FROM sqlite_master WHERE name = 'counted'";
        let has_tables = sql.exec(select, None)?.one::<ValueRow<u32>>()?.value > 0;
        let overview = match has_tables {
            true => sql.exec(OVERVIEW, None)?.one::<Overview>()?,
            false => Overview::default(),
        };
        let counted = match overview.counted {
            0 => Vec::new(),
            _ => sql.exec("SELECT at, name, shown FROM counted ORDER BY at", None)?.to_array()?,
        };
        Ok(Self {
            sql,
            storage,
            has_tables: Cell::new(has_tables),
            has_contract_payments: Cell::new(overview.contract_payments > 0),
            at_open: overview,
            counted: RefCell::new(counted),
            alarm_at: Rc::default(),
        })
    }

    fn create_tables(&self) -> Result<()> {
        if !self.has_tables.get() {
            self.sql.exec(SCHEMA, None)?;
            self.has_tables.set(true);
        }
        Ok(())
    }

    fn select<T: for<'de> Deserialize<'de>>(&self, query: &str, values: Vec<SqlStorageValue>) -> Result<Vec<T>> {
        match self.has_tables.get() {
            true => self.sql.exec(query, values)?.to_array(),
            false => Ok(Vec::new()),
        }
    }

    // Runs.

    /// The runs to which something could still happen when the object was loaded.
    pub(crate) fn open_runs(&self) -> Result<Vec<StoredRun>> {
        if self.at_open.open_runs == 0 {
            return Ok(Vec::new());
        }
        let rows = self.run_rows("expires IS NULL", Vec::new())?;
        // One that cannot be read must not stop the wallet's other runs.
        Ok(rows.into_iter().filter_map(|row| self.stored_run(row).map_err(fault("stored run")).ok()).collect())
    }

    /// The number of the last stored run of this name.
    pub(crate) fn last_number(&self, name: &str) -> Result<Option<u64>> {
        let select = "SELECT max(number) AS value FROM runs WHERE name = ?";
        let rows = self.select::<ValueRow<Option<u64>>>(select, vec![name.into()])?;
        Ok(rows.first().and_then(|row| row.value))
    }

    /// Whether no run is stored.
    pub(crate) fn is_empty(&self) -> Result<bool> {
        let rows = self.select::<ValueRow<u64>>("SELECT count(*) AS value FROM runs", Vec::new())?;
        Ok(rows.first().is_none_or(|row| row.value == 0))
    }

    pub(crate) fn run(&self, number: u64) -> Result<Option<StoredRun>> {
        self.one_run("number = ?", integer(number))
    }

    /// The last run of this name.
    pub(crate) fn run_named(&self, name: &str) -> Result<Option<StoredRun>> {
        self.one_run("name = ? ORDER BY number DESC LIMIT 1", name.into())
    }

    /// The number of the run that has taken a key.
    pub(crate) fn run_of_key(&self, key: &str) -> Result<Option<u64>> {
        let rows = self.select::<ValueRow<u64>>("SELECT run AS value FROM keys WHERE key = ?", vec![key.into()])?;
        Ok(rows.first().map(|row| row.value))
    }

    /// The number of the run for which a contract's payment was used.
    pub(crate) fn run_of_payment(&self, payment: &str) -> Result<Option<u64>> {
        match self.has_contract_payments.get() {
            true => self.run_of_key(&payment_key(payment)),
            false => Ok(None),
        }
    }

    /// The number that the next run gets, as far as storage knew when the object was loaded.
    pub(crate) fn next_number(&self) -> u64 {
        self.at_open.last_number.saturating_add(1)
    }

    fn run_rows(&self, condition: &str, values: Vec<SqlStorageValue>) -> Result<Vec<RunRow>> {
        self.select(&format!("SELECT {COLUMNS} FROM runs WHERE {condition}"), values)
    }

    fn one_run(&self, condition: &str, value: SqlStorageValue) -> Result<Option<StoredRun>> {
        self.run_rows(condition, vec![value])?.pop().map(|row| self.stored_run(row)).transpose()
    }

    fn stored_run(&self, row: RunRow) -> Result<StoredRun> {
        let SavedState { run, stats, edition } = serde_json::from_str(&row.state)?;
        let select = "SELECT texts AS value FROM pieces WHERE run = ? ORDER BY position";
        let mut pieces = Vec::new();
        for texts in self.select::<ValueRow<String>>(select, vec![integer(row.number)])? {
            pieces.extend(serde_json::from_str::<Vec<String>>(&texts.value)?);
        }
        Ok(StoredRun {
            number: row.number,
            name: row.name,
            run,
            record: serde_json::from_str(&row.record)?,
            stats,
            transcript: Transcript::restore(edition, pieces),
            webhook: row.webhook.map(|webhook| serde_json::from_str(&webhook)).transpose()?,
        })
    }

    /// Stores a run for the first time, with the keys that lead to it.
    pub(crate) fn insert(
        &self,
        number: u64,
        new: &NewRun<'_>,
        saved: (&Run, &RunStats, u32),
        expires: Option<Millis>,
    ) -> Result<()> {
        self.create_tables()?;
        let insert = "INSERT INTO runs (number, name, expires, state, record, prompt) VALUES (?, ?, ?, ?, ?, ?)";
        let values = vec![
            integer(number),
            new.name.into(),
            expires.map(integer).into(),
            state_json(saved)?.into(),
            serde_json::to_string(new.record)?.into(),
            new.sealed_prompt.map(str::to_owned).into(),
        ];
        self.sql.exec(insert, values)?;
        let key = new.record.key.as_ref().map(|key| key.key.clone());
        let payment = new.record.payment.as_ref().filter(|_| new.record.contract_context.is_some());
        self.has_contract_payments.set(self.has_contract_payments.get() || payment.is_some());
        for key in key.into_iter().chain(payment.map(|payment| payment_key(&payment.name))) {
            self.sql.exec("INSERT OR REPLACE INTO keys (key, run) VALUES (?, ?)", vec![key.into(), integer(number)])?;
        }
        Ok(())
    }

    /// Saves what changes while a run lasts, except its text. A run that has ended needs its prompt no more.
    pub(crate) fn update(&self, number: u64, saved: (&Run, &RunStats, u32), expires: Option<Millis>) -> Result<()> {
        let update = "UPDATE runs SET state = ?, expires = ?, prompt = iif(? IS NULL, prompt, NULL) WHERE number = ?";
        let expires = || SqlStorageValue::from(expires.map(integer));
        self.sql.exec(update, vec![state_json(saved)?.into(), expires(), expires(), integer(number)]).map(drop)
    }

    pub(crate) fn sealed_prompt(&self, number: u64) -> Result<Option<String>> {
        let select = "SELECT prompt AS value FROM runs WHERE number = ?";
        let mut rows = self.select::<ValueRow<Option<String>>>(select, vec![integer(number)])?;
        Ok(rows.pop().and_then(|row| row.value))
    }

    pub(crate) fn save_webhook(&self, number: u64, webhook: &Webhook) -> Result<()> {
        let update = "UPDATE runs SET webhook = ?, expires = NULL WHERE number = ?";
        self.sql.exec(update, vec![serde_json::to_string(webhook)?.into(), integer(number)]).map(drop)
    }

    /// Saves the pieces of text that are not saved yet.
    pub(crate) fn checkpoint(&self, number: u64, transcript: &mut Transcript) -> Result<()> {
        let (position, pieces) = transcript.unsaved();
        if pieces.is_empty() {
            return Ok(());
        }
        let position = integer(u64::try_from(position).unwrap_or(u64::MAX));
        let texts = serde_json::to_string(&pieces)?;
        let insert = "INSERT OR REPLACE INTO pieces (run, position, texts) VALUES (?, ?, ?)";
        self.sql.exec(insert, vec![integer(number), position, texts.into()])?;
        transcript.saved();
        Ok(())
    }

    pub(crate) fn clear_text(&self, number: u64) -> Result<()> {
        self.sql.exec("DELETE FROM pieces WHERE run = ?", vec![integer(number)]).map(drop)
    }

    // What counts against the wallet.

    /// The times of what counts at `now`, oldest first.
    pub(crate) fn counted(&self, now: Millis) -> Vec<Millis> {
        let counted = self.counted.borrow();
        counted.iter().map(|counted| counted.at).filter(|at| at.saturating_add(COUNTED_FOR) > now).collect()
    }

    /// How many of those have shown text that was not paid.
    pub(crate) fn shown_unpaid(&self, now: Millis) -> usize {
        let counted = self.counted.borrow();
        counted.iter().filter(|counted| counted.shown != 0 && counted.at.saturating_add(COUNTED_FOR) > now).count()
    }

    pub(crate) fn count(&self, name: &str, shown: bool, now: Millis) -> Result<()> {
        self.create_tables()?;
        let oldest = now.saturating_sub(COUNTED_FOR);
        let mut counted = self.counted.borrow_mut();
        if counted.first().is_some_and(|first| first.at <= oldest) {
            counted.retain(|counted| counted.at > oldest);
            self.sql.exec("DELETE FROM counted WHERE at <= ?", vec![integer(oldest)])?;
        }
        let values = vec![integer(now), name.into(), i64::from(shown).into()];
        self.sql.exec("INSERT INTO counted (at, name, shown) VALUES (?, ?, ?)", values)?;
        counted.push(Counted { at: now, name: name.to_owned(), shown: u8::from(shown) });
        Ok(())
    }

    /// A run of this name is paid after all: text that was shown before is not outstanding any more. With `forget`,
    /// what came to nothing before does not count either.
    pub(crate) fn note_paid(&self, name: &str, forget: bool) -> Result<()> {
        let mut counted = self.counted.borrow_mut();
        if !counted.iter().any(|counted| counted.name == name) {
            return Ok(());
        }
        if forget {
            counted.retain(|counted| counted.name != name);
            return self.sql.exec("DELETE FROM counted WHERE name = ?", vec![name.into()]).map(drop);
        }
        counted.iter_mut().filter(|counted| counted.name == name).for_each(|counted| counted.shown = 0);
        self.sql.exec("UPDATE counted SET shown = 0 WHERE name = ?", vec![name.into()]).map(drop)
    }

    // The end.

    /// Some of the runs that may be deleted. The alarm comes again for the others, so that not all are in memory at once.
    pub(crate) fn expired(&self, now: Millis) -> Result<Vec<StoredRun>> {
        let mut runs = Vec::new();
        for row in self.run_rows("expires <= ? LIMIT 50", vec![integer(now)])? {
            let number = row.number;
            match self.stored_run(row) {
                Ok(run) => runs.push(run),
                // It can be deleted, if not read.
                Err(error) => self.delete(number).map_err(|_| error)?,
            }
        }
        Ok(runs)
    }

    pub(crate) fn delete(&self, number: u64) -> Result<()> {
        for delete in
            ["DELETE FROM pieces WHERE run = ?", "DELETE FROM keys WHERE run = ?", "DELETE FROM runs WHERE number = ?"]
        {
            self.sql.exec(delete, vec![integer(number)])?;
        }
        Ok(())
    }

    /// When there is something to delete next. `None`: nothing is stored.
    pub(crate) fn next_expiry(&self, now: Millis) -> Result<Option<Millis>> {
        let select = "SELECT min(expires) AS value FROM runs WHERE expires IS NOT NULL";
        let runs = self.select::<ValueRow<Option<Millis>>>(select, Vec::new())?;
        let runs = runs.first().and_then(|row| row.value).map(with_slack);
        let counted = self.counted(now).last().map(|at| at.saturating_add(COUNTED_FOR));
        Ok(runs.into_iter().chain(counted).min())
    }

    /// Deletes everything, and the object with it.
    pub(crate) async fn delete_all(&self) -> Result<()> {
        self.has_tables.set(false);
        self.has_contract_payments.set(false);
        self.counted.borrow_mut().clear();
        self.alarm_at.set(None);
        self.storage.delete_all().await
    }

    // The alarm.

    /// Makes sure that the alarm comes at `deadline` at the latest. It is set in the transaction of the rows that were
    /// written just before. One that comes too early only looks for the next deadline.
    pub(crate) fn wake_by(&self, deadline: Millis, now: Millis) {
        if self.alarm_at.get().is_some_and(|at| at <= deadline) {
            return;
        }
        self.alarm_at.set(Some(deadline));
        let storage = self.storage.clone();
        // To `set_alarm`, a number is an offset from now.
        let wait = i64::try_from(deadline.saturating_sub(now)).unwrap_or(i64::MAX).max(1);
        let alarm_at = self.alarm_at.clone();
        wasm_bindgen_futures::spawn_local(async move {
            if storage.set_alarm(wait).await.map_err(fault("alarm")).is_err() {
                alarm_at.set(None);
            }
        });
    }

    /// As [`Self::wake_by`], for a run that is to be deleted then.
    pub(crate) fn wake_to_delete(&self, expires: Millis, now: Millis) {
        self.wake_by(with_slack(expires), now);
    }

    /// The alarm has fired, so that none is set.
    pub(crate) fn alarm_fired(&self) {
        self.alarm_at.set(None);
    }
}

/// The key of a payment that a contract was executed with: no other run may begin with it.
fn payment_key(payment: &str) -> String {
    format!("payment|{payment}")
}

fn with_slack(expires: Millis) -> Millis {
    expires.saturating_add(EXPIRY_SLACK).max(clock::now())
}

fn state_json((run, stats, edition): (&Run, &RunStats, u32)) -> Result<String> {
    Ok(serde_json::to_string(&StateRef { run, stats, edition })?)
}

fn integer(value: u64) -> SqlStorageValue {
    i64::try_from(value).unwrap_or(i64::MAX).into()
}
