//! Whether a payment matches a quote.
//!
//! The payer repeats our terms in the payment. That copy is compared with ours and never used in their place.
//! Everything that can be checked here is not left to the facilitator: recipient, asset, network, value, time window,
//! and the signature of a key.

use super::identifier;
use super::quote::{without_query, Offer, Quote, SCHEME};
use super::Payment;
use crate::rules::refusal::Refusal;
use crate::wire::canonical::sha256_hex;
use crate::wire::evm::{Address, Authorization, PayloadError, Signed};
use crate::wire::x402::{self, PaymentRequirements};
use crate::wire::x402_v1;
use percent_encoding::percent_decode_str;
use serde_json::{json, Map, Value};

/// By how many seconds the payer's clock may be ahead of ours.
const CLOCKS_DIFFER: u64 = 60;

/// A payment that has been read, but not compared with any terms.
#[derive(Clone, Debug)]
pub struct Presented {
    chosen: ChosenOffer,
    /// The URL of the resource that it was signed for, where it names one.
    resource: Option<String>,
    authorization: Authorization,
    payload: Map<String, Value>,
    pub identifier: Option<String>,
    by_key: bool,
}

/// The offer that the payment names.
#[derive(Clone, Debug)]
enum ChosenOffer {
    V2(Box<PaymentRequirements>),
    V1 { scheme: String, network: String },
}

/// Reads the payment headers. Where both are present, only the v2 header counts. `None`: there is no payment.
pub fn read_payment(v2: Option<&str>, v1: Option<&str>) -> Result<Option<Presented>, Refusal> {
    let Some(header) = v2.or(v1) else {
        return Ok(None);
    };
    let malformed = |what: String| Refusal::PaymentMalformed { what };
    let raw: Value = x402::decode_header(header).map_err(|e| malformed(e.to_string()))?;
    let version = raw.get("x402Version").and_then(Value::as_u64);
    let form = |_| malformed("it is not a payment payload of its version".to_owned());
    let (chosen, payload) = match version {
        Some(2) => {
            let payment: x402::PaymentPayload = serde_json::from_value(raw.clone()).map_err(form)?;
            (ChosenOffer::V2(Box::new(payment.accepted)), payment.payload)
        }
        Some(1) => {
            let payment: x402_v1::PaymentPayload = serde_json::from_value(raw.clone()).map_err(form)?;
            let chosen = ChosenOffer::V1 { scheme: payment.scheme, network: payment.network };
            (chosen, payment.payload)
        }
        _ => return Err(malformed("x402Version must be 2 or 1".to_owned())),
    };
    let scheme = match &chosen {
        ChosenOffer::V2(accepted) => &accepted.scheme,
        ChosenOffer::V1 { scheme, .. } => scheme,
    };
    if scheme != SCHEME {
        return Err(Refusal::PaymentMismatch { field: "scheme".to_owned() });
    }
    let authorization = Authorization::read(&payload).map_err(|e: PayloadError| malformed(e.to_string()))?;
    let identifier = identifier::of_extensions(&raw)?;
    let resource = resource_of(&raw);
    Ok(Some(Presented { chosen, resource, authorization, payload, identifier, by_key: false }))
}

/// What a payment is against a quote.
#[derive(Clone, Debug, PartialEq)]
pub enum PaymentCheck {
    Matches(Payment),
    /// Its signature is not by the payer's key, so neither an object nor a facilitator is called. Where the payer's
    /// address has code, the signature may be valid all the same: see [`check_payment_of_contract`].
    Forged(Refusal),
    /// It is for other terms, or for another time. It may have bought a run when it did match; then it has a name.
    Differs(Refusal, Option<Payment>),
}

/// Checks a payment against a quote at `now` (Unix seconds). It has to be valid for `window` seconds still.
pub fn check_payment(presented: &mut Presented, quote: &Quote, window: u64, now: u64) -> PaymentCheck {
    if let Err(refusal) = check_signature(presented, quote) {
        return PaymentCheck::Forged(refusal);
    }
    check_payment_of_contract(presented, quote, window, now)
}

/// As [`check_payment`], for a payer whose address has code, or may have: whether the signature is valid there (EIP-1271)
/// only a facilitator can tell.
pub fn check_payment_of_contract(presented: &Presented, quote: &Quote, window: u64, now: u64) -> PaymentCheck {
    match match_payment(presented, quote, window, now) {
        Ok(payment) => PaymentCheck::Matches(payment),
        Err(refusal) => PaymentCheck::Differs(refusal, identify(presented, quote)),
    }
}

