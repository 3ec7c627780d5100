//! Templates in D1.

use crate::edge::cache::Cache;
use crate::edge::{cache, fault};
use crate::rules::refusal::Refusal;
use crate::rules::run::{Millis, Release};
use crate::rules::secret::Secret;
use crate::rules::template::{Parameter, Template};
use crate::wire::evm::Address;
use serde::Deserialize;
use std::rc::Rc;
use wasm_bindgen::JsValue;
use worker::Env;

/// A row as D1 returns it: booleans are numbers, and JSON is text.
#[derive(Deserialize)]
pub(super) struct TemplateRow {
    id: String,
    creator_id: String,
    wallets: String,
    agent_wallet: Option<Address>,
    name: String,
    description: String,
    model: String,
    /// Empty in a listing.
    #[serde(default)]
    prompt: String,
    parameters: String,
    allow_user_message: u8,
    max_tokens: u32,
    price: String,
    published: u8,
    release: String,
    runs: u64,
    #[serde(default)]
    usual_ms: Option<u64>,
}

/// All columns but the prompt, which no listing reads.
pub(super) const COLUMNS: &str = "\
    t.id, t.creator_id, c.wallets, t.name, t.description, t.model, t.parameters, t.allow_user_message, \
    t.max_tokens, t.price, t.published, t.release, t.runs, \
    (SELECT wallet FROM agents WHERE creator_id = t.creator_id) AS agent_wallet";

/// The second longest of the template's last runs.
const USUAL: &str = "\
    (SELECT duration_ms FROM (SELECT duration_ms FROM runs WHERE template_id = t.id AND status = 'delivered'
                              ORDER BY started_at DESC LIMIT 20) ORDER BY duration_ms DESC LIMIT 1 OFFSET 1) AS usual_ms";

thread_local! {
    static TEMPLATES: Cache<Template> = const { Cache::new(size) };
}

/// As [`find`], for strangers' runs: the template as this isolate has read it, less than `fresh` milliseconds ago.
pub(crate) async fn recent(
    env: &Env,
    handle: &str,
    slug: &str,
    fresh: Millis,
) -> Result<Option<Rc<Template>>, Refusal> {
    cache::recent(&TEMPLATES, &format!("{handle}/{slug}"), fresh, find(env, handle, slug, None)).await
}

fn size(template: &Template) -> usize {
    let of_parameter = |parameter: &Parameter| {
        let texts = [&parameter.description, &parameter.default];
        texts.into_iter().flatten().map(String::len).sum::<usize>() + parameter.name.len()
    };
    let parameters = template.parameters.iter().map(of_parameter).sum::<usize>();
    template.prompt.reveal().len() + template.description.len() + template.name.len() + parameters
}

/// The template at `/@{handle}/{slug}`, where it is published or `creator`'s own. To anybody else a draft is not there: the
/// look-up takes no longer than one that finds nothing.
pub(crate) async fn find(
    env: &Env,
    handle: &str,
    slug: &str,
    creator: Option<&str>,
) -> Result<Option<Template>, Refusal> {
    let db = env.d1("DB").map_err(fault("D1 binding"))?;
    let by_path = format!(
        "SELECT {COLUMNS}, t.prompt, {USUAL} FROM templates t JOIN creators c ON c.id = t.creator_id
         WHERE c.handle = ?1 AND t.slug = ?2 AND c.deleted_at IS NULL AND (t.published = 1 OR t.creator_id = ?3)"
    );
    let creator = creator.map_or(JsValue::NULL, JsValue::from);
    let query = db.prepare(by_path).bind(&[handle.into(), slug.into(), creator]);
    let query = query.map_err(fault("template query"))?;
    let row: Option<TemplateRow> = query.first(None).await.map_err(fault("template query"))?;
    row.map(template).transpose()
}

/// The template of a contract, even if it is no longer published: contracts about it stay valid.
pub(crate) async fn of_contract(env: &Env, id: &str) -> Result<Option<Template>, Refusal> {
    let db = env.d1("DB").map_err(fault("D1 binding"))?;
    let by_id = format!(
        "SELECT {COLUMNS}, t.prompt FROM templates t JOIN creators c ON c.id = t.creator_id
         WHERE t.id = ?1 AND c.deleted_at IS NULL"
    );
    let query = db.prepare(by_id).bind(&[id.into()]).map_err(fault("template query"))?;
    let row: Option<TemplateRow> = query.first(None).await.map_err(fault("template query"))?;
    row.map(template).transpose()
}

pub(super) fn template(row: TemplateRow) -> Result<Template, Refusal> {
    Ok(Template {
        wallets: serde_json::from_str(&row.wallets).map_err(fault("creators.wallets"))?,
        parameters: serde_json::from_str(&row.parameters).map_err(fault("templates.parameters"))?,
        price: row.price.parse().map_err(fault("templates.price"))?,
        agent_wallet: row.agent_wallet,
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
        usual_ms: row.usual_ms,
    })
}
