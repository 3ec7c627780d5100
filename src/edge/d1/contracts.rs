//! Registered contracts in D1.

use crate::edge::{clock, fault};
use crate::rules::hire::contract::{AgreedTerms, ContractState};
use crate::rules::hire::open_contracts::{to_remove, OpenContract, MAX_SIGNED_OF_CREATOR};
use crate::rules::refusal::Refusal;
use crate::rules::run::{Millis, RETENTION};
use crate::wire::hire::Contract;
use serde::Deserialize;
use serde_json::Value;
use wasm_bindgen::JsValue;
use worker::Env;

/// A contract that both parties have signed.
pub(crate) struct Registered {
    /// The document as it was signed.
    pub(crate) document: Value,
    /// The same document, read.
    pub(crate) contract: Contract,
    pub(crate) agreed: AgreedTerms,
    /// The template that it executes.
    pub(crate) template_id: String,
    /// The contract's state, as HIRE spells it.
    pub(crate) state: String,
    pub(crate) task_id: String,
    /// The secret that signs its webhooks, sealed by the vault for [`secret_owner`].
    pub(crate) webhook_secret: Option<String>,
}

#[derive(Deserialize)]
struct Row {
    template_id: String,
    document: String,
    agreed: String,
    state: String,
    task_id: String,
    webhook_secret: Option<String>,
}

/// A contract to be registered.
pub(crate) struct NewContract<'a> {
    pub(crate) id: &'a str,
    pub(crate) template_id: &'a str,
    pub(crate) creator_id: &'a str,
    /// The document in its canonical form (RFC 8785).
    pub(crate) document: &'a str,
    pub(crate) agreed: &'a AgreedTerms,
    pub(crate) task_id: &'a str,
    pub(crate) webhook_secret: Option<String>,
}

/// The owner for which the vault seals a contract's webhook secret.
pub(crate) fn secret_owner(contract_id: &str) -> String {
    format!("webhook-secret/{contract_id}")
}

/// What became of a contract that was to be registered.
pub(crate) enum Inserted {
    Yes,
    /// This contract has the id.
    IdIsTaken(Box<Registered>),
    /// Its seeker has as many open contracts as one may have.
    TooMany,
    /// The worker has as many as one may have, and none of them makes room.
    TooManyOfCreator,
}

/// The most contracts of one seeker that were not executed, and whose deadline is to come.
pub(crate) const MAX_OPEN_OF_SEEKER: u32 = 100;

/// Registers a contract, unless its id is taken, or its seeker or its worker has too many.
pub(crate) async fn insert(env: &Env, new: NewContract<'_>) -> Result<Inserted, Refusal> {
    let insert = format!(
        "INSERT INTO contracts (id, template_id, creator_id, document, agreed, state, task_id, webhook_secret,
                                deadline, created_at, updated_at)
         SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10
         WHERE (SELECT count(*) FROM contracts WHERE agreed ->> 'seeker' = ?11 AND state = 'SIGNED' AND deadline > ?10)
               < {MAX_OPEN_OF_SEEKER}
           AND (SELECT count(*) FROM contracts WHERE creator_id = ?3 AND state = 'SIGNED') < {MAX_SIGNED_OF_CREATOR}
         ON CONFLICT (id) DO NOTHING RETURNING id"
    );
    let db = env.d1("DB").map_err(fault("D1 binding"))?;
    make_room(env, new.creator_id).await?;
    let agreed = serde_json::to_string(new.agreed).map_err(fault("contract"))?;
    let values = [
        new.id.into(),
        new.template_id.into(),
        new.creator_id.into(),
        new.document.into(),
        agreed.into(),
        ContractState::Signed.as_str().into(),
        new.task_id.into(),
        new.webhook_secret.map_or(JsValue::NULL, JsValue::from),
        millis(new.agreed.deadline),
        millis(clock::now()),
        new.agreed.seeker.to_string().into(),
    ];
    let query = db.prepare(insert).bind(&values).map_err(fault("contract"))?;
    if query.first::<String>(Some("id")).await.map_err(fault("contract"))?.is_some() {
        return Ok(Inserted::Yes);
    }
    if let Some(before) = find(env, new.id).await? {
        return Ok(Inserted::IdIsTaken(Box::new(before)));
    }
    let is_full = signed_of(env, new.creator_id).await? >= MAX_SIGNED_OF_CREATOR;
    Ok(if is_full { Inserted::TooManyOfCreator } else { Inserted::TooMany })
}