/// Refuses a signature that cannot be the payer's, before the facilitator is called. A payment for a network that is
/// not offered passes here, and is refused by [`match_payment`].
pub fn check_signature(presented: &mut Presented, quote: &Quote) -> Result<(), Refusal> {
    let signed = presented.offer(quote).map(|offer| presented.authorization.signed(&offer.domain));
    presented.by_key = signed == Some(Signed::ByPayer);
    match signed {
        Some(Signed::Wrong) => {
            Err(Refusal::PaymentInvalid { reason: Some("invalid_exact_evm_payload_signature".to_owned()) })
        }
        Some(Signed::ByPayer | Signed::Elsewhere) | None => Ok(()),
    }
}

/// Compares a payment with the terms, at `now` (Unix seconds). It has to be valid for `window` seconds still.
pub fn match_payment(presented: &Presented, quote: &Quote, window: u64, now: u64) -> Result<Payment, Refusal> {
    let offer = match &presented.chosen {
        ChosenOffer::V2(accepted) => offer_as_accepted(accepted, quote)?,
        ChosenOffer::V1 { .. } => presented.offer(quote).ok_or_else(|| mismatch("network"))?,
    };
    if presented.resource.as_deref().is_some_and(|resource| !is_same_resource(resource, quote.url())) {
        return Err(mismatch("resource"));
    }
    let authorization = &presented.authorization;
    if Address::parse(&offer.v2.pay_to) != Some(authorization.to) {
        return Err(mismatch("authorization.to"));
    }
    if authorization.value != offer.v2.amount {
        return Err(mismatch("authorization.value"));
    }
    if authorization.valid_after > now {
        return Err(Refusal::PaymentNotYetValid);
    }
    // The payment must stay valid until Claude has begun and the settlement is through. With a shorter one, a payer
    // could have answers begun that can never be settled.
    if authorization.valid_before <= now.saturating_add(window) {
        return Err(Refusal::PaymentExpired);
    }
    // An authorization that stays valid for long could be presented, and come to nothing, again and again.
    let longest = now.saturating_add(offer.v2.max_timeout_seconds).saturating_add(CLOCKS_DIFFER);
    if authorization.valid_before > longest {
        return Err(mismatch("authorization.validBefore"));
    }
    Ok(presented.on(offer, quote))
}

/// The payment without a comparison with the terms. A payment that has bought a run finds that run again by its name,
/// even if it has expired, or the price has changed since.
pub fn identify(presented: &Presented, quote: &Quote) -> Option<Payment> {
    presented.offer(quote).map(|offer| presented.on(offer, quote))
}

impl Presented {
    /// The payer, and the CAIP-2 id of the offered network on which they pay.
    pub fn payer<'a>(&self, quote: &'a Quote) -> Option<(&'a str, Address)> {
        self.offer(quote).map(|offer| (offer.v2.network.as_str(), self.authorization.from))
    }

    /// The offer on the network that the payment is for.
    fn offer<'a>(&self, quote: &'a Quote) -> Option<&'a Offer> {
        let network = match &self.chosen {
            ChosenOffer::V2(accepted) => &accepted.network,
            ChosenOffer::V1 { network, .. } => network,
        };
        let v1 = matches!(self.chosen, ChosenOffer::V1 { .. });
        quote.offers.iter().find(|o| o.v2.network == *network || (v1 && o.v1.network == *network))
    }

    fn on(&self, offer: &Offer, quote: &Quote) -> Payment {
        let part = |name: &str| self.payload.get(name).cloned().map(|value| (name.to_owned(), value));
        let mut signed: Map<String, Value> = ["signature", "authorization"].into_iter().filter_map(part).collect();
        if let Some(Value::Object(authorization)) = signed.get_mut("authorization") {
            authorization.retain(|name, _| Authorization::MEMBERS.contains(&name.as_str()));
        }
        let (x402_version, payload, requirements) = self.for_facilitator(offer, quote);
        let Authorization { from, nonce, valid_before, .. } = &self.authorization;
        let terms = &offer.v2;
        let identity = format!("{}|{}|{from}|{nonce}", terms.network, terms.asset);
        // The map is sorted by name, so the order in which the payer wrote the members does not matter. Not RFC 8785:
        // it rounds whole numbers above 2^53, and two payloads could prove the same.
        let proof = format!("{}|{}", terms.network, Value::Object(signed));
        Payment {
            x402_version,
            payload,
            requirements,
            network: terms.network.clone(),
            network_v1: offer.v1.network.clone(),
            asset: offer.domain.contract,
            pay_to: self.authorization.to,
            amount: terms.amount,
            payer: *from,
            by_key: self.by_key,
            valid_before: *valid_before,
            nonce: nonce.clone(),
            name: sha256_hex(identity.as_bytes()).get(..32).unwrap_or_default().to_owned(),
            proof: sha256_hex(proof.as_bytes()),
        }
    }
    /// The version, the payload and the requirements that go to a facilitator. They are written anew from what was read
    /// here: of the payer's own writing only the six signed values and the signature remain. A payer who could add to
    /// the request could make the facilitator fail, or settle by another transfer method.
    fn for_facilitator(&self, offer: &Offer, quote: &Quote) -> (u8, Value, Value) {
        let resource = quote.resource_without_query();
        let signed = self.authorization.to_payload();
        match self.chosen {
            ChosenOffer::V2(_) => {
                let payload = json!({"x402Version": 2, "resource": resource, "accepted": offer.v2, "payload": signed});
                (2, payload, json!(offer.v2))
            }
            ChosenOffer::V1 { .. } => {
                // Some v1 clients write the CAIP-2 id, but facilitators expect the name that the terms have.
                let network = &offer.v1.network;
                let payload = json!({"x402Version": 1, "scheme": SCHEME, "network": network, "payload": signed});
                let requirements = x402_v1::PaymentRequirements { resource: resource.url, ..offer.v1.clone() };
                (1, payload, json!(requirements))
            }
        }
    }
}

