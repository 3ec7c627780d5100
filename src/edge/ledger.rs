//! The ledger of runs in D1. One statement writes a row; a trigger in `schema.sql` moves the
//! template's counters with it, so they are exact whatever is told twice.

use super::fault;
use crate::rules::ledger::Row;
use crate::rules::refusal::Refusal;
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

/// Writes the row of a run, or brings it up to date. A row that is late never takes a payment back.
pub async fn write(env: &Env, row: Row) -> Result<(), Refusal> {
    let db = env.d1("DB").map_err(fault("D1 binding"))?;
    #[allow(clippy::cast_precision_loss)] // token counts and milliseconds are far below 2^53
    let number = |n: u64| JsValue::from_f64(n as f64);
    let text = |t: Option<String>| t.map_or(JsValue::NULL, JsValue::from);
    let values = [
        row.id.into(),
        row.template_id.into(),
        row.creator_id.into(),
        number(u64::from(row.owner_test)),
        text(row.payer),
        text(row.network),
        text(row.asset),
        row.amount.into(),
        text(row.transaction),
        row.status.into(),
        text(row.code),
        row.model.into(),
        text(row.stop_reason),
        number(row.input_tokens),
        number(row.output_tokens),
        number(row.started_at),
        number(row.duration_ms),
    ];
    let query = db.prepare(UPSERT).bind(&values).map_err(fault("ledger"))?;
    query.run().await.map_err(fault("ledger")).map(drop)
}

/// Whether D1 answers.
pub async fn is_reachable(env: &Env) -> bool {
    match env.d1("DB") {
        Ok(db) => db.prepare("SELECT 1 FROM templates LIMIT 1").run().await.is_ok(),
        Err(_) => false,
    }
}
