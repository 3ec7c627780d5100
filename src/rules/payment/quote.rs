//! Quotes: a template and its price become x402 terms, and a payment is held against them.
//!
//! Nothing here trusts the payer's echo of the terms, and nothing here is left to the facilitator
//! that we can check ourselves: recipient, asset, network, value and time window.

use super::identifier;
use crate::rules::config::{Config, Network};
use crate::rules::refusal::body::ErrorBody;
use crate::rules::refusal::Refusal;
use crate::rules::template::Template;
use crate::wire::evm::{Address, Domain};
use crate::wire::x402;
use crate::wire::x402::{PaymentRequirements, Resource};
use crate::wire::x402_v1;
use serde::Serialize;
use serde_json::{json, Map, Value};

/// The one scheme that is offered.
pub const SCHEME: &str = "exact";
const MIME: &str = "text/event-stream";
/// Long descriptions make a header that common clients refuse.
const MAX_DESCRIPTION: usize = 200;

/// The terms of one network, in both versions.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    /// As v2 says it.
    pub v2: PaymentRequirements,
    /// As v1 says it.
    pub v1: x402_v1::PaymentRequirements,
    /// What a payer signs for.
    pub domain: Domain,
}

/// The body of a 402: v1's terms, and our own error. v1 fixes `error` to a text, so the error's members stand beside it.
#[derive(Clone, Debug, Serialize)]
pub struct ChallengeBody {
    #[serde(flatten)]
    terms: x402_v1::PaymentRequired,
    #[serde(flatten)]
    error: ErrorBody<'static>,
}

/// What a run of a template costs, on each network its creator takes money on.
#[derive(Clone, Debug, PartialEq)]
pub struct Quote {
    resource: Resource,
    pub(super) offers: Vec<Offer>,
    require_identifier: bool,
}

/// Makes the quote of a template for a call of `url`.
pub fn quote(template: &Template, config: &Config, url: &str) -> Result<Quote, Refusal> {
    quote_as(template, config, url, MIME)
}

/// The same, of an answer of another media type.
pub fn quote_as(template: &Template, config: &Config, url: &str, mime: &str) -> Result<Quote, Refusal> {
    let (networks, limits) = (&config.networks, &config.limits);
    let mut description = format!("{}: {}", template.name, template.description);
    if let Some((cut, _)) = description.char_indices().nth(MAX_DESCRIPTION) {
        description.truncate(cut);
    }
    let resource =
        Resource { url: url.to_owned(), description: Some(description.clone()), mime_type: Some(mime.to_owned()) };
    let offer = |network: &Network| {
        let pay_to = Address::parse(template.wallets.get(&network.id)?)?.to_string();
        let amount = template.price.to_amount(network.decimals).ok().filter(|a| a.0 > 0)?;
        let extra = Some(extra_of(network));
        let asset = network.asset.to_string();
        Some(Offer {
            domain: network.domain(),
            v2: PaymentRequirements {
                scheme: SCHEME.to_owned(),
                network: network.id.clone(),
                amount,
                asset: asset.clone(),
                pay_to: pay_to.clone(),
                max_timeout_seconds: limits.max_timeout_seconds,
                extra: extra.clone(),
            },
            v1: x402_v1::PaymentRequirements {
                scheme: SCHEME.to_owned(),
                network: network.v1.clone(),
                max_amount_required: amount,
                resource: url.to_owned(),
                description: description.clone(),
                mime_type: mime.to_owned(),
                pay_to,
                max_timeout_seconds: limits.max_timeout_seconds,
                asset,
                output_schema: Some(output_schema(template)),
                extra,
            },
        })
    };
    let offers: Vec<Offer> = networks.iter().filter_map(offer).collect();
    if offers.is_empty() {
        return Err(Refusal::NotForSale);
    }
    Ok(Quote { resource, offers, require_identifier: config.require_payment_identifier })
}

fn extra_of(network: &Network) -> Map<String, Value> {
    let domain = [
        ("name".to_owned(), network.eip712.name.clone().into()),
        ("version".to_owned(), network.eip712.version.clone().into()),
    ];
    domain.into_iter().collect()
}

/// How to call the resource, in the form that v1 indexers read.
fn output_schema(template: &Template) -> Value {
    let field = |p: &crate::rules::template::Parameter| {
        let mut field = json!({"type": "string", "required": p.required && p.default.is_none()});
        if let (Some(text), Some(map)) = (&p.description, field.as_object_mut()) {
            map.insert("description".to_owned(), text.clone().into());
        }
        (p.name.clone(), field)
    };
    let mut fields: Map<String, Value> = template.parameters.iter().map(field).collect();
    if template.allow_user_message {
        let field = json!({"type": "string", "required": false});
        fields.insert(crate::rules::template::USER_MESSAGE.to_owned(), field);
    }
    json!({
        "input": {"type": "http", "method": "POST", "bodyType": "json", "bodyFields": fields},
        "output": {"type": "string"},
    })
}

impl Quote {
    /// The body and the header of a 402.
    pub fn challenge_of(&self, refusal: &Refusal) -> (ChallengeBody, String) {
        let reason = match refusal {
            Refusal::PaymentRequired => "Payment required".to_owned(),
            other => other.x402_reason(),
        };
        let body = ChallengeBody { terms: self.challenge_v1(reason.clone()), error: ErrorBody::of_challenge(refusal) };
        (body, x402::encode_header(&self.challenge(Some(reason))))
    }

    /// The offers.
    pub fn offers(&self) -> &[Offer] {
        &self.offers
    }

    /// The challenge for `PAYMENT-REQUIRED`.
    pub fn challenge(&self, error: Option<String>) -> x402::PaymentRequired {
        let declaration = identifier::declaration(self.require_identifier);
        x402::PaymentRequired {
            x402_version: 2,
            error,
            resource: self.resource.clone(),
            accepts: self.offers.iter().map(|o| o.v2.clone()).collect(),
            extensions: [(identifier::EXTENSION.to_owned(), declaration)].into_iter().collect(),
        }
    }

    /// The challenge for the body, as older clients read it.
    pub fn challenge_v1(&self, error: String) -> x402_v1::PaymentRequired {
        x402_v1::PaymentRequired { x402_version: 1, error, accepts: self.offers.iter().map(|o| o.v1.clone()).collect() }
    }
}
