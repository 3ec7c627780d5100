//! One Durable Object for each payer. It stores what concerns several of their payments, and nothing about one run.

use crate::edge::clock;
use crate::edge::objects::payers::{PayerQuery, PayerReply};
use crate::rules::payment::identifier::Claim;
use crate::rules::run::{Millis, RETENTION};
use serde::Deserialize;
use std::cell::Cell;
use worker::{durable_object, Env, Request, Response, Result, SqlStorage, State};

const SCHEMA: [&str; 3] = [
    "CREATE TABLE IF NOT EXISTS work (
       object TEXT NOT NULL, execution INTEGER NOT NULL, since TEXT NOT NULL, PRIMARY KEY (object, execution))",
    "CREATE TABLE IF NOT EXISTS claims (
       identifier TEXT PRIMARY KEY, request TEXT NOT NULL, object TEXT NOT NULL, since TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS slots (object TEXT PRIMARY KEY, since TEXT NOT NULL)",
];
/// A run is kept for [`RETENTION`] after its end, and its end may come long after its beginning.
const ROW_RETENTION: Millis = 2 * RETENTION;

#[durable_object(alarm)]
pub struct PayerObject {
    state: State,
    has_tables: Cell<bool>,
}

// Needed with panic=unwind. Each call is a few statements without an await between them.
impl std::panic::UnwindSafe for PayerObject {}
impl std::panic::RefUnwindSafe for PayerObject {}

impl worker::DurableObject for PayerObject {
    fn new(state: State, _env: Env) -> Self {
        Self { state, has_tables: Cell::new(false) }
    }

    async fn fetch(&self, mut request: Request) -> Result<Response> {
        let query: PayerQuery = serde_json::from_str(&request.text().await?)?;
        let sql = self.open()?;
        let reply = match query {
            PayerQuery::Claim { claim, instead_of } => claim_identifier(&sql, &claim, instead_of.as_deref())?,
            PayerQuery::TakeSlot { object, slots, freed } => take_slot(&sql, &object, slots, &freed)?,
            PayerQuery::CountExecution { object, execution, limit } => {
                count_execution(&sql, &object, execution, limit)?
            }
            PayerQuery::ExecutionsPaid { object } => {
                sql.exec("DELETE FROM work WHERE object = ?", vec![object.into()])?;
                PayerReply::Granted
            }
        };
        let wait = i64::try_from(ROW_RETENTION).unwrap_or(i64::MAX);
        self.state.storage().set_alarm(wait).await?;
        Response::from_json(&reply)
    }

    /// The last call is so long ago that every row is out of date.
    async fn alarm(&self) -> Result<Response> {
        self.has_tables.set(false);
        self.state.storage().delete_all().await?;
        Response::empty()
    }
}

impl PayerObject {
    /// The storage, without the rows that are out of date.
    fn open(&self) -> Result<SqlStorage> {
        let sql = self.state.storage().sql();
        if !self.has_tables.get() {
            for statement in SCHEMA {
                sql.exec(statement, None)?;
            }
            self.has_tables.set(true);
        }
        // Times are compared as text, which is right as long as all have the same number of digits: until 2286.
        let oldest = clock::now().saturating_sub(ROW_RETENTION).to_string();
        sql.exec("DELETE FROM claims WHERE since < ?", vec![oldest.clone().into()])?;
        sql.exec("DELETE FROM slots WHERE since < ?", vec![oldest.into()])?;
        let yesterday = clock::now().saturating_sub(RETENTION).to_string();
        sql.exec("DELETE FROM work WHERE since < ?", vec![yesterday.into()])?;
        Ok(sql)
    }
}

#[derive(Deserialize)]
struct ClaimRow {
    request: String,
    object: String,
    since: String,
}

/// A row of `work` or `slots`.
#[derive(Deserialize)]
struct ObjectRow {
    object: String,
    since: String,
}

fn claim_identifier(sql: &SqlStorage, claim: &Claim, instead_of: Option<&str>) -> Result<PayerReply> {
    let select = "SELECT request, object, since FROM claims WHERE identifier = ?";
    let rows = sql.exec(select, vec![claim.identifier.clone().into()])?.to_array::<ClaimRow>()?;
    match rows.into_iter().next() {
        Some(held) if held.request == claim.request && held.object == claim.object => return Ok(PayerReply::Granted),
        Some(held) if instead_of == Some(held.object.as_str()) => {}
        Some(held) => {
            let since = held.since.parse().unwrap_or_default();
            return Ok(PayerReply::Held { object: held.object, since });
        }
        None => {}
    }
    let insert = "INSERT OR REPLACE INTO claims (identifier, request, object, since) VALUES (?, ?, ?, ?)";
    let Claim { identifier, request, object } = claim.clone();
    sql.exec(insert, vec![identifier.into(), request.into(), object.into(), clock::now().to_string().into()])?;
    Ok(PayerReply::Granted)
}

fn count_execution(sql: &SqlStorage, object: &str, execution: u32, limit: u32) -> Result<PayerReply> {
    let select = "SELECT object, since FROM work WHERE NOT (object = ? AND execution = ?)";
    let others = sql.exec(select, vec![object.into(), i64::from(execution).into()])?.to_array::<ObjectRow>()?;
    if others.len() >= usize::try_from(limit).unwrap_or(usize::MAX) {
        return Ok(PayerReply::Taken(Vec::new()));
    }
    let insert = "INSERT OR REPLACE INTO work (object, execution, since) VALUES (?, ?, ?)";
    sql.exec(insert, vec![object.into(), i64::from(execution).into(), clock::now().to_string().into()])?;
    Ok(PayerReply::Granted)
}

fn take_slot(sql: &SqlStorage, object: &str, slots: u32, freed: &[String]) -> Result<PayerReply> {
    for object in freed {
        sql.exec("DELETE FROM slots WHERE object = ?", vec![object.as_str().into()])?;
    }
    let taken = sql.exec("SELECT object, since FROM slots", None)?.to_array::<ObjectRow>()?;
    let others = taken.into_iter().filter(|row| row.object != object);
    let others: Vec<_> = others.map(|row| (row.object, row.since.parse().unwrap_or_default())).collect();
    if others.len() >= usize::try_from(slots).unwrap_or(usize::MAX) {
        return Ok(PayerReply::Taken(others));
    }
    let insert = "INSERT OR REPLACE INTO slots (object, since) VALUES (?, ?)";
    sql.exec(insert, vec![object.into(), clock::now().to_string().into()])?;
    Ok(PayerReply::Granted)
}
