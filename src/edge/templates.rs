//! Templates in D1.

use super::fault;
use crate::rules::refusal::Refusal;
use crate::rules::run::Release;
use crate::rules::template::{Secret, Template};
use serde::Deserialize;
use worker::Env;

/// A row as D1 hands it out: numbers as they are in JavaScript, JSON as text.
#[derive(Deserialize)]
struct TemplateRow {
    id: String,
    creator_id: String,
    wallets: String,
    name: String,
    description: String,
    model: String,
    prompt: String,
    parameters: String,
    allow_user_message: u8,
    max_tokens: u32,
    price: String,
    published: u8,
    release: String,
    runs: u64,
}

const BY_PATH: &str = "\
    SELECT t.id, t.creator_id, c.wallets, t.name, t.description, t.model, t.prompt, t.parameters,
           t.allow_user_message, t.max_tokens, t.price, t.published, t.release, t.runs
    FROM templates t JOIN creators c ON c.id = t.creator_id
    WHERE c.handle = ?1 AND t.slug = ?2 AND c.deleted_at IS NULL";

/// The template at `/@{handle}/{slug}`, published or not.
pub async fn find(env: &Env, handle: &str, slug: &str) -> Result<Option<Template>, Refusal> {
    let db = env.d1("DB").map_err(fault("D1 binding"))?;
    let query = db.prepare(BY_PATH).bind(&[handle.into(), slug.into()]);
    let query = query.map_err(fault("template query"))?;
    let row: Option<TemplateRow> = query.first(None).await.map_err(fault("template query"))?;
    row.map(template).transpose()
}

fn template(row: TemplateRow) -> Result<Template, Refusal> {
    Ok(Template {
        wallets: serde_json::from_str(&row.wallets).map_err(fault("creators.wallets"))?,
        parameters: serde_json::from_str(&row.parameters).map_err(fault("templates.parameters"))?,
        price: row.price.parse().map_err(fault("templates.price"))?,
        id: row.id,
        creator_id: row.creator_id,
        name: row.name,
        description: row.description,
        model: row.model,
        prompt: Secret::new(row.prompt),
        allow_user_message: row.allow_user_message != 0,
        max_tokens: row.max_tokens,
        published: row.published != 0,
        release: match row.release.as_str() {
            "verified" => Release::Verified,
            _ => Release::Settled,
        },
        runs: row.runs,
    })
}
