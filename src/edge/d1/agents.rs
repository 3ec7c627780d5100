//! HIRE's worker agents in D1: which creators can be hired, and at which address each is paid.

use crate::edge::fault;
use crate::rules::hire::capability::agent_id;
use crate::rules::refusal::Refusal;
use crate::wire::evm::Address;
use serde::Deserialize;
use worker::Env;

/// The agent of a creator who can be hired.
#[derive(Deserialize)]
pub(crate) struct AgentRow {
    pub(crate) agent_id: String,
    /// The address of the agent's signing key.
    pub(crate) wallet: Address,
}

/// The creator's agent, unless there is none or it has been deactivated.
pub(crate) async fn find(env: &Env, creator_id: &str) -> Result<Option<AgentRow>, Refusal> {
    let db = env.d1("DB").map_err(fault("D1 binding"))?;
    let query = db
        .prepare("SELECT agent_id, wallet FROM agents WHERE creator_id = ?1 AND active = 1")
        .bind(&[creator_id.into()]);
    query.map_err(fault("agent"))?.first(None).await.map_err(fault("agent"))
}

/// Makes the creator hirable, paid at `wallet`. [`Refusal::NotFound`]: the token's subject is no creator here.
pub(crate) async fn activate(env: &Env, creator_id: &str, wallet: Address) -> Result<(), Refusal> {
    let db = env.d1("DB").map_err(fault("D1 binding"))?;
    let upsert = "INSERT INTO agents (creator_id, agent_id, wallet)
                  SELECT id, ?2, ?3 FROM creators WHERE id = ?1 AND deleted_at IS NULL
                  ON CONFLICT (creator_id) DO UPDATE SET wallet = excluded.wallet, active = 1 RETURNING agent_id";
    let values = [creator_id.into(), agent_id(creator_id).into(), wallet.to_string().into()];
    let query = db.prepare(upsert).bind(&values).map_err(fault("agent"))?;
    let agent = query.first::<String>(Some("agent_id")).await.map_err(fault("agent"))?;
    agent.map(drop).ok_or(Refusal::NotFound)
}

/// The creator can no longer be hired. Registered contracts stay valid.
pub(crate) async fn deactivate(env: &Env, creator_id: &str) -> Result<(), Refusal> {
    let db = env.d1("DB").map_err(fault("D1 binding"))?;
    let query = db.prepare("UPDATE agents SET active = 0 WHERE creator_id = ?1").bind(&[creator_id.into()]);
    query.map_err(fault("agent"))?.run().await.map_err(fault("agent")).map(drop)
}
