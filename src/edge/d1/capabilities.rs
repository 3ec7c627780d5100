//! The capabilities that HIRE's manifests list, in D1: published templates of creators who can be hired.
//!
//! No query here reads a prompt: it is secret, it is large, and no listing needs it.

use super::templates::{template, TemplateRow, COLUMNS};
use crate::edge::fault;
use crate::rules::hire::capability::{full_name_readings, is_capability_name, is_short_enough, Agent, Capability};
use crate::rules::hire::manifest::Cursor;
use crate::rules::hire::output::{is_file_name, is_media_type, FileSpec, OutputType};
use crate::rules::refusal::Refusal;
use crate::wire::evm::Address;
use serde::Deserialize;
use serde_json::{json, Value};
use std::collections::BTreeSet;
use wasm_bindgen::JsValue;
use worker::Env;

#[derive(Deserialize)]
struct Row {
    #[serde(flatten)]
    template: TemplateRow,
    handle: String,
    slug: String,
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

/// The columns of a capability beyond those of its template.
const HIRE: &str = "\
    c.handle, t.slug, c.name AS creator, a.agent_id, a.wallet, k.output, k.output_schema, k.file_name, k.mime, \
    k.max_latency_ms, t.created_at, t.updated_at";

/// The tables are read in this order, so that those of a page come in the order of the index: SQLite then reads a
/// page, and no more. The last conditions leave out what no manifest can contain; otherwise a page could be empty.
const FROM: &str = "\
    creators c CROSS JOIN agents a ON a.creator_id = c.id CROSS JOIN templates t ON t.creator_id = c.id
               LEFT JOIN capabilities k ON k.template_id = t.id
    WHERE c.deleted_at IS NULL AND a.active = 1 AND t.published = 1
      AND t.slug GLOB '[a-z]*' AND t.slug NOT GLOB '*[^a-z0-9-]*' AND t.price GLOB '*[1-9]*'
      AND length(c.handle) + length(t.slug) <= 128";

/// How many templates a page of a listing reads.
const PAGE: usize = 100;

/// A page of capabilities, in the order of their creators' handles and of their slugs.
pub(crate) struct Page {
    pub(crate) capabilities: Vec<Capability>,
    /// The display name of the first one's creator.
    pub(crate) creator: Option<String>,
    /// Full names that are those of several capabilities.
    pub(crate) shared_names: BTreeSet<String>,
    /// Where the next page begins; `None`: this is the last one.
    pub(crate) next: Option<Cursor>,
}

/// A page of the capabilities of all creators; with `handle`, of one.
pub(crate) async fn page(env: &Env, handle: Option<&str>, after: &Cursor) -> Result<Page, Refusal> {
    let (condition, from): (&str, &str) = match handle {
        Some(handle) => ("c.handle = ?1 AND t.slug > ?2", handle),
        None => (
            "c.handle >= ?1 AND (c.handle > ?1 OR t.slug > ?2)
             AND c.handle GLOB '[a-z]*' AND c.handle NOT GLOB '*[^a-z0-9-]*'",
            &after.handle,
        ),
    };
    let limit = PAGE.saturating_add(1);
    let select =
        format!("SELECT {COLUMNS}, {HIRE} FROM {FROM} AND {condition} ORDER BY c.handle, t.slug LIMIT {limit}");
    let mut rows: Vec<Value> = all(env, &select, &[from.into(), after.slug.as_str().into()]).await?;
    let is_last = rows.len() <= PAGE;
    rows.truncate(PAGE);
    let text = |row: &Value, name: &str| row.get(name).and_then(Value::as_str).map(str::to_owned);
    let cursor = |row: &Value| Some(Cursor { handle: text(row, "handle")?, slug: text(row, "slug")? });
    let next = rows.last().filter(|_| !is_last).and_then(cursor);
    let creator = rows.first().and_then(|row| text(row, "creator"));
    let capabilities = readable(rows);
    let shared_names = match handle {
        Some(_) => BTreeSet::new(),
        None => shared_names(env, &capabilities).await?,
    };
    Ok(Page { capabilities, creator, shared_names, next })
}

/// The full names of these capabilities that other capabilities have, too: `a-b` of `c`, and `a` of `b-c`.
async fn shared_names(env: &Env, capabilities: &[Capability]) -> Result<BTreeSet<String>, Refusal> {
    #[derive(Deserialize)]
    struct Name {
        name: String,
    }
    let mut readings = Vec::new();
    for capability in capabilities {
        let name = capability.full_name();
        let others = full_name_readings(&name).filter(|(handle, _)| *handle != capability.handle);
        readings.extend(others.map(|(handle, slug)| json!({"name": name, "handle": handle, "slug": slug})));
    }
    if readings.is_empty() {
        return Ok(BTreeSet::new());
    }
    let select = format!("SELECT DISTINCT j.value ->> 'name' AS name {READINGS} WHERE {PUBLISHED}");
    let names: Vec<Name> = all(env, &select, &[Value::from(readings).to_string().into()]).await?;
    Ok(names.into_iter().map(|row| row.name).collect())
}

/// The templates that a full name may mean. Both look-ups go by an index.
const READINGS: &str = "\
    FROM json_each(?1) j CROSS JOIN creators c ON c.handle = j.value ->> 'handle'
                         CROSS JOIN agents a ON a.creator_id = c.id
                         CROSS JOIN templates t ON t.creator_id = c.id AND t.slug = j.value ->> 'slug'
                         LEFT JOIN capabilities k ON k.template_id = t.id";
const PUBLISHED: &str = "c.deleted_at IS NULL AND a.active = 1 AND t.published = 1";

/// Which capabilities to find.
pub(crate) enum CapabilityQuery<'a> {
    /// Any. Two are found where there are several, which is enough to know that.
    Any,
    /// Any of an agent, as above.
    OfAgent { agent_id: &'a str },
    /// One of an agent, by its slug or by its full name.
    Named { agent_id: &'a str, name: &'a str },
    /// One by its full name, `handle-slug`.
    Full { name: &'a str },
}

/// The published capabilities that a contract may mean.
pub(crate) async fn find(env: &Env, wanted: CapabilityQuery<'_>) -> Result<Vec<Capability>, Refusal> {
    let select = |rest: &str| format!("SELECT {COLUMNS}, {HIRE} FROM {FROM} {rest} LIMIT 2");
    let (select, values): (String, Vec<JsValue>) = match wanted {
        CapabilityQuery::Any => (select(""), vec![]),
        CapabilityQuery::OfAgent { agent_id } => (select("AND a.agent_id = ?1"), vec![agent_id.into()]),
        CapabilityQuery::Named { agent_id, name } => (
            select("AND a.agent_id = ?1 AND (t.slug = ?2 OR c.handle || '-' || t.slug = ?2)"),
            vec![agent_id.into(), name.into()],
        ),
        CapabilityQuery::Full { name } => {
            let readings: Vec<Value> =
                full_name_readings(name).map(|(handle, slug)| json!({"handle": handle, "slug": slug})).collect();
            let select = format!("SELECT {COLUMNS}, {HIRE} {READINGS} WHERE {PUBLISHED} LIMIT 2");
            (select, vec![Value::from(readings).to_string().into()])
        }
    };
    Ok(readable(all(env, &select, &values).await?))
}

async fn all<T: for<'a> Deserialize<'a>>(env: &Env, select: &str, values: &[JsValue]) -> Result<Vec<T>, Refusal> {
    let db = env.d1("DB").map_err(fault("D1 binding"))?;
    let query = db.prepare(select).bind(values).map_err(fault("capability query"))?;
    query.all().await.and_then(|rows| rows.results::<T>()).map_err(fault("capability query"))
}

/// A row that cannot be read is left out, so that it does not hide the other creators' capabilities. It is logged.
fn readable(rows: Vec<Value>) -> Vec<Capability> {
    rows.into_iter().filter_map(|row| capability(row).ok().flatten()).collect()
}

/// Reads a row. `None`: its name is none that a manifest may contain, or too long.
fn capability(row: Value) -> Result<Option<Capability>, Refusal> {
    let row: Row = serde_json::from_value(row).map_err(fault("capability row"))?;
    if !is_capability_name(&row.slug) {
        return Ok(None);
    }
    let schema = row.output_schema.as_deref().map(serde_json::from_str::<Value>);
    let output_schema = schema.transpose().map_err(fault("capabilities.output_schema"))?;
    let name = row.file_name.filter(|name| is_file_name(name)).unwrap_or_else(|| format!("{}.txt", row.slug));
    let mime = row.mime.filter(|mime| is_media_type(mime));
    let capability = Capability {
        template: template(row.template)?,
        agent: Agent { id: row.agent_id, wallet: row.wallet },
        handle: row.handle,
        slug: row.slug,
        output: row.output,
        output_schema,
        file: FileSpec { name, mime: mime.unwrap_or_else(|| "text/plain; charset=utf-8".to_owned()) },
        max_latency_ms: row.max_latency_ms,
        created_at: row.created_at,
        updated_at: row.updated_at,
    };
    Ok(is_short_enough(&capability.full_name()).then_some(capability))
}