/// The offer that `accepted` repeats, field by field. Its `extra` must contain ours, and may contain more.
fn offer_as_accepted<'a>(accepted: &PaymentRequirements, quote: &'a Quote) -> Result<&'a Offer, Refusal> {
    let offer = quote.offers.iter().find(|offer| offer.v2.network == accepted.network);
    let offer = offer.ok_or_else(|| mismatch("network"))?;
    let terms = &offer.v2;
    let same_address = |a: &str, b: &str| a.eq_ignore_ascii_case(b);
    let is_repeated =
        |(key, value): (&String, &Value)| accepted.extra.as_ref().and_then(|extra| extra.get(key)) == Some(value);
    let fields = [
        ("asset", same_address(&accepted.asset, &terms.asset)),
        ("amount", accepted.amount == terms.amount),
        ("payTo", same_address(&accepted.pay_to, &terms.pay_to)),
        ("maxTimeoutSeconds", accepted.max_timeout_seconds == terms.max_timeout_seconds),
        ("extra", terms.extra.iter().flatten().all(is_repeated)),
    ];
    match fields.iter().find(|(_, same)| !same) {
        Some((field, _)) => Err(mismatch(field)),
        None => Ok(offer),
    }
}

/// The URL of the resource that a payment names: in v2 the member of an object, and some v1 clients write a text.
fn resource_of(payment: &Value) -> Option<String> {
    let resource = payment.get("resource")?;
    resource.get("url").unwrap_or(resource).as_str().map(str::to_owned)
}

/// Whether two URLs name one resource: host and path are the same. The query is not compared, nor is the scheme, which a
/// proxy may change; and a path may be written without a host. (The crate `url` would be a tenth of the whole Worker.)
fn is_same_resource(named: &str, ours: &str) -> bool {
    let Some((host, path)) = host_and_path(ours) else { return false };
    let (named_host, named_path) = match host_and_path(named) {
        Some(parts) => parts,
        None if named.starts_with('/') && !named.starts_with("//") => (host.clone(), without_query(named)),
        None => return false,
    };
    let decoded = |path: &str| percent_decode_str(path.trim_end_matches('/')).collect::<Vec<u8>>();
    (named_host, decoded(named_path)) == (host, decoded(path))
}

/// The host of an absolute http(s) URL, in lower case and without the scheme's usual port, and its path.
fn host_and_path(url: &str) -> Option<(String, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let rest = without_query(rest);
    let at = rest.find('/').unwrap_or(rest.len());
    let (host, path) = rest.split_at_checked(at)?;
    let host = host.to_ascii_lowercase();
    let host = match scheme.to_ascii_lowercase().as_str() {
        "https" => host.trim_end_matches(":443").to_owned(),
        "http" => host.trim_end_matches(":80").to_owned(),
        _ => return None,
    };
    Some((host, path))
}

fn mismatch(field: &str) -> Refusal {
    Refusal::PaymentMismatch { field: field.to_owned() }
}
