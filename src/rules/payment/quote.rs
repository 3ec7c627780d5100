//! Quotes: what is sold, and for how much, as x402's payment requirements in both versions.

use super::identifier;
use crate::rules::config::{Config, Network};
use crate::rules::refusal::body::ErrorBody;
use crate::rules::refusal::Refusal;
use crate::rules::template::{Parameter, Template, USER_MESSAGE};
use crate::wire::amount::Price;
use crate::wire::evm::{Address, Domain};
use crate::wire::x402;
use crate::wire::x402::{PaymentRequirements, Resource};
use crate::wire::x402_v1;
use serde::Serialize;
use serde_json::{json, Map, Value};

/// The only scheme that is offered.
pub const SCHEME: &str = "exact";
/// The media type of a template's answer.
const MIME: &str = "text/event-stream";
/// In characters. A longer description makes a header that common clients refuse.
const MAX_DESCRIPTION: usize = 200;

/// The payment requirements of one network.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    pub v2: PaymentRequirements,
    pub v1: x402_v1::PaymentRequirements,
    /// The EIP-712 domain that payers sign for.
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

/// What is sold, and on which terms. A template and a contract each have their own.
#[derive(Clone, Debug)]
pub struct QuoteTerms<'a> {
    /// The networks that money is taken on, in order of preference, each with the wallet that is paid there.
    pub payees: Vec<(&'a Network, Address)>,
    pub price: &'a Price,
    /// How long a payment stays valid: until the answer has been made and settled.
    pub max_timeout_seconds: u64,
    /// The media type of the paid answer.
    pub mime: &'static str,
    pub description: String,
    /// The members of the request's body, as v1 describes them to indexers.
    pub body_fields: Map<String, Value>,
    pub require_identifier: bool,
}

impl<'a> QuoteTerms<'a> {
    /// The terms of a run of a template: its creator is paid wherever they have a wallet.
    pub fn of_template(template: &'a Template, config: &'a Config) -> Self {
        let payee = |network: &'a Network| {
            let wallet = template.wallets.get(&network.id)?;
            Some((network, Address::parse(wallet)?))
        };
        Self {
            payees: config.networks.iter().filter_map(payee).collect(),
            price: &template.price,
            max_timeout_seconds: config.limits.max_timeout_seconds,
            mime: MIME,
            description: format!("{}: {}", template.name, template.description),
            body_fields: body_fields(template),
            require_identifier: config.require_payment_identifier,
        }
    }
}

/// What a call costs, on each network that money is taken on.
#[derive(Clone, Debug, PartialEq)]
pub struct Quote {
    resource: Resource,
    pub(super) offers: Vec<Offer>,
    require_identifier: bool,
}

/// Makes the quote of a run of a template for a call of `url`.
pub fn quote(template: &Template, config: &Config, url: &str) -> Result<Quote, Refusal> {
    Quote::new(QuoteTerms::of_template(template, config), url)
}

fn offer(terms: &QuoteTerms<'_>, network: &Network, pay_to: Address, resource: &Resource) -> Option<Offer> {
    let amount = terms.price.to_amount(network.decimals).ok().filter(|a| a.0 > 0)?;
    let extra = Some(extra_of(network));
    let (asset, pay_to) = (network.asset.to_string(), pay_to.to_string());
    Some(Offer {
        domain: network.domain(),
        v2: PaymentRequirements {
            scheme: SCHEME.to_owned(),
            network: network.id.clone(),
            amount,
            asset: asset.clone(),
            pay_to: pay_to.clone(),
            max_timeout_seconds: terms.max_timeout_seconds,
            extra: extra.clone(),
        },
        v1: x402_v1::PaymentRequirements {
            scheme: SCHEME.to_owned(),
            network: network.v1.clone(),
            max_amount_required: amount,
            resource: resource.url.clone(),
            description: resource.description.clone().unwrap_or_default(),
            mime_type: terms.mime.to_owned(),
            pay_to,
            max_timeout_seconds: terms.max_timeout_seconds,
            asset,
            output_schema: Some(output_schema(&terms.body_fields)),
            extra,
        },
    })
}

fn extra_of(network: &Network) -> Map<String, Value> {
    let domain = [
        ("name".to_owned(), network.eip712.name.clone().into()),
        ("version".to_owned(), network.eip712.version.clone().into()),
    ];
    domain.into_iter().collect()
}

/// How to call the resource, in the form that v1 indexers read.
fn output_schema(body_fields: &Map<String, Value>) -> Value {
    json!({
        "input": {"type": "http", "method": "POST", "bodyType": "json", "bodyFields": body_fields},
        "output": {"type": "string"},
    })
}

fn body_fields(template: &Template) -> Map<String, Value> {
    let field = |parameter: &Parameter| {
        let mut field = Map::new();
        field.insert("type".to_owned(), "string".into());
        field.insert("required".to_owned(), (parameter.required && parameter.default.is_none()).into());
        if let Some(text) = &parameter.description {
            field.insert("description".to_owned(), text.clone().into());
        }
        (parameter.name.clone(), Value::Object(field))
    };
    let user_message = (USER_MESSAGE.to_owned(), json!({"type": "string", "required": false}));
    let parameters = template.parameters.iter().map(field);
    parameters.chain(template.allow_user_message.then_some(user_message)).collect()
}

impl Quote {
    /// Makes the quote of what is sold for a call of `url`.
    pub fn new(terms: QuoteTerms<'_>, url: &str) -> Result<Self, Refusal> {
        let mut description = terms.description.clone();
        if let Some((cut, _)) = description.char_indices().nth(MAX_DESCRIPTION) {
            description.truncate(cut);
        }
        let resource =
            Resource { url: url.to_owned(), description: Some(description), mime_type: Some(terms.mime.to_owned()) };
        let offers = terms.payees.iter().filter_map(|(network, pay_to)| offer(&terms, network, *pay_to, &resource));
        let offers: Vec<Offer> = offers.collect();
        if offers.is_empty() {
            return Err(Refusal::NotForSale);
        }
        Ok(Self { resource, offers, require_identifier: terms.require_identifier })
    }

    /// The body and the header of a 402.
    pub fn challenge_of(&self, refusal: &Refusal) -> (ChallengeBody, String) {
        let reason = match refusal {
            Refusal::PaymentRequired => "Payment required".to_owned(),
            other => other.x402_reason(),
        };
        let body = ChallengeBody { terms: self.challenge_v1(reason.clone()), error: ErrorBody::of_challenge(refusal) };
        (body, x402::encode_header(&self.challenge(Some(reason))))
    }

    /// What is sold, as facilitators are told of it. Whatever a caller writes behind the `?` stays out: a very long URL
    /// makes a facilitator refuse the request unread.
    pub(super) fn resource_without_query(&self) -> Resource {
        Resource { url: without_query(&self.resource.url).to_owned(), ..self.resource.clone() }
    }

    /// The URL that was called.
    pub fn url(&self) -> &str {
        &self.resource.url
    }

    pub fn offers(&self) -> &[Offer] {
        &self.offers
    }

    /// v2's challenge, for the header `PAYMENT-REQUIRED`.
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

    /// v1's challenge, for the body.
    pub fn challenge_v1(&self, error: String) -> x402_v1::PaymentRequired {
        x402_v1::PaymentRequired { x402_version: 1, error, accepts: self.offers.iter().map(|o| o.v1.clone()).collect() }
    }
}

/// A URL without what stands behind its path.
pub(super) fn without_query(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or_default()
}
