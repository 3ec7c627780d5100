//! Templates in D1, and the capabilities that HIRE's manifests list: templates of creators who can be hired.

use crate::edge::cache::Cache;
use crate::edge::{cache, fault};
use crate::rules::hire::capability::{is_capability_name, Agent, Capability};
use crate::rules::hire::output::{is_file_name, is_media_type, FileSpec, OutputType};
use crate::rules::refusal::Refusal;
use crate::rules::run::{Millis, Release};
use crate::rules::secret::Secret;
use crate::rules::template::{Parameter, Template};
use crate::wire::evm::Address;
use serde::Deserialize;
use serde_json::Value;
use std::rc::Rc;
use wasm_bindgen::JsValue;
use worker::Env;

/// A row as D1 returns it: booleans are numbers, and JSON is text.
#[derive(Deserialize)]
struct TemplateRow {
    id: String,
    creator_id: String,
    wallets: String,
    agent_wallet: Option<Address>,
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
    #[serde(default)]
    usual_ms: Option<u64>,
    /// A [`HireRow`] as JSON.
    #[serde(default)]
    hire: Option<String>,
}

/// The columns of a capability beyond those of its template.
#[derive(Deserialize)]
struct HireRow {
    handle: String,
    slug: String,
    creator: String,
    agent_id: String,
    wallet: Address,
    output: Option<OutputType>,
    output_schema: Option<String>,
    file_name: Option<String>,
    mime: Option<String>,
    max_latency_ms: Option<u64>,
    created_at: u64,
    updated_at: u64,
}

const COLUMNS: &str = "\
    t.id, t.creator_id, c.wallets, t.name, t.description, t.model, t.prompt, t.parameters, t.allow_user_message, \
    t.max_tokens, t.price, t.published, t.release, t.runs, \
    (SELECT wallet FROM agents WHERE creator_id = t.creator_id) AS agent_wallet";

/// The second longest of the template's last runs.
const USUAL: &str = "\
    (SELECT duration_ms FROM (SELECT duration_ms FROM runs WHERE template_id = t.id AND status = 'delivered'
                              ORDER BY started_at DESC LIMIT 20) ORDER BY duration_ms DESC LIMIT 1 OFFSET 1) AS usual_ms";

const HIRE: &str = "\
    json_object('handle', c.handle, 'slug', t.slug, 'creator', c.name, 'agent_id', a.agent_id, 'wallet', a.wallet,
                'output', k.output, 'output_schema', k.output_schema, 'file_name', k.file_name, 'mime', k.mime,
                'max_latency_ms', k.max_latency_ms, 'created_at', t.created_at, 'updated_at', t.updated_at) AS hire
    FROM templates t JOIN creators c ON c.id = t.creator_id JOIN agents a ON a.creator_id = c.id
                     LEFT JOIN capabilities k ON k.template_id = t.id
    WHERE c.deleted_at IS NULL";

/// The most capabilities of one manifest.
const MAX_CAPABILITIES: u32 = 1000;

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
        "SELECT {COLUMNS}, {USUAL} FROM templates t JOIN creators c ON c.id = t.creator_id
         WHERE c.handle = ?1 AND t.slug = ?2 AND c.deleted_at IS NULL AND (t.published = 1 OR t.creator_id = ?3)"
    );
    let creator = creator.map_or(JsValue::NULL, JsValue::from);
    let query = db.prepare(by_path).bind(&[handle.into(), slug.into(), creator]);
    let query = query.map_err(fault("template query"))?;
    let row: Option<TemplateRow> = query.first(None).await.map_err(fault("template query"))?;
    row.map(template).transpose()
}

/// Which capabilities to find.
pub(crate) enum CapabilityQuery<'a> {
    /// All capabilities that are published.
    All,
    /// The published ones of one creator.
    Of { handle: &'a str },
    /// A published one of an agent, by its slug or by its full name.
    Named { agent_id: &'a str, name: &'a str },
    /// The published ones of an agent.
    OfAgent { agent_id: &'a str },
    /// A published one by its full name, `handle-slug`.
    Full { name: &'a str },
    /// The one of a template, even if the template is no longer published: contracts about it stay valid.
    OfTemplate { id: &'a str },
}

/// Capabilities in the order of their names, each with its creator's display name.
pub(crate) async fn capabilities(env: &Env, wanted: CapabilityQuery<'_>) -> Result<Vec<(Capability, String)>, Refusal> {
    let (condition, values): (&str, Vec<&str>) = match wanted {
        CapabilityQuery::All => ("t.published = 1 AND a.active = 1", vec![]),
        CapabilityQuery::Of { handle } => ("t.published = 1 AND a.active = 1 AND c.handle = ?1", vec![handle]),
        CapabilityQuery::Named { agent_id, name } => (
            "t.published = 1 AND a.active = 1 AND a.agent_id = ?1 AND (t.slug = ?2 OR c.handle || '-' || t.slug = ?2)",
            vec![agent_id, name],
        ),
        CapabilityQuery::OfAgent { agent_id } => {
            ("t.published = 1 AND a.active = 1 AND a.agent_id = ?1", vec![agent_id])
        }
        CapabilityQuery::Full { name } => {
            ("t.published = 1 AND a.active = 1 AND c.handle || '-' || t.slug = ?1", vec![name])
        }
        CapabilityQuery::OfTemplate { id } => ("t.id = ?1", vec![id]),
    };
    let db = env.d1("DB").map_err(fault("D1 binding"))?;
    let select = format!("SELECT {COLUMNS}, {HIRE} AND {condition} ORDER BY c.handle, t.slug LIMIT {MAX_CAPABILITIES}");
    let values: Vec<JsValue> = values.into_iter().map(JsValue::from).collect();
    let query = db.prepare(select).bind(&values).map_err(fault("capability query"))?;
    let rows = query.all().await.and_then(|rows| rows.results::<TemplateRow>()).map_err(fault("capability query"))?;
    // A row that cannot be read is left out, so that it does not hide the other creators' capabilities. It has been
    // logged.
    Ok(rows.into_iter().filter_map(|row| capability(row).ok().flatten()).collect())
}

/// Reads a row. `None`: its slug is no name that a manifest may contain.
fn capability(mut row: TemplateRow) -> Result<Option<(Capability, String)>, Refusal> {
    let hire = row.hire.take().unwrap_or_default();
    let hire: HireRow = serde_json::from_str(&hire).map_err(fault("capability row"))?;
    if !is_capability_name(&hire.slug) {
        return Ok(None);
    }
    let schema = hire.output_schema.as_deref().map(serde_json::from_str::<Value>);
    let output_schema = schema.transpose().map_err(fault("capabilities.output_schema"))?;
    let name = hire.file_name.filter(|name| is_file_name(name)).unwrap_or_else(|| format!("{}.txt", hire.slug));
    let mime = hire.mime.filter(|mime| is_media_type(mime));
    let capability = Capability {
        template: template(row)?,
        agent: Agent { id: hire.agent_id, wallet: hire.wallet },
        handle: hire.handle,
        slug: hire.slug,
        output: hire.output,
        output_schema,
        file: FileSpec { name, mime: mime.unwrap_or_else(|| "text/plain; charset=utf-8".to_owned()) },
        max_latency_ms: hire.max_latency_ms,
        created_at: hire.created_at,
        updated_at: hire.updated_at,
    };
    Ok(Some((capability, hire.creator)))
}

fn template(row: TemplateRow) -> Result<Template, Refusal> {
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
