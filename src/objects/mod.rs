//! The Durable Objects: the entry points that Cloudflare calls beside the one in `lib.rs`.
//!
//! [`wallet`] is one object for each paying wallet and each owner who tests; [`ledger`] gathers rows for D1. They load,
//! save, keep one alarm and hand over to the engine; the decisions are made in `rules/`.

mod ledger;
mod wallet;