async fn signed_of(env: &Env, creator_id: &str) -> Result<usize, Refusal> {
    let db = env.d1("DB").map_err(fault("D1 binding"))?;
    let select = "SELECT count(*) AS n FROM contracts WHERE creator_id = ?1 AND state = 'SIGNED'";
    let query = db.prepare(select).bind(&[creator_id.into()]).map_err(fault("contract"))?;
    Ok(query.first::<usize>(Some("n")).await.map_err(fault("contract"))?.unwrap_or_default())
}

/// Deletes a few contracts that nobody has executed in time, and where a creator has too many, those that make room.
/// Signing costs a seeker nothing, so the table must not grow with every contract that is signed.
async fn make_room(env: &Env, creator_id: &str) -> Result<(), Refusal> {
    let db = env.d1("DB").map_err(fault("D1 binding"))?;
    let now = clock::now();
    let stale = "DELETE FROM contracts WHERE id IN
                   (SELECT id FROM contracts WHERE state = 'SIGNED' AND deadline < ?1 ORDER BY deadline LIMIT 20)";
    let stale = db.prepare(stale).bind(&[millis(now.saturating_sub(7 * RETENTION))]).map_err(fault("contract"))?;
    stale.run().await.map_err(fault("contract"))?;
    if signed_of(env, creator_id).await? < MAX_SIGNED_OF_CREATOR {
        return Ok(());
    }
    let select = "SELECT id, agreed ->> 'seeker' AS seeker, deadline, created_at, updated_at FROM contracts
                  WHERE creator_id = ?1 AND state = 'SIGNED'";
    let select = db.prepare(select).bind(&[creator_id.into()]).map_err(fault("contract"))?;
    let rows = select.all().await.and_then(|rows| rows.results::<OpenContract>()).map_err(fault("contract"))?;
    let ids = Value::from(to_remove(&rows, now)).to_string();
    // One of them may have been executed since it was read.
    let delete = "DELETE FROM contracts WHERE id IN (SELECT value FROM json_each(?1))
                  AND state = 'SIGNED' AND updated_at <= created_at";
    let delete = db.prepare(delete).bind(&[ids.into()]).map_err(fault("contract"))?;
    delete.run().await.map_err(fault("contract")).map(drop)
}

/// The contract with this id.
pub(crate) async fn find(env: &Env, id: &str) -> Result<Option<Registered>, Refusal> {
    let db = env.d1("DB").map_err(fault("D1 binding"))?;
    let select = "SELECT template_id, document, agreed, state, task_id, webhook_secret FROM contracts WHERE id = ?1";
    let query = db.prepare(select).bind(&[id.into()]).map_err(fault("contract"))?;
    let row: Option<Row> = query.first(None).await.map_err(fault("contract"))?;
    let Some(row) = row else { return Ok(None) };
    let document: Value = serde_json::from_str(&row.document).map_err(fault("contracts.document"))?;
    let contract = serde_json::from_value(document.clone()).map_err(fault("contracts.document"))?;
    let agreed = serde_json::from_str(&row.agreed).map_err(fault("contracts.agreed"))?;
    let Row { template_id, state, task_id, webhook_secret, .. } = row;
    Ok(Some(Registered { document, contract, agreed, template_id, state, task_id, webhook_secret }))
}

/// Records the state of a contract. Only the contract's own object calls this.
pub(crate) async fn set_state(env: &Env, id: &str, state: ContractState) -> Result<(), Refusal> {
    let db = env.d1("DB").map_err(fault("D1 binding"))?;
    let update = "UPDATE contracts SET state = ?2, updated_at = ?3 WHERE id = ?1";
    let query = db.prepare(update).bind(&[id.into(), state.as_str().into(), millis(clock::now())]);
    query.map_err(fault("contract"))?.run().await.map_err(fault("contract")).map(drop)
}

#[allow(clippy::cast_precision_loss)] // far below 2^53
fn millis(time: Millis) -> JsValue {
    JsValue::from_f64(time as f64)
}
