//! `GET /@{user}/{slug}`: a template's card. Never its prompt.

use super::{Answer, RequestContext};
use crate::edge::d1::templates;
use crate::edge::kv::config;
use crate::edge::{fault, jwt};
use crate::rules::payment::quote;
use crate::rules::refusal::Refusal;
use serde_json::json;
use worker::Response;

/// Shows the card. A draft is shown to its owner only.
pub(crate) async fn show(context: RequestContext<'_>, user: &str, slug: &str) -> Answer {
    let env = context.env;
    let config = config::load(env).await?;
    let template = templates::find(env, user, slug).await?;
    let template = template.ok_or(Refusal::NotFound)?;
    if !template.published {
        let header = context.request.headers().get("authorization").map_err(fault("headers"))?;
        let owner = jwt::bearer(env, &config, header.as_deref()).await;
        owner.ok().filter(|id| *id == template.creator_id).ok_or(Refusal::NotFound)?;
    }
    let url = context.request.inner().url();
    let quote = quote::quote(&template, &config, &url).ok();
    let offers = quote.iter().flat_map(|q| q.offers()).map(|o| &o.v2);
    let card = json!({
        "resource": format!("/@{user}/{slug}"),
        "name": template.name,
        "description": template.description,
        "model": template.model,
        "price": template.price,
        "parameters": template.parameters,
        "allowUserMessage": template.allow_user_message,
        "maxTokens": template.max_tokens,
        "published": template.published,
        "runs": template.runs,
        "accepts": offers.collect::<Vec<_>>(),
    });
    let response = Response::from_json(&card).map_err(fault("card"))?;
    response.headers().set("cache-control", "no-cache").map_err(fault("card"))?;
    Ok(response)
}
