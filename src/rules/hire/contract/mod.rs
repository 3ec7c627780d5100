//! Contracts: whether a document is a contract, and whether both parties have signed it.
//!
//! `terms` says whether we accept its terms, `proposal` completes a seeker's draft, `state` says how it stands.

use crate::json_schema::Schema;
use crate::rules::refusal::{ContractError, Refusal};
use crate::wire::eip191::is_signed;
use crate::wire::evm::Address;
use crate::wire::hire;
use crate::wire::hire::Contract;
use crate::wire::timestamp;
use serde_json::Value;
use std::sync::OnceLock;

mod proposal;
mod state;
mod terms;

pub use proposal::{complete, with_signature};
pub use state::ContractState;
pub use terms::{check_terms, AgreedTerms};

/// Reads a contract and checks its form, its dates and its wallets. Hash and signatures are not checked here.
pub fn read(document: &Value) -> Result<Contract, Refusal> {
    let malformed =
        |field: &str, expected: &str| Refusal::contract(ContractError::Malformed, field, expected, "something else");
    for schema in contract_schemas()? {
        schema.check(document).map_err(|mismatch| match mismatch.keyword {
            "required" => Refusal::contract(ContractError::Malformed, or_body(&mismatch.field), "a value", "nothing"),
            _ => malformed(or_body(&mismatch.field), &mismatch.expected),
        })?;
    }
    let contract: Contract =
        serde_json::from_value(document.clone()).map_err(|_| malformed("body", "members of the schema's types"))?;
    if contract.version != hire::VERSION {
        return Err(malformed("version", hire::VERSION));
    }
    if !hire::is_contract_id(&contract.contract_id) {
        return Err(malformed("contract_id", "ctr_ and at most 64 of a-z and 0-9"));
    }
    for (field, date) in [
        ("created_at", &contract.created_at),
        ("terms.deadline", &contract.terms.deadline),
        ("signatures.timestamp", &contract.signatures.timestamp),
    ] {
        timestamp::parse(date).ok_or_else(|| malformed(field, "an RFC 3339 date-time"))?;
    }
    for (field, party) in
        [("parties.seeker.wallet", &contract.parties.seeker), ("parties.worker.wallet", &contract.parties.worker)]
    {
        Address::parse(&party.wallet).ok_or_else(|| malformed(field, "an address: 0x and 40 hex digits"))?;
    }
    Ok(contract)
}

/// HIRE's schema, and that of our own members. Read once per isolate.
fn contract_schemas() -> Result<&'static [Schema; 2], Refusal> {
    static SCHEMAS: OnceLock<Option<[Schema; 2]>> = OnceLock::new();
    let read = |text| serde_json::from_str(text).ok().and_then(|schema| Schema::read(&schema).ok());
    let both = || Some([read(hire::CONTRACT_SCHEMA)?, read(hire::EXTENSIONS_SCHEMA)?]);
    SCHEMAS.get_or_init(both).as_ref().ok_or(Refusal::Internal)
}

/// A mismatch of the whole document has an empty path.
fn or_body(field: &str) -> &str {
    match field {
        "" => "body",
        field => field,
    }
}

/// Checks that the document is the one that both parties have signed.
pub fn check_signed(document: &Value, contract: &Contract) -> Result<(), Refusal> {
    let hash = hire::hash(document);
    if contract.hash != hash {
        return Err(Refusal::contract(ContractError::HashMismatch, "hash", &hash, "another hash"));
    }
    let (parties, signatures) = (&contract.parties, &contract.signatures);
    for (error, field, party, signature) in [
        (ContractError::WorkerSignature, "signatures.worker", &parties.worker, &signatures.worker),
        (ContractError::SeekerSignature, "signatures.seeker", &parties.seeker, &signatures.seeker),
    ] {
        let is_signed = Address::parse(&party.wallet).is_some_and(|wallet| is_signed(&hash, signature, wallet));
        if !is_signed {
            let expected = "the wallet's EIP-191 signature of the hash: 0x, 130 lower-case hex digits, v 27 or 28";
            return Err(Refusal::contract(error, field, expected, "another signature"));
        }
    }
    Ok(())
}
