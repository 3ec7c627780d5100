//! `GET /@{user}/{slug}`: a template's card. Never its prompt.

use super::reply;
use super::reply::Reply;
use super::request::RequestContext;
use crate::edge::d1::templates;
use crate::edge::kv::config;
use crate::rules::payment::quote;
use crate::rules::refusal::Refusal;
use crate::rules::template::Parameter;
use crate::wire::amount::Price;
use crate::wire::x402::PaymentRequirements;
use serde::Serialize;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TemplateCard<'a> {
    resource: String,
    name: &'a str,
    description: &'a str,
    model: &'a str,
    price: &'a Price,
    parameters: &'a [Parameter],
    allow_user_message: bool,
    max_tokens: u32,
    published: bool,
    runs: u64,
    /// Empty where the template cannot be sold at the moment.
    accepts: Vec<&'a PaymentRequirements>,
}

/// Shows the card. A draft is shown to its owner only.
pub(crate) async fn show(context: RequestContext<'_>, user: &str, slug: &str) -> Reply {
    let config = config::load(context.env).await?;
    let template = match templates::find(context.env, user, slug, None).await? {
        Some(template) => template,
        None => {
            let creator = context.creator(&config).await.map_err(|_| Refusal::NotFound)?;
            templates::find(context.env, user, slug, Some(&creator)).await?.ok_or(Refusal::NotFound)?
        }
    };
    let quote = quote::quote(&template, &config, &context.url()).ok();
    let card = TemplateCard {
        resource: format!("/@{user}/{slug}"),
        name: &template.name,
        description: &template.description,
        model: &template.model,
        price: &template.price,
        parameters: &template.parameters,
        allow_user_message: template.allow_user_message,
        max_tokens: template.max_tokens,
        published: template.published,
        runs: template.runs,
        accepts: quote.iter().flat_map(|quote| quote.offers()).map(|offer| &offer.v2).collect(),
    };
    reply::json(&card, "no-cache")
}
