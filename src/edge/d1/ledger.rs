//! The ledger of runs in D1. One statement writes a row, and a trigger in `schema.sql` updates the template's counters
//! with it, so that they stay exact when a row is written twice.

use crate::edge::fault;
use crate::rules::ids::ledger_id;
use crate::rules::record::ledger_row::Row;
use crate::rules::refusal::Refusal;
use serde::{Deserialize, Serialize};
use wasm_bindgen::JsValue;
use worker::Env;

const UPSERT: &str = "\
    INSERT INTO runs (id, template_id, creator_id, owner_test, payer, network, asset, amount, tx, status, code,
                      model, stop_reason, input_tokens, output_tokens, started_at, duration_ms)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)
    ON CONFLICT (id) DO UPDATE SET
      payer = excluded.payer, amount = excluded.amount, tx = excluded.tx, status = excluded.status,
      code = excluded.code, stop_reason = excluded.stop_reason, input_tokens = excluded.input_tokens,
      output_tokens = excluded.output_tokens, started_at = excluded.started_at,
      duration_ms = excluded.duration_ms
    WHERE runs.tx IS NULL OR excluded.tx IS NOT NULL";

/// Writes the rows of runs, or updates them, all or none. A late write of an older row never removes a payment from it.
pub(crate) async fn write(env: &Env, rows: &[Row]) -> Result<(), Refusal> {
    let db = env.d1("DB").map_err(fault("D1 binding"))?;
    let upsert = db.prepare(UPSERT);
    let queries: Result<_, _> = rows.iter().map(|row| upsert.clone().bind(&values(row))).collect();
    db.batch(queries.map_err(fault("ledger"))?).await.map_err(fault("ledger")).map(drop)
}

fn values(row: &Row) -> [JsValue; 17] {
    #[allow(clippy::cast_precision_loss)] // token counts and milliseconds are far below 2^53
    let number = |n: u64| JsValue::from_f64(n as f64);
    let text = |t: &str| JsValue::from_str(t);
    let maybe = |t: &Option<String>| t.as_deref().map_or(JsValue::NULL, text);
    [
        text(&row.id),
        text(&row.template_id),
        text(&row.creator_id),
        number(u64::from(row.owner_test)),
        maybe(&row.payer),
        maybe(&row.network),
        maybe(&row.asset),
        text(&row.amount),
        maybe(&row.transaction),
        text(&row.status),
        maybe(&row.code),
        text(&row.model),
        maybe(&row.stop_reason),
        number(row.input_tokens),
        number(row.output_tokens),
        number(row.started_at),
        number(row.duration_ms),
    ]
}

/// A row of the ledger as its creator sees it.
#[derive(Deserialize, Serialize)]
pub(crate) struct Entry {
    /// The digest of the run's id.
    id: String,
    owner_test: u8,
    payer: Option<String>,
    network: Option<String>,
    asset: Option<String>,
    amount: String,
    tx: Option<String>,
    /// One of the words that `schema.sql` lists.
    pub(crate) status: String,
    code: Option<String>,
    model: String,
    stop_reason: Option<String>,
    input_tokens: u64,
    output_tokens: u64,
    started_at: u64,
    duration_ms: u64,
}

const COLUMNS: &str = "id, owner_test, payer, network, asset, amount, tx, status, code, model, \
                       stop_reason, input_tokens, output_tokens, started_at, duration_ms";

/// The row of the run with this id.
pub(crate) async fn find(env: &Env, run: &str) -> Result<Option<Entry>, Refusal> {
    let db = env.d1("DB").map_err(fault("D1 binding"))?;
    let query = db.prepare(format!("SELECT {COLUMNS} FROM runs WHERE id = ?1")).bind(&[ledger_id(run).into()]);
    query.map_err(fault("ledger"))?.first(None).await.map_err(fault("ledger"))
}

/// A template's rows, newest first. `status` and `before` (Unix milliseconds, exclusive) narrow the list.
pub(crate) async fn list(
    env: &Env,
    template_id: &str,
    status: Option<&str>,
    before: Option<u64>,
    limit: u32,
) -> Result<Vec<Entry>, Refusal> {
    let db = env.d1("DB").map_err(fault("D1 binding"))?;
    let select = format!(
        "SELECT {COLUMNS} FROM runs WHERE template_id = ?1 AND (?2 IS NULL OR status = ?2)
         AND (?3 IS NULL OR started_at < CAST(?3 AS INTEGER)) ORDER BY started_at DESC, id LIMIT ?4"
    );
    let text = |t: Option<String>| t.map_or(JsValue::NULL, JsValue::from);
    let before = text(before.map(|b| b.to_string()));
    let values = [template_id.into(), text(status.map(str::to_owned)), before, JsValue::from(limit)];
    let query = db.prepare(select).bind(&values).map_err(fault("ledger"))?;
    query.all().await.and_then(|rows| rows.results()).map_err(fault("ledger"))
}

/// A duration, in milliseconds, that nine in ten of a template's last runs did not exceed.
pub(crate) async fn usual_duration(env: &Env, template_id: &str) -> Result<Option<u64>, Refusal> {
    let db = env.d1("DB").map_err(fault("D1 binding"))?;
    let select = "SELECT duration_ms FROM runs WHERE template_id = ?1 AND status = 'delivered'
                  ORDER BY started_at DESC LIMIT 20";
    let query = db.prepare(select).bind(&[template_id.into()]).map_err(fault("ledger"))?;
    let mut durations: Vec<u64> = query
        .all()
        .await
        .and_then(|rows| rows.results::<DurationRow>())
        .map_err(fault("ledger"))?
        .into_iter()
        .map(|row| row.duration_ms)
        .collect();
    durations.sort_unstable();
    Ok(durations.get(durations.len().saturating_mul(9) / 10).or(durations.last()).copied())
}

#[derive(Deserialize)]
struct DurationRow {
    duration_ms: u64,
}

/// Whether D1 answers a query.
pub(crate) async fn is_reachable(env: &Env) -> bool {
    match env.d1("DB") {
        Ok(db) => db.prepare("SELECT 1 FROM templates LIMIT 1").run().await.is_ok(),
        Err(_) => false,
    }
}
